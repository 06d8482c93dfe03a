"""kill -9 of each process while people ask, again and again.

Each kill waits until all is back that the one before ended. With ``--resume FOLDER`` each is noted
there as well, and another run with the same folder does those that are missing.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tests.benchmarks.live.figures import Figure, at_most, count
from tests.benchmarks.live.kill_record import KillRecord
from tests.benchmarks.live.market import make_bundles
from tests.benchmarks.live.served import (
    MODEL_SERVER,
    SUPERVISOR,
    WORKER,
    Load,
    Replica,
    Seen,
    kill_process,
    wait_until,
)
from tests.serving import tiny
from tests.serving.doors.listening import listener

WORKERS, TOWERS = "kill -9, worker", "kill -9, model server"
PAIR = "kill -9, two servers"
RECOVERED_SECONDS = 60.0
RECOMMENDER = {"tower_deadline_ms": 1000, "breaker_seconds": 0.5, "poll_seconds": 0.5}


def run_workers(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Kill the worker processes of the plain door in turn."""
    record = KillRecord("workers", options.resume, options.kills)
    rng = random.Random(options.seed)
    with (
        Replica(folder / "home", _promote(folder), RECOMMENDER) as server,
        Load([server]) as tally,
    ):
        while record.count("worker") < options.kills:
            time.sleep(rng.uniform(0, 1))
            kill_process(server.pids(WORKER)[0])  # the oldest
            killed = time.monotonic()
            wait_until(lambda: server.ready_workers() < server.workers, "the worker's end")
            wait_until(lambda: server.ready_workers() == server.workers, "another worker")
            record.add("worker", time.monotonic() - killed, tally)
    record.end(tally)
    seen = record.seen
    yield from _report(WORKERS, seen)
    yield count(WORKERS, "answers without the towers", seen.answers, seen.fallbacks)
    yield _recovery(WORKERS, "replaced, ready", record.took("worker"))


def run_model_server(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Kill the model server, which ``refit serve`` starts again."""
    record = KillRecord("model-server", options.resume, options.kills)
    rng = random.Random(options.seed)
    with (
        Replica(folder / "home", _promote(folder), RECOMMENDER) as server,
        Load([server]) as tally,
    ):
        while record.count("model server") < options.kills:
            time.sleep(rng.uniform(0, 1))
            (towers,) = server.pids(MODEL_SERVER)
            kill_process(towers)
            killed = time.monotonic()
            wait_until(lambda: not server.has_towers(), "popularity")
            wait_until(server.has_towers, "towers")
            record.add("model server", time.monotonic() - killed, tally)
    record.end(tally)
    seen = record.seen
    yield from _report(TOWERS, seen)
    yield Figure(TOWERS, "meanwhile by popularity", seen.answers, f"{seen.fallbacks:,}")
    yield _recovery(TOWERS, "started again, towers loaded", record.took("model server"))


def run_pair(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Kill what ends a whole server, or has it restarted; another one answers meanwhile.

    On a cluster these are two pods behind a service, and Kubernetes starts what ended; here the
    askers go round robin, and this part starts it.
    """
    registry, rng = _promote(folder), random.Random(options.seed)
    record = KillRecord("servers", options.resume, options.kills)
    plain = Replica(folder / "plain", registry, RECOMMENDER, workers=1)
    seldon = Replica(folder / "seldon", registry, RECOMMENDER, door="seldon", workers=1)
    kills: dict[str, Callable[[], float]] = {
        "supervisor": lambda: _end(plain, plain.pids(SUPERVISOR)[0]),
        "gRPC": lambda: _kill_grpc(seldon),
        "launcher": lambda: _end(plain, plain.process.pid),
    }
    with plain, seldon, Load([plain, seldon], rest=30.0, grpc=0.0) as tally:
        for number in range(options.kills):
            for name, kill in kills.items():
                if record.count(name) <= number:
                    time.sleep(rng.uniform(0, 1))
                    record.add(name, kill(), tally)
    record.end(tally)
    yield from _report(PAIR, record.seen)
    for name in kills:
        yield _recovery(PAIR, f"{name} killed, all of it back", record.took(name))


def _end(server: Replica, pid: int) -> float:
    """Kill a process whose end ends the server, and start the server again."""
    started = time.monotonic()
    kill_process(pid)
    server.process.ends(60)
    server.restart()
    server.wait_until_ready()
    wait_until(server.has_towers, "towers")
    return time.monotonic() - started


def _kill_grpc(server: Replica) -> float:
    """Kill the gRPC process of Seldon's server, which ``refit serve`` has to notice."""
    port, started = server.ports["grpc-port"], time.monotonic()
    old = listener(port)
    kill_process(old)
    wait_until(lambda: (now := _find(lambda: listener(port))) and now != old, "gRPC again")
    wait_until(server.has_towers, "towers")
    return time.monotonic() - started


def _find(look: Callable[[], int]) -> int | None:
    try:
        return look()
    except (LookupError, ValueError, OSError):
        return None


def _promote(folder: Path) -> str:
    bundle, _ = make_bundles(folder)
    tiny.promote(folder / "registry", bundle)
    return str(folder / "registry")


def _report(part: str, seen: Seen) -> Iterator[Figure]:
    tries = seen.answers + len(seen.failed)
    yield count(part, "failed, also at the second try", tries, len(seen.failed))
    yield Figure(part, "failed at the first try", tries, f"{len(seen.first):,}")
    p50, p99, most = np.percentile(seen.seconds, [50, 99, 100])
    yield Figure(part, "seconds, p50, p99, longest", tries, f"{p50:.3f}, {p99:.2f}, {most:.1f}")


def _recovery(part: str, what: str, seconds: Sequence[float]) -> Figure:
    if not seconds:
        return count(part, what, 0, 0)
    name = f"{what}, longest (p50 {np.median(seconds):.1f} s)"
    return at_most(part, name, len(seconds), max(seconds), RECOVERED_SECONDS)
