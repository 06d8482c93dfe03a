"""``refit serve`` as a process of its own, and people who ask it all the time."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import requests
import yaml

from refit.errors import RefitError
from refit.ports import free_ports
from serving.client import GrpcRecommenderClient, RecommenderClient
from serving.request import Request
from tests.kill.killing import RefitProcess, kill_group, read
from tests.serving import tiny

START_SECONDS = 180.0
WORKER, MODEL_SERVER = b"serving.doors.worker", b"serving.model_server"
SUPERVISOR = b"serving.doors\0"
PORTS = ("http-port", "grpc-port", "metrics-port", "model-server-port")


class Replica:
    """A running ``refit serve``; as a context manager it is killed at the end.

    Args:
        home: Its home; feeds and log are there.
        registry: The registry.
        recommender: Further settings of the recommender.
        door: ``plain`` or ``seldon``.
        workers: Worker processes.
    """

    def __init__(
        self,
        home: Path,
        registry: str,
        recommender: dict[str, Any],
        door: str = "plain",
        workers: int = 2,
    ) -> None:
        self.home, self.door, self.workers = home, door, workers
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        home.mkdir(parents=True, exist_ok=True)
        settings = home / "recommender.yaml"
        settings.write_text(yaml.safe_dump(recommender))
        self._arguments: list[object] = ["--door", door, "--workers", workers]
        self._arguments += ["--registry", registry, "--recommender", settings]
        for name, port in self.ports.items():
            self._arguments += [f"--{name}", port]
        self.process = self._start()

    def _start(self) -> RefitProcess:
        return RefitProcess(self.home, "serve", *self._arguments)

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http-port']}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.ports['grpc-port']}"

    def restart(self) -> None:
        """Start it again after its end, as who keeps pods running does."""
        self.process.wait_until_alone()
        self.process = self._start()

    def wait_until_ready(self) -> None:
        ready = self.process.runs_until(lambda: "ready: http" in self.process.output, START_SECONDS)
        assert ready, self.process.output

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill_everything()

    def pids(self, command: bytes = b"") -> list[int]:
        """Its processes whose command line has some words."""
        found = self.process.descendants()
        return sorted(pid for pid in found if command in read(f"/proc/{pid}/cmdline"))

    def ready_workers(self) -> int:
        """How many workers of the plain door want requests."""
        try:
            return int(json.loads(self._probe("/health/ready"))["ready"])
        except (requests.RequestException, ValueError, KeyError):
            return 0

    def counted(self, metric: str) -> float:
        """The sum of a counter over the workers of the plain door."""
        lines = self._probe("/metrics").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))

    def _probe(self, path: str) -> str:
        with requests.Session() as session:
            session.trust_env = False
            port = self.ports["metrics-port"]
            return session.get(f"http://127.0.0.1:{port}{path}", timeout=5.0).text

    def has_towers(self) -> bool:
        """Whether an answer comes from the towers."""
        try:
            with RecommenderClient(self.url, 5.0) as client:
                return client.recommend(user_id="user-3", k=3)["fallback"] is None
        except RefitError:
            return False


def kill_process(pid: int) -> None:
    """kill -9 to one process, or to its whole group if it leads one."""
    if os.getpgid(pid) == pid:
        kill_group(pid)
    else:
        os.kill(pid, signal.SIGKILL)


def wait_until(happened: Callable[[], object], what: str, seconds: float = START_SECONDS) -> float:
    """Wait for something; returns the seconds that it took."""
    started = time.monotonic()
    while not happened():
        if time.monotonic() > started + seconds:
            raise TimeoutError(f"{what}: not after {seconds:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - started


@dataclass
class Seen:
    """What askers have seen.

    Attributes:
        answers: How many answers there were.
        first: Requests that failed at the first try, with the reason.
        failed: Those that failed at the second try too.
        fallbacks: Answers without the towers.
        seconds: Of each answer.
    """

    answers: int = 0
    first: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    fallbacks: int = 0
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def join(cls, parts: Sequence["Seen"]) -> "Seen":
        """What all of them saw."""
        return cls(
            sum(part.answers for part in parts),
            [one for part in parts for one in part.first],
            [one for part in parts for one in part.failed],
            sum(part.fallbacks for part in parts),
            [one for part in parts for one in part.seconds],
        )


@dataclass
class Tally(Seen):
    """What askers see while they ask.

    Attributes:
        newest: Bundle of the latest answers, by asker.
    """

    newest: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> Seen:
        """What was seen since the last call."""
        with self.lock:
            seen = Seen(self.answers, self.first, self.failed, self.fallbacks, self.seconds)
            self.answers = self.fallbacks = 0
            self.first, self.failed, self.seconds = [], [], []
        return seen


class Asker(threading.Thread):
    """Asks replicas in turn at a steady rate; asks the next one once if one fails.

    It stands for a client that tries again once, behind a load balancer that goes round robin.

    Args:
        name: Part of its request ids.
        replicas: Whom it asks.
        per_second: How often.
        tally: Where it notes what it saw.
        kind: ``rest`` or ``grpc``.
    """

    def __init__(
        self,
        name: str,
        replicas: Sequence[Replica],
        per_second: float,
        tally: Tally,
        kind: str = "rest",
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._replicas, self._pause, self._tally = replicas, 1 / per_second, tally
        self._done = threading.Event()
        make = RecommenderClient if kind == "rest" else GrpcRecommenderClient
        self._clients = [
            make(one.url if kind == "rest" else one.grpc_address, 30.0) for one in replicas
        ]

    def run(self) -> None:
        number = 0
        while not self._done.wait(self._pause):
            number += 1
            request = Request(
                user_id=f"user-{number % tiny.N_USERS}",
                k=10,
                request_id=f"{self.name}-{number}",
                require={"size": ["M", "S"]} if number % 3 else {},
            )
            self._ask(number, request)
        for client in self._clients:
            client.close()

    def _ask(self, number: int, request: Request) -> None:
        started = time.monotonic()
        for attempt in range(2):
            client = self._clients[(number + attempt) % len(self._clients)]
            try:
                answer = client.ask(request)
            except Exception as error:
                with self._tally.lock:
                    (self._tally.failed if attempt else self._tally.first).append(str(error))
                continue
            with self._tally.lock:
                self._tally.answers += 1
                self._tally.fallbacks += answer.fallback is not None
                self._tally.newest[self.name] = answer.bundle_id
                self._tally.seconds.append(time.monotonic() - started)
            return

    def stop(self) -> None:
        self._done.set()
        self.join(70)


class Load:
    """Several askers; as a context manager it starts and stops them."""

    def __init__(self, replicas: Sequence[Replica], rest: float = 20.0, grpc: float = 20.0) -> None:
        self.tally = Tally()
        kinds = [("rest", rest / 2), ("rest", rest / 2), ("grpc", grpc)]
        self._askers = [
            Asker(f"{kind}-{number}", replicas, per_second, self.tally, kind)
            for number, (kind, per_second) in enumerate(kinds)
            if per_second
        ]

    def __enter__(self) -> Tally:
        for asker in self._askers:
            asker.start()
        wait_until(lambda: len(self.tally.newest) == len(self._askers), "first answers")
        return self.tally

    def __exit__(self, *_: object) -> None:
        for asker in self._askers:
            asker.stop()
