"""The supervisor of the plain door: starts worker processes, replaces them, reports on them.

It holds the listening socket, so that connections wait while a worker is replaced instead of being
refused. It serves liveness, readiness and metrics on a port of their own, and does nothing else, so
that these are answered whatever the workers do:

- ``/health/live``: the supervisor runs;
- ``/health/ready``: a worker wants requests;
- ``/metrics``, and ``/prometheus``, as Seldon's server names it: the metrics of all workers.

A worker that ends, or whose event loop shows no sign of life, is replaced: at once if it had come
up, however soon it ended, else after ever longer pauses.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import Process as ChildProcess
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from refit.errors import RefitError, UsageError
from refit.progress import log_message
from serving.doors.metrics import FOLDER_VARIABLE, forget, render
from serving.doors.servers import QuietServer, health_config
from serving.settings import PlainServerSettings

CANNOT_START = 3
"""Exit code of a worker that could not start."""
READY, ALIVE = b"r", b"a"
"""What a worker reports: it wants requests, or it runs but does not."""
CHECK_SECONDS = 0.5
STOP_SECONDS = 20.0
CAME_UP_SECONDS = 10.0
"""A worker that ran for so long has come up, even if it never wanted requests."""
MAX_PAUSE_SECONDS = 30.0


class WorkerProcess:
    """A running worker process, and its last sign of life."""

    def __init__(self, child: ChildProcess, report: int) -> None:
        self.child, self._report = child, report
        self.beat_at: float | None = None
        self._wants_requests = self._ever_wanted_requests = False
        self._started_at = time.monotonic()
        os.set_blocking(report, False)
        asyncio.get_running_loop().add_reader(report, self._take_report)

    def is_ready(self, seconds: float) -> bool:
        """Whether it runs, wants requests, and reported within so many seconds."""
        runs = self.child.returncode is None
        return runs and self._wants_requests and self._shows_life(seconds)

    @property
    def came_up(self) -> bool:
        """Whether it ever wanted requests, or has run for ``CAME_UP_SECONDS``."""
        lived = time.monotonic() - self._started_at
        return self._ever_wanted_requests or lived > CAME_UP_SECONDS

    def is_stuck(self, seconds: float) -> bool:
        """Whether it did report, and no longer does."""
        return self.beat_at is not None and not self._shows_life(seconds)

    def _shows_life(self, seconds: float) -> bool:
        return self.beat_at is not None and time.monotonic() - self.beat_at <= seconds

    async def wait(self) -> int:
        """Wait for its end; returns its exit code."""
        code = await self.child.wait()
        self._close()
        return code

    def signal(self, number: int) -> None:
        """Signal it, if it still runs."""
        if self.child.returncode is None:
            self.child.send_signal(number)

    def _take_report(self) -> None:
        if reported := os.read(self._report, 4096):
            self.beat_at = time.monotonic()
            self._wants_requests = reported.endswith(READY)
            self._ever_wanted_requests |= READY in reported
        else:
            self._close()

    def _close(self) -> None:
        if self._report >= 0:
            asyncio.get_running_loop().remove_reader(self._report)
            os.close(self._report)
            self._report = -1


class Supervisor:
    """Keeps the worker processes of one server running.

    Raises:
        UsageError: A port is in use.
    """

    def __init__(self, settings: PlainServerSettings) -> None:
        self._settings = settings
        self._listener = _listen(settings.host, settings.http_port, "http_port")
        self._health = _listen(settings.host, settings.health_port, "health_port")
        self._workers: dict[int, WorkerProcess] = {}
        self._stopping = asyncio.Event()
        self._failure: RefitError | None = None
        self._ever_ready = False

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            RefitError: No worker could start; its output has the reason.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        with tempfile.TemporaryDirectory(prefix="refit-metrics-") as folder:
            os.environ[FOLDER_VARIABLE] = folder
            health = QuietServer(health_config(self._app()))
            serving = asyncio.create_task(health.serve(sockets=[self._health]))
            keeping = [
                asyncio.create_task(self._keep(number, Path(folder)))
                for number in range(self._settings.workers)
            ]
            checking = asyncio.create_task(self._check())
            await self._stopping.wait()
            await self._stop_workers()
            checking.cancel()
            for task in keeping:
                task.cancel()
            health.stop()
            await serving
        if self._failure:
            raise self._failure

    async def _keep(self, number: int, folder: Path) -> None:
        """Keep one worker running; one that does not come up is started again ever more slowly."""
        pause = 0.0
        while not self._stopping.is_set():
            worker = self._workers[number] = await self._start()
            code = await worker.wait()
            forget(worker.child.pid, folder)
            if self._stopping.is_set():
                return
            if not self._ever_ready:
                self._failure = RefitError(f"a worker could not start (code {code})")
                self._stopping.set()
                return
            pause = 0.0 if worker.came_up else min(max(2 * pause, 1.0), MAX_PAUSE_SECONDS)
            pid = worker.child.pid
            log_message(f"worker {pid} ended with code {code}; starting another in {pause:.0f} s")
            await asyncio.sleep(pause)

    async def _start(self) -> WorkerProcess:
        ours, theirs = os.pipe()
        command = [sys.executable, "-m", "serving.doors.worker"]
        options = [
            *("--settings", self._settings.to_json()),
            *("--listener", str(self._listener.fileno()), "--report", str(theirs)),
        ]
        try:
            child = await asyncio.create_subprocess_exec(
                *command, *options, pass_fds=(self._listener.fileno(), theirs)
            )
        finally:
            os.close(theirs)
        return WorkerProcess(child, ours)

    async def _check(self) -> None:
        """Look after the workers; one that is stuck is killed, and replaced as it has ended."""
        while True:
            for worker in self._workers.values():
                self._ever_ready |= worker.beat_at is not None
                if worker.child.returncode is None and worker.is_stuck(self._patience):
                    log_message(f"worker {worker.child.pid} is stuck: killing it")
                    worker.signal(signal.SIGKILL)
            await asyncio.sleep(CHECK_SECONDS)

    async def _stop_workers(self) -> None:
        running = [one for one in self._workers.values() if one.child.returncode is None]
        for worker in running:
            worker.signal(signal.SIGTERM)
        waiting = [asyncio.create_task(one.child.wait()) for one in running]
        if waiting:
            await asyncio.wait(waiting, timeout=STOP_SECONDS)
        for worker in running:
            worker.signal(signal.SIGKILL)

    @property
    def _patience(self) -> float:
        return self._settings.door.stuck_seconds

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health/live", self._live),
                Route("/health/ready", self._ready),
                Route("/metrics", self._metrics),
                Route("/prometheus", self._metrics),
            ]
        )

    async def _live(self, _: Request) -> Response:
        return PlainTextResponse("live\n")

    async def _ready(self, _: Request) -> Response:
        ready = [one for one in self._workers.values() if one.is_ready(self._patience)]
        if self._stopping.is_set():
            ready = []
        body = {"ready": len(ready), "workers": self._settings.workers}
        return JSONResponse(body, 200 if ready else 503)

    async def _metrics(self, _: Request) -> Response:
        body, kind = await asyncio.to_thread(render)
        return Response(body, media_type=kind)


def _listen(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port} ({error.strerror}); set {setting} to another port"
        ) from None
