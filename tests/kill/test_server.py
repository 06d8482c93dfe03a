"""kill -9 at random moments of ``refit serve``, starting and answering, then serve again."""

import random
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from refit.errors import RefitError
from refit.ports import check_port, free_ports
from refit.prediction import PREDICTION_SCHEMA
from serving.client import RecommenderClient
from tests.kill.killing import SEED, RefitProcess, Report, kill_group, read
from tests.serving import tiny

MOMENTS = (
    ("starting", "everything"),
    ("answering", "everything"),
    ("answering", "launcher"),
    ("starting", "launcher"),
    ("answering", "microservice"),
    ("answering", "everything"),
    ("answering", "model_server"),
)
"""When it is killed, and who of it."""
STARTING, ANSWERING = 12.0, 8.0
"""Seconds within which the kill falls; a part of the prediction log is closed every 5 s."""
MAY_BE_LOST = 0.5
"""Seconds of answers still on their way to the journal; serving/prediction_log.py states it."""
REQUESTS_PER_SECOND = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Shopper(threading.Thread):
    """Asks steadily and keeps when each answer arrived."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._url, self._done = url, threading.Event()
        self.answered: dict[str, float] = {}

    def run(self) -> None:
        with RecommenderClient(self._url, timeout=5.0) as client:
            number = 0
            while not self._done.wait(1.0 / REQUESTS_PER_SECOND):
                number += 1
                request_id = f"{self.name}-{number}"
                try:
                    client.recommend(user_id="user-3", k=5, request_id=request_id)
                except RefitError:
                    continue
                self.answered[request_id] = time.monotonic()

    def stop(self) -> None:
        self._done.set()
        self.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a champion that is whole but for its towers, made at random."""
    folder = tmp_path_factory.mktemp("server")
    bundle = tiny.make_bundle(folder / "bundles", tiny.make_model(folder / "model", seed=0))
    tiny.promote(folder / "home" / "registry", bundle)
    return folder


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    """The same for every start: who comes next needs them free."""
    names = ("http-port", "grpc-port", "metrics-port", "model-server-port")
    return dict(zip(names, free_ports(len(names)), strict=True))


def test_no_kill_of_the_server_loses_more_than_is_stated(
    folder: Path, ports: dict[str, int], report: Report
):
    rng = random.Random(SEED)
    home, log = folder / "home", folder / "home" / "predictions"
    ages: dict[str, float] = {}  # of every answer, when its server was killed
    for number, (when, who) in enumerate(MOMENTS):
        server = serve(home, ports)
        shopper = Shopper(f"http://127.0.0.1:{ports['http-port']}", f"shopper-{number}")
        if when == "answering":
            assert server.runs_until(lambda s=server: "ready: http" in s.output), server.output
            hold_to_promise(ages, logged(log))
            shopper.start()
        delay = rng.uniform(0, STARTING if when == "starting" else ANSWERING)
        assert server.runs_for(delay), server.output
        at = time.monotonic()
        kill(server, who)
        gone = time.monotonic() - at
        if when == "answering":
            shopper.stop()
            assert shopper.answered
        ages |= {one: at - arrived for one, arrived in shopper.answered.items()}
        logged(log)  # whatever is closed can be read
        for name, port in ports.items():
            check_port(port, name, name)
        report(
            f"killed {who}, {when}, after {delay:.1f} s: {len(shopper.answered)} answers, "
            f"all gone after {gone:.1f} s"
        )
    last = serve(home, ports)
    assert last.runs_until(lambda: "ready: http" in last.output), last.output
    lost = hold_to_promise(ages, logged(log))
    with RecommenderClient(f"http://127.0.0.1:{ports['http-port']}") as client:
        assert client.recommend(user_id="user-3", k=5)["fallback"] is None
    last.kill()
    report(f"{len(lost)} of {len(ages)} answers lost, at most {max(lost, default=0.0):.3f} s old")


def hold_to_promise(ages: dict[str, float], kept: set[str]) -> list[float]:
    """No answer older than the stated window may be missing; returns the missing ones' ages."""
    lost = [age for request_id, age in ages.items() if request_id not in kept]
    assert max(lost, default=0.0) <= MAY_BE_LOST, f"{len(lost)} answers lost: {sorted(lost)[-5:]}"
    return lost


def serve(home: Path, ports: dict[str, int]) -> RefitProcess:
    options = [part for name, port in ports.items() for part in (f"--{name}", port)]
    return RefitProcess(home, "serve", *options)


def kill(server: RefitProcess, who: str) -> None:
    """Kill some or all of it, and wait until nobody is left."""
    if who == "everything":
        server.kill_everything()
    elif who == "launcher":
        server.kill()
    elif who == "microservice":
        kill_group(running(server, b"RefitRecommender")[0])
        assert server.ends(60) != 0
        server.wait_until_alone()
    else:
        (before,) = running(server, b"serving.model_server")
        kill_group(before)
        # It is started again, and the server goes on.
        assert server.runs_until(
            lambda: running(server, b"serving.model_server") not in ([], [before])
        )
        server.kill_everything()


def running(server: RefitProcess, command: bytes) -> list[int]:
    return [pid for pid in server.descendants() if command in read(f"/proc/{pid}/cmdline")]


def logged(log: Path) -> set[str]:
    """Ids of every answer in the log; each must be there once."""
    found: list[str] = []
    for path in log.glob("date=*/[!.]*.parquet"):
        table = pq.read_table(path, partitioning=None)
        assert table.schema.equals(PREDICTION_SCHEMA)
        found += table["request_id"].to_pylist()
    assert len(found) == len(set(found)), "an answer is in the log twice"
    return set(found)
