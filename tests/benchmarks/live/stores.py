"""The store of registry and prediction log goes away for a minute, while people ask."""

import argparse
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import fsspec
import pyarrow.parquet as pq

from refit.registry import Registry
from tests.benchmarks.live.figures import Figure, at_most, count
from tests.benchmarks.live.market import make_bundles
from tests.benchmarks.live.served import Load, Replica, wait_until
from tests.s3 import S3Store, in_environment, running_s3

PART = "store away"
REGISTRY, LOG = "s3://refit/registry", "s3://refit/log"
BACK_SECONDS = 60.0


class Gate:
    """A relay in front of a store; while it is shut, connections are refused and open ones cut."""

    def __init__(self, endpoint: str) -> None:
        there = urlsplit(endpoint)
        self._there = (there.hostname or "", there.port or 0)
        self._lock, self._open = threading.Lock(), set[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self._port}"
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        # A thread that waits in accept keeps a listener that was only closed.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self._open.clear()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(self._there)
            except OSError:
                return
            with self._lock:
                self._open |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def run(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Serve from an object store, shut it off, open it again, and promote another bundle."""
    bundles = make_bundles(folder)
    with (
        running_s3() as store,
        Gate(store.endpoint) as gate,
        in_environment(S3Store(gate.endpoint)),
    ):
        yield from _measure(options, folder, bundles, gate)


def _measure(
    options: argparse.Namespace, folder: Path, bundles: tuple, gate: Gate
) -> Iterator[Figure]:
    registry = Registry(REGISTRY, folder / "cache")
    for bundle in bundles:
        registry.add(bundle)
    registry.promote(bundles[0].bundle_id, by="a test", reason="it is wanted", force=True)
    recommender = {
        "log_folder": LOG,
        "log_staging": str(folder / "staging"),
        "cache": str(folder / "server-cache"),
        "tower_deadline_ms": 2000,
        "log_seconds": 2.0,
    }
    with Replica(folder / "home", REGISTRY, recommender) as server:
        with Load([server]) as tally:
            time.sleep(5)
            gate.shut()
            before = tally.answers
            time.sleep(options.away)
            during = tally.answers - before
            gate.open()
            registry.promote(bundles[1].bundle_id, by="a test", reason="it is back", force=True)
            back = wait_until(
                lambda: set(tally.newest.values()) == {bundles[1].bundle_id}, "the swap"
            )
        os.kill(server.process.pid, signal.SIGTERM)
        server.process.ends(60)
        server.process.wait_until_alone()
    tries = tally.answers + len(tally.first)
    yield count(PART, "failed at the first try", tries, len(tally.first))
    yield count(PART, "answers without the towers", tally.answers, tally.fallbacks)
    yield Figure(PART, f"answered in {options.away:.0f} s without it", during, f"{during:,}")
    yield at_most(PART, "back to a new champion served", 1, back, BACK_SECONDS)
    yield count(PART, "answers missing from the log", tally.answers, tally.answers - _logged())


def _logged() -> int:
    files, root = fsspec.core.url_to_fs(LOG)
    files.invalidate_cache()
    rows = 0
    for path in files.glob(f"{root}/date=*/*.parquet"):
        with files.open(path) as file:
            names = pq.read_table(file)["request_id"].to_pylist()
            rows += sum(name.partition("-")[0] in ("rest", "grpc") for name in names)
    return rows
