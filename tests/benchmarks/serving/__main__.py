"""Measure the doors beside an empty Seldon model, in one run and in turn, and print one table.

    make bench-serving
    make bench-serving ARGS="--count 2000 --rate 100 --items 20000"

Every server runs with one worker on this machine, with the same load: an open loop over REST and
gRPC, k = 10 and 100, with filters. CPU is that of the server's processes, per request; the model
server's is beside it. Compare the ratios: absolute values are this machine's.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import requests
import uvloop
from google.protobuf import json_format, struct_pb2

from serving.doors.protocol import inference_pb2 as messages
from serving.launch import ServerHandle, launch
from serving.processes import PROJECT, Process, free_port
from serving.settings import SERVING_PYTHON, ServeSettings
from tests.benchmarks.serving.load import HttpConnections, Load, http_request, run
from tests.serving import tiny

KS = (10, 100)
EMPTY = "an empty Seldon model"
IDLE = "the plain door, doing nothing"
TICKS = os.sysconf("SC_CLK_TCK")
JSON_DATA = 6
"""The field of a SeldonMessage that has JSON."""


@dataclass
class Server:
    """A running server, and how to ask it.

    Attributes:
        rest: Path and body of a request for k items.
        call: Method and message of one over gRPC.
        processes: Ids of the groups of its processes, and of its model server.
    """

    name: str
    http_port: int
    grpc_port: int
    rest: Callable[[dict[str, Any]], tuple[str, bytes]]
    call: Callable[[dict[str, Any]], tuple[str, bytes]]
    processes: Callable[[], tuple[int, int | None]]


@dataclass
class Measured:
    """One server, API and k."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    cpu: float = 0.0
    model_cpu: float = 0.0

    def add(self, load: Load, cpu: float, model_cpu: float) -> None:
        """Add the requests of one turn."""
        self.seconds = sorted([*self.seconds, *load.seconds])
        self.failed += load.failed
        self.cpu += cpu
        self.model_cpu += model_cpu

    def figures(self) -> tuple[float, float, float, float]:
        """p50, p99, CPU and the model server's CPU, in milliseconds."""
        load, n = Load(self.seconds, self.failed), len(self.seconds)
        cpu, model_cpu = 1000 * self.cpu / n, 1000 * self.model_cpu / n
        return load.quantile(0.5), load.quantile(0.99), cpu, model_cpu


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="requests per server, API and k")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--items", type=int, default=5000, help="live listings")
    parser.add_argument("--turns", type=int, default=4, help="turns that the requests come in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, started(Path(folder), options.items) as servers:
        measured = asyncio.run(measure(servers, options), loop_factory=uvloop.new_event_loop)
    write_table(measured, options)
    return 1 if any(one.failed for one in measured.values()) else 0


@contextmanager
def started(folder: Path, items: int) -> Iterator[list[Server]]:
    """Start every server; all run from the start to the end."""
    tiny.N_LIVE = items
    tiny.promote(folder / "registry", tiny.make_bundle(folder, tiny.make_model(folder / "m", 0)))
    with ExitStack() as stack:
        servers = [start_empty(folder, stack), start_idle(folder, stack)]
        for door in ("seldon", "plain"):
            settings = ServeSettings.parse(
                {
                    "recommender": {
                        "registry": str(folder / "registry"),
                        "log_folder": folder / door,
                        "tower_deadline_ms": 5000,
                    },
                    "door": door,
                    **dict.fromkeys(
                        ("http_port", "grpc_port", "metrics_port", "model_server_port"), 0
                    ),
                }
            )
            handle = stack.enter_context(launch(settings))
            servers.append(of_seldon(handle) if door == "seldon" else of_plain(handle))
        yield servers


def start_empty(folder: Path, stack: ExitStack) -> Server:
    """Start a Seldon model that does nothing."""
    http_port, grpc_port = free_port(), free_port()
    command = [
        *(str(PROJECT / SERVING_PYTHON.parent / "seldon-core-microservice"),),
        *("empty.Empty", "--service-type", "MODEL"),
        *("--http-port", str(http_port), "--grpc-port", str(grpc_port)),
        *("--metrics-port", str(free_port()), "--workers", "1", "--threads", "4"),
        *("--grpc-threads", "4"),
    ]
    # Not as a module of `tests`: the serving environment has a package of that name.
    variables = {"GUNICORN_KEEPALIVE": "75", "PYTHONPATH": str(Path(__file__).parent)}
    process = Process(EMPTY, command, folder / "empty.log", variables)
    stack.callback(process.stop)
    process.wait_until(lambda: _answers(http_port), 60)
    return Server(
        EMPTY, http_port, grpc_port, seldon_rest, seldon_grpc, lambda: (process.pid, None)
    )


def start_idle(folder: Path, stack: ExitStack) -> Server:
    """Start the plain door around a recommender that does nothing."""
    http_port, grpc_port = free_port(), free_port()
    script = str(Path(__file__).with_name("empty_door.py"))
    command = [str(PROJECT / SERVING_PYTHON), script, str(http_port), str(grpc_port)]
    process = Process(IDLE, command, folder / "idle.log")
    stack.callback(process.stop)
    process.wait_until(lambda: _answers(http_port), 60)
    return Server(IDLE, http_port, grpc_port, plain_rest, plain_grpc, lambda: (process.pid, None))


def of_seldon(handle: ServerHandle) -> Server:
    return Server(
        "Seldon's door",
        handle.settings.http_port,
        handle.settings.grpc_port,
        seldon_rest,
        seldon_grpc,
        lambda: (handle.door.pid, handle.model_server.pid),
    )


def of_plain(handle: ServerHandle) -> Server:
    return Server(
        "the plain door",
        handle.settings.http_port,
        handle.settings.grpc_port,
        plain_rest,
        plain_grpc,
        lambda: (handle.door.pid, handle.model_server.pid),
    )


def seldon_rest(body: dict[str, Any]) -> tuple[str, bytes]:
    return "/api/v1.0/predictions", json.dumps({"jsonData": body}).encode()


def seldon_grpc(body: dict[str, Any]) -> tuple[str, bytes]:
    payload = json_format.ParseDict(body, struct_pb2.Value()).SerializeToString()
    size, encoded = len(payload), b""
    while size > 127:
        encoded, size = encoded + bytes([size & 127 | 128]), size >> 7
    message = bytes([JSON_DATA << 3 | 2]) + encoded + bytes([size]) + payload
    return "/seldon.protos.Seldon/Predict", message


def plain_rest(body: dict[str, Any]) -> tuple[str, bytes]:
    return "/recommend", json.dumps(body).encode()


def plain_grpc(body: dict[str, Any]) -> tuple[str, bytes]:
    message = messages.ModelInferRequest(model_name="refit")
    tensor = message.inputs.add(name="request", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(json.dumps(body).encode())
    return "/inference.GRPCInferenceService/ModelInfer", message.SerializeToString()


def body_for(k: int, rng: random.Random) -> dict[str, Any]:
    """A request with filters."""
    return {
        "user_id": f"user-{rng.randrange(tiny.N_USERS)}",
        "context": {"occasion": rng.choice(tiny.OCCASIONS), "age": 35.0},
        "k": k,
        "exclude": [tiny.item_id(rng.randrange(100)) for _ in range(10)],
        "require": {"brand": list(tiny.BRANDS[:3]), "price": {"min": 10.0, "max": 90.0}},
    }


async def measure(servers: list[Server], options: Any) -> dict[tuple[str, str, int], Measured]:
    """Send the load to every server in turn, again and again."""
    rng, measured = random.Random(1), {}
    for turn in range(options.turns + 1):
        for api in ("REST", "gRPC"):
            for k in KS:
                for server in servers:
                    counted = max(options.count // options.turns, 1) if turn else 100
                    load, cpu, model_cpu = await ask(server, api, k, counted, options.rate, rng)
                    if turn:  # the first warms up
                        one = measured.setdefault((server.name, api, k), Measured())
                        one.add(load, cpu, model_cpu)
    return measured


async def ask(
    server: Server, api: str, k: int, count: int, rate: float, rng: random.Random
) -> tuple[Load, float, float]:
    """Requests to one server; the load, and the CPU seconds of its processes and model server."""
    bodies = [body_for(k, rng) for _ in range(50)]
    groups = server.processes()
    if api == "REST":
        connections = HttpConnections("127.0.0.1", server.http_port)
        texts = [http_request(*server.rest(body)) for body in bodies]

        async def send() -> None:
            await connections.send(rng.choice(texts))

        before = [cpu_seconds(group) for group in groups]
        load = await run(send, rate, count, rng)
        connections.close()
    else:
        calls = [server.call(body) for body in bodies]
        address = f"127.0.0.1:{server.grpc_port}"
        async with grpc.aio.insecure_channel(address) as channel:
            method = channel.unary_unary(calls[0][0])

            async def send() -> None:
                await method(rng.choice(calls)[1], timeout=10)

            before = [cpu_seconds(group) for group in groups]
            load = await run(send, rate, count, rng)
    used = [cpu_seconds(group) - was for group, was in zip(groups, before, strict=True)]
    return load, used[0], used[1]


def cpu_seconds(group: int | None) -> float:
    """CPU time of a process group so far."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat") if group else ():
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def write_table(measured: dict[tuple[str, str, int], Measured], options: Any) -> None:
    sys.stdout.write(
        f"{options.items} live listings, {options.rate:.0f} requests/s, open loop, with filters, "
        f"{options.count} requests each; ms, and in brackets the ratio to {EMPTY}\n\n"
        "| API | k | server | p50 | p99 | CPU | CPU of the model server |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for (name, api, k), one in sorted(measured.items(), key=lambda pair: pair[0][1:]):
        empty, figures = measured[EMPTY, api, k].figures(), one.figures()
        cells = [
            f"{value:.2f} ({value / base:.2f})"
            for value, base in zip(figures[:3], empty[:3], strict=True)
        ]
        failed = f", {one.failed} failed" if one.failed else ""
        sys.stdout.write(
            f"| {api} | {k} | {name}{failed} | {' | '.join(cells)} | {figures[3]:.2f} |\n"
        )


def _answers(port: int) -> bool:
    try:
        # What either server has is enough.
        return requests.get(f"http://127.0.0.1:{port}/health/ping", timeout=1).status_code < 500
    except requests.RequestException:
        return False


if __name__ == "__main__":
    started_at = time.monotonic()
    code = main()
    sys.stderr.write(f"took {time.monotonic() - started_at:.0f} s\n")
    sys.exit(code)
