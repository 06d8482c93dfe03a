"""A worker process of the plain door: one recommender behind HTTP and gRPC, on one event loop.

It reports to the supervisor once a second through a pipe: that the loop still turns, and whether
its feeds were read.
It ends when the supervisor does, since it can no longer report.
"""

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys

import uvloop

from refit.progress import log_message, set_up_logging
from serving.doors.access import Certificates, Tokens
from serving.doors.admission import Admission
from serving.doors.grpc import GrpcDoor, GrpcServer, start_grpc
from serving.doors.http import Answering, HttpDoor, make_server
from serving.doors.metrics import Exporter
from serving.doors.readiness import Readiness
from serving.doors.supervisor import ALIVE, CANNOT_START, READY
from serving.feeds.intake import Intake, open_intakes
from serving.recommender import Recommender
from serving.settings import CANNOT_SERVE, PlainServerSettings

BEAT_SECONDS = 1.0
STOP_SECONDS = 10.0


class Worker:
    """Serves one recommender until SIGTERM, or until the supervisor ends.

    Args:
        recommender: Answers requests.
        settings: Settings of the server.
        listener: The listening socket that all workers share.
        report: Descriptor of the pipe to the supervisor.
    """

    def __init__(
        self,
        recommender: Answering,
        settings: PlainServerSettings,
        listener: socket.socket,
        report: int,
    ) -> None:
        self._recommender, self._settings = recommender, settings
        self._listener, self._report = listener, report
        door = settings.door
        self._tokens = Tokens(door.token_file) if door.token_file else None
        self._certificates = Certificates(door) if door.certificate else None
        self._exporter = Exporter(recommender.counters)
        self._readiness = Readiness()

    async def serve(self) -> None:
        """Answer requests until SIGTERM or the supervisor's end, then finish those that run."""
        door, stop = self._settings.door, asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        alone = self._settings.recommender.query_tower == "in_process"
        admission = Admission(door.threads, door.queue, self._recommender.counters, alone)
        intakes = self._open_intakes()
        http = make_server(
            HttpDoor(self._recommender, admission, door, self._readiness, self._tokens, intakes),
            door,
            self._recommender.counters,
            self._certificates,
        )
        grpc = await start_grpc(
            GrpcDoor(self._recommender, admission, door, self._readiness, self._tokens),
            door,
            f"{self._settings.host}:{self._settings.grpc_port}",
            self._settings.workers > 1,
            self._certificates,
        )
        serving = asyncio.create_task(http.serve(sockets=[self._listener]))
        watching = asyncio.create_task(self._readiness.watch(self._recommender.is_ready))
        beating = asyncio.create_task(self._beat(stop, grpc))
        await stop.wait()
        http.stop()
        await asyncio.gather(serving, grpc.stop(STOP_SECONDS))
        beating.cancel()
        watching.cancel()
        admission.close()
        for intake in intakes.values():
            intake.close()
        self._exporter.export()

    def _open_intakes(self) -> dict[str, Intake]:
        if not self._settings.door.intake:
            return {}
        recommender = self._settings.recommender
        return open_intakes(recommender.feeds, has_now=not recommender.allow_replay)

    async def _beat(self, stop: asyncio.Event, grpc: GrpcServer) -> None:
        while True:
            ready = self._readiness.ready
            try:
                os.write(self._report, READY if ready else ALIVE)
            except BlockingIOError:
                pass  # the supervisor is busy
            except OSError:  # it is gone
                stop.set()
                return
            await grpc.tell(ready)
            for part in (self._tokens, self._certificates):
                if part:
                    part.refresh()
            self._exporter.export()
            await asyncio.sleep(BEAT_SECONDS)


def _collect_less_garbage() -> None:
    """Have the collector leave out what was loaded, which stays, and look less often.

    With the defaults it looks at every other answer, and from time to time at the whole bundle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def main() -> None:
    """Start the recommender and serve; the supervisor runs this."""
    parser = argparse.ArgumentParser(prog="serving.doors.worker")
    parser.add_argument("--settings", required=True)
    parser.add_argument("--listener", type=int, required=True)
    parser.add_argument("--report", type=int, required=True)
    options = parser.parse_args()
    set_up_logging()
    settings = PlainServerSettings.parse_json(options.settings)
    try:
        recommender = Recommender(settings.recommender)
        worker = Worker(
            recommender, settings, socket.socket(fileno=options.listener), options.report
        )
    except Exception as error:
        log_message(f"{CANNOT_SERVE}{error}")
        sys.exit(CANNOT_START)
    _collect_less_garbage()
    os.set_blocking(options.report, False)
    try:
        asyncio.run(worker.serve(), loop_factory=uvloop.new_event_loop)
    finally:
        recommender.close()


if __name__ == "__main__":
    main()
