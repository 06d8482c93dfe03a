"""Start and stop the model server and the recommender behind a door as local processes."""

import json
import math
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from refit.errors import RefitError, UsageError
from refit.ports import check_port, free_ports
from refit.progress import log_message, timed
from refit.registry import DEFAULT_CACHE, Registry
from serving.client import RecommenderClient
from serving.processes import PROJECT, Process
from serving.settings import (
    CANNOT_SERVE,
    PlainServerSettings,
    RecommenderSettings,
    ServeSettings,
)

MICROSERVICE = "serving.doors.seldon.RefitRecommender"
MAX_PAUSE_SECONDS = 30.0
GRPC_START_SECONDS = 30.0
"""So long Seldon's REST may answer while its gRPC process still starts."""


class Restarts:
    """When a process that ended is started again: at once if it had answered since its start.

    One that did not come up waits, ever longer, up to half a minute.

    Args:
        first_pause: Seconds that it waits at first.
        clock: Tells the time in seconds.
    """

    def __init__(
        self, first_pause: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.answered = True
        self._first, self._clock = first_pause, clock
        self._pause, self._last = 0.0, -math.inf

    def is_due(self) -> bool:
        """Whether it is time to start it again; if so, it has not answered yet."""
        if self.answered:
            self._pause = 0.0
        now = self._clock()
        if now - self._last < self._pause:
            return False
        self._pause = min(max(2 * self._pause, self._first), MAX_PAUSE_SECONDS)
        self._last, self.answered = now, False
        return True


class ServerHandle:
    """The running processes; as a context manager it stops both on exit.

    Attributes:
        door: The process, or group of processes, that answers requests.
        url: REST address of the door.
        grpc_address: ``host:port`` of its gRPC API.
        metrics_url: Address of the Prometheus metrics.
        model_server_address: ``host:port`` of the model server.
    """

    def __init__(self, settings: ServeSettings, model_server: Process, door: Process) -> None:
        self.settings = settings
        self.model_server, self.door = model_server, door
        self._model_server_restarts = Restarts()
        self._door_restarts = Restarts(GRPC_START_SECONDS)
        host = settings.host
        scheme = "https" if settings.door == "plain" and settings.plain.certificate else "http"
        self.url = f"{scheme}://{host}:{settings.http_port}"
        self.grpc_address = f"{host}:{settings.grpc_port}"
        self.metrics_url = f"http://{host}:{settings.metrics_port}/metrics"
        self.model_server_address = f"{host}:{settings.model_server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def client(self, timeout: float = 10.0) -> RecommenderClient:
        """A client of this server."""
        return RecommenderClient(self.url, timeout)

    def tend(self) -> None:
        """Replace what has ended: the model server, and Seldon's server without its gRPC process.

        Call it again and again. It does not wait for what it starts: meanwhile popularity answers.

        Raises:
            RefitError: The door has ended; the message has its last lines of output.
        """
        if not self.door.is_running():
            raise RefitError(f"the {self.door.name} has ended\n{self.door.tail()}")
        self._tend_model_server()
        if self.settings.door == "seldon":
            self._tend_seldon()

    def _tend_model_server(self) -> None:
        if self.model_server.is_running():
            restarts = self._model_server_restarts
            restarts.answered |= _listens(self.settings.host, self.settings.model_server_port)
        elif self._model_server_restarts.is_due():
            log_message(
                f"the model server has ended; starting it again\n{self.model_server.tail()}"
            )
            self.model_server.stop()
            self.model_server = _start_model_server(self.settings)

    def _tend_seldon(self) -> None:
        # While it loads nothing answers; 503: REST answers that nothing listens on gRPC's port.
        status = _status_of(f"{self.url}/health/alive")
        self._door_restarts.answered |= status == 200
        if status == 503 and self._door_restarts.is_due():
            log_message("the gRPC process of the microservice has ended; starting both again")
            self.door.stop()
            self.door = _start_seldon(self.settings)

    def stop(self) -> None:
        """Stop both, the door first so that it can write its log; safe to repeat."""
        self.door.stop()
        self.model_server.stop()


def launch(settings: ServeSettings) -> ServerHandle:
    """Start the model server and the door, and wait until both answer.

    Raises:
        UsageError: A port is taken, there is no champion, or the serving environment is missing.
        RefitError: The champion is corrupt.
        ServiceUnreachable: A process ended or was not ready in time; the message has its output.
    """
    settings = _with_ports(settings)
    _check_environment(settings)
    _check_champion(settings.recommender)
    with ExitStack() as started, timed("start of the servers"):
        # Both start at once: their imports take seconds, and the recommender waits for its towers.
        model_server = _start_model_server(settings)
        started.callback(model_server.stop)
        door = _start_plain(settings) if settings.door == "plain" else _start_seldon(settings)
        started.callback(door.stop)
        handle = ServerHandle(settings, model_server, door)
        _await_model_server(settings, model_server)
        door.wait_until(lambda: _answers(handle), settings.ready_timeout_s)
        started.pop_all()
    log_message(f"recommendations: {handle.url}  gRPC: {handle.grpc_address}  {handle.metrics_url}")
    return handle


def _start_model_server(settings: ServeSettings) -> Process:
    log_message(f"starting the model server on port {settings.model_server_port}")
    return Process(
        "model server",
        [
            *(str(_python(settings.python)), "-m", "serving.model_server"),
            *("--host", settings.host, "--port", str(settings.model_server_port)),
        ],
        _run_folder(settings) / "model_server.log",
        # A training on the same machine keeps the GPU.
        {"CUDA_VISIBLE_DEVICES": "-1"},
    )


def _await_model_server(settings: ServeSettings, model_server: Process) -> None:
    model_server.wait_until(
        lambda: _listens(settings.host, settings.model_server_port), settings.ready_timeout_s
    )


def _start_plain(settings: ServeSettings) -> Process:
    log_message(f"starting the recommender on port {settings.http_port}")
    served = PlainServerSettings(
        recommender=settings.recommender,
        door=settings.plain,
        host=settings.host,
        http_port=settings.http_port,
        grpc_port=settings.grpc_port,
        health_port=settings.metrics_port,
        workers=settings.workers,
    )
    return Process(
        "recommender",
        [str(_python(settings.python)), "-m", "serving.doors", "--settings", served.to_json()],
        _run_folder(settings) / "recommender.log",
        _variables(),
    )


def _start_seldon(settings: ServeSettings) -> Process:
    log_message(f"starting the Seldon microservice on port {settings.http_port}")
    command = [
        *(str(_seldon_cli(settings.python)), MICROSERVICE, "--service-type", "MODEL"),
        *("--http-port", str(settings.http_port), "--grpc-port", str(settings.grpc_port)),
        *("--metrics-port", str(settings.metrics_port)),
        *("--workers", str(settings.workers), "--threads", str(settings.threads)),
        *("--grpc-threads", str(settings.threads)),
        *("--parameters", json.dumps(_seldon_parameters(settings.recommender))),
    ]
    return Process(
        "microservice",
        command,
        _run_folder(settings) / "microservice.log",
        {
            **_variables(),
            # By default a slow client is disconnected after 2 s.
            "GUNICORN_KEEPALIVE": "75",
            "INCLUDE_METRICS_IN_CLIENT_RESPONSE": "false",
            "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": str(settings.grpc_port),
        },
    )


def _variables() -> dict[str, str]:
    return {
        # A training on the same machine keeps the GPU.
        "CUDA_VISIBLE_DEVICES": "-1",
        # A single query is too small for several threads; requests run in parallel instead.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }


def _seldon_parameters(settings: RecommenderSettings) -> list[dict[str, str]]:
    """The settings as Seldon's typed parameters."""
    kinds: dict[type, str] = {bool: "BOOL", int: "INT", float: "FLOAT", str: "STRING"}
    values: dict[str, Any] = settings.model_dump(mode="json", exclude_none=True)
    return [
        {"name": name, "value": json.dumps(value), "type": "STRING"}
        if isinstance(value, dict)
        else {"name": name, "value": str(value), "type": kinds[type(value)]}
        for name, value in values.items()
    ]


def _with_ports(settings: ServeSettings) -> ServeSettings:
    """Replace each port 0 by a free port, and refuse ports that are in use."""
    names = ("http_port", "grpc_port", "metrics_port", "model_server_port")
    ports = {name: port for name in names if (port := getattr(settings, name))}
    for name, port in ports.items():
        check_port(port, name.removesuffix("_port").replace("_", " "), name)
    if len(set(ports.values())) < len(ports):
        raise UsageError(f"two services cannot share a port: {ports}")
    missing = [name for name in names if name not in ports]
    found = free_ports(len(missing), host="0.0.0.0", besides=ports.values())
    ports |= zip(missing, found, strict=True)
    address = f"{settings.host}:{ports['model_server_port']}"
    wait = max(settings.recommender.towers_wait_s, settings.ready_timeout_s)
    update = {"model_server": address, "towers_wait_s": wait}
    recommender = settings.recommender.model_copy(update=update)
    return settings.model_copy(update={**ports, "recommender": recommender})


def _check_environment(settings: ServeSettings) -> None:
    needed = [_python(settings.python)]
    if settings.door == "seldon":
        needed.append(_seldon_cli(settings.python))
    for path in needed:
        if not path.exists():
            raise UsageError(
                f"the serving environment is missing: {path} does not exist; "
                "install serving/requirements.txt into a separate environment"
            )


def _check_champion(settings: RecommenderSettings) -> None:
    """Check the champion here, where an error is one line and not a traceback."""
    registry = Registry(settings.registry, settings.cache or DEFAULT_CACHE)
    registry.get(registry.needed_champion_id())


def _answers(handle: ServerHandle) -> bool:
    """Whether REST, gRPC and metrics answer.

    Raises:
        RefitError: A worker could not start; the message has the reason.
    """
    for line in handle.door.output().splitlines():
        if CANNOT_SERVE in line:
            raise RefitError(f"the {handle.door.name} {line[line.index(CANNOT_SERVE) :]}")
    settings = handle.settings
    ports = (settings.http_port, settings.grpc_port, settings.metrics_port)
    if not all(_listens(settings.host, port) for port in ports):
        return False
    if settings.door == "plain":
        return _status_of(f"http://{settings.host}:{settings.metrics_port}/health/ready") == 200
    try:
        with handle.client(timeout=2.0) as client:
            client.status()
    except RefitError:
        return False
    return True


def _status_of(url: str) -> int | None:
    """The HTTP status of an answer; None without one."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url, timeout=2.0).status_code
        except requests.RequestException:
            return None


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def _run_folder(settings: ServeSettings) -> Path:
    return settings.run_folder or settings.recommender.local_log / "processes"


def _python(python: Path) -> Path:
    return python if python.is_absolute() else PROJECT / python


def _seldon_cli(python: Path) -> Path:
    return _python(python).parent / "seldon-core-microservice"
