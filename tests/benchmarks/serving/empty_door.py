"""The plain door around a recommender that does nothing: what the door itself costs."""

import asyncio
import os
import socket
import sys
import tempfile
from typing import Any

os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp()

import uvloop

from serving.counters import Counters
from serving.doors.worker import Worker
from serving.settings import PlainServerSettings


class Idler:
    """Answers every request with the same few bytes."""

    bundle_id = "none"

    def __init__(self) -> None:
        self.counters = Counters()

    def recommend(self, body: Any, arrived: float | None = None) -> dict[str, Any]:
        return {"request_id": "", "bundle_id": "none", "items": [], "fallback": None}

    def similar(self, body: Any, arrived: float | None = None) -> dict[str, Any]:
        return self.recommend(body, arrived)

    def is_ready(self) -> bool:
        return True

    def status(self) -> dict[str, Any]:
        return {"bundle_id": "none", "towers": "none", "live_items": 0}


def main(http_port: int, grpc_port: int) -> None:
    """Serve until the reader of the output has gone."""
    settings = PlainServerSettings.model_validate(
        {
            "recommender": {"registry": "none", "log_folder": "none"},
            "host": "127.0.0.1",
            "http_port": http_port,
            "grpc_port": grpc_port,
        }
    )
    listener = socket.create_server(("127.0.0.1", http_port), backlog=1024)
    worker = Worker(Idler(), settings, listener, sys.stdout.fileno())
    asyncio.run(worker.serve(), loop_factory=uvloop.new_event_loop)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
