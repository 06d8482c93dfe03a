"""Measure the doors beside an empty Seldon model, in one run and in turn, against their goals.

    make bench-serving
    make bench-serving ARGS="--count 2000 --rate 100 --items 20000"

Every server runs with one worker on this machine, with the same load: an open loop over REST and
gRPC, k = 10 and 100, with filters, in turns. CPU is that of the server's processes, per request;
the model server's is beside it. A ratio is to the empty Seldon model in the same turn; the table
has its median over the turns, and the smallest and largest. Compare the ratios: absolute values are
this machine's. Then each server's load is raised, step by step, for as long as p99 stays within
50 ms and nothing fails.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import requests
import uvloop
from google.protobuf import json_format, struct_pb2

from refit.ports import free_ports
from serving.doors.protocol import inference_pb2 as messages
from serving.launch import ServerHandle, launch
from serving.processes import PROJECT, Process
from serving.settings import SERVING_PYTHON, ServeSettings
from tests.benchmarks.serving import model
from tests.benchmarks.serving.load import HttpConnections, Load, http_request, run
from tests.serving import tiny

KS = (10, 100)
EMPTY = "an empty Seldon model"
IDLE = "the plain door, doing nothing"
GOALS = {
    "the plain door, query tower in process": 1.0,
    "the plain door": 1.5,
    "Seldon's door, query tower in process": 2.0,
    "Seldon's door": 2.0,
}
"""The most that p50 and CPU may be, as multiples of those of the empty Seldon model."""
RATES = (50, 100, 200, 300, 400, 600, 800, 1000, 1500)
STEP_SECONDS = 2.0
TRIES = 3
MOST_P99_MS = 50.0
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


@dataclass(frozen=True)
class Turn:
    """What one turn of one server, API and k took.

    Attributes:
        load: The requests.
        cpu, model_cpu: Milliseconds of the server's processes, and of its model server's, for one.
    """

    load: Load
    cpu: float
    model_cpu: float

    @property
    def p50(self) -> float:
        return self.load.quantile(0.5)


@dataclass
class Measured:
    """One server, API and k, turn by turn."""

    turns: list[Turn] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(turn.load.failed for turn in self.turns)

    def quantile(self, q: float) -> float:
        """Of all requests, in milliseconds."""
        seconds = sorted(value for turn in self.turns for value in turn.load.seconds)
        return Load(seconds, 0).quantile(q)

    def mean(self, name: str) -> float:
        return statistics.mean(getattr(turn, name) for turn in self.turns)

    def ratios(self, empty: "Measured", name: str, to: str = "") -> list[float]:
        """Of a figure to the same, or to another one, of the empty model in the same turn."""
        pairs = zip(self.turns, empty.turns, strict=True)
        return [getattr(ours, name) / getattr(theirs, to or name) for ours, theirs in pairs]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="requests per server, API and k")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--items", type=int, default=5000, help="live listings")
    parser.add_argument("--turns", type=int, default=4, help="turns that the requests come in")
    parser.add_argument(
        "--only", action="append", choices=GOALS, help="a server beside the empty ones; repeat it"
    )
    parser.add_argument("--k", type=int, nargs="+", default=list(KS), help="items of an answer")
    parser.add_argument("--no-steps", action="store_true", help="do not look for the highest rate")
    options = parser.parse_args()
    names = options.only or list(GOALS)
    with (
        tempfile.TemporaryDirectory() as folder,
        started(Path(folder), options.items, names) as servers,
    ):
        measured = asyncio.run(measure(servers, options), loop_factory=uvloop.new_event_loop)
        write_table(measured, options)
        write_goals(measured, names, options.k)
        if not options.no_steps:
            highest = asyncio.run(find_rates(servers), loop_factory=uvloop.new_event_loop)
            write_rates(highest)
    return 1 if any(one.failed for one in measured.values()) else 0


@contextmanager
def started(folder: Path, items: int, names: Sequence[str]) -> Iterator[list[Server]]:
    """Start the empty servers and those named; all run from the start to the end."""
    tiny.N_LIVE = items
    towers, dimension = model.make_model(folder / "m")
    tiny.promote(folder / "registry", tiny.make_bundle(folder, towers, dimension=dimension))
    with ExitStack() as stack:
        servers = [start_empty(folder, stack), start_idle(folder, stack)]
        # Together: the model servers' imports take most of the time.
        with ThreadPoolExecutor() as pool:
            handles = list(pool.map(launch, (settings_of(name, folder) for name in names)))
        for name, handle in zip(names, handles, strict=True):
            servers.append(as_server(name, stack.enter_context(handle)))
        yield servers


def start_empty(folder: Path, stack: ExitStack) -> Server:
    """Start a Seldon model that does nothing."""
    http_port, grpc_port, metrics_port = free_ports(3)
    command = [
        *(str(PROJECT / SERVING_PYTHON.parent / "seldon-core-microservice"),),
        *("empty.Empty", "--service-type", "MODEL"),
        *("--http-port", str(http_port), "--grpc-port", str(grpc_port)),
        *("--metrics-port", str(metrics_port), "--workers", "1", "--threads", "4"),
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
    http_port, grpc_port = free_ports(2)
    script = str(Path(__file__).with_name("empty_door.py"))
    command = [str(PROJECT / SERVING_PYTHON), script, str(http_port), str(grpc_port)]
    process = Process(IDLE, command, folder / "idle.log")
    stack.callback(process.stop)
    process.wait_until(lambda: _answers(http_port), 60)
    return Server(IDLE, http_port, grpc_port, plain_rest, plain_grpc, lambda: (process.pid, None))


def settings_of(name: str, folder: Path) -> ServeSettings:
    ports = ("http_port", "grpc_port", "metrics_port", "model_server_port")
    return ServeSettings.parse(
        {
            "recommender": {
                "registry": str(folder / "registry"),
                "log_folder": folder / name.replace(" ", "-"),
                "query_tower": "in_process" if "in process" in name else "model_server",
                "tower_deadline_ms": 5000,
            },
            "door": "plain" if "plain" in name else "seldon",
            **dict.fromkeys(ports, 0),
        }
    )


def as_server(name: str, handle: ServerHandle) -> Server:
    rest, call = plain_rest, plain_grpc
    if handle.settings.door == "seldon":
        rest, call = seldon_rest, seldon_grpc
    return Server(
        name,
        handle.settings.http_port,
        handle.settings.grpc_port,
        rest,
        call,
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
            for k in options.k:
                for server in servers:
                    counted = max(options.count // options.turns, 1) if turn else 100
                    done = await ask(server, api, k, counted, options.rate, rng)
                    if turn:  # the first warms up
                        of_server = measured.setdefault((server.name, api, k), Measured())
                        of_server.turns.append(done)
    return measured


async def ask(
    server: Server, api: str, k: int, count: int, rate: float, rng: random.Random
) -> Turn:
    """Send requests to one server."""
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
    return Turn(load, *(1000 * seconds / count for seconds in used))


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


async def find_rates(servers: list[Server]) -> dict[tuple[str, str], float | None]:
    """The highest rate of each server that it keeps up with, at k = 10; None for not even one."""
    rng = random.Random(2)
    highest: dict[tuple[str, str], float | None] = {}
    for server in servers:
        for api in ("REST", "gRPC"):
            highest[server.name, api] = None
            for rate in RATES:
                if not await keeps_up(server, api, rate, rng):
                    break
                highest[server.name, api] = rate
    return highest


async def keeps_up(server: Server, api: str, rate: float, rng: random.Random) -> bool:
    """Whether a server answers so many requests a second in time, in one try of ``TRIES``.

    With 100 requests in a step, a pause of the machine would decide otherwise.
    """
    for _ in range(TRIES):
        load = (await ask(server, api, KS[0], int(rate * STEP_SECONDS), rate, rng)).load
        if not load.failed and load.quantile(0.99) <= MOST_P99_MS:
            return True
    return False


def write_table(measured: dict[tuple[str, str, int], Measured], options: Any) -> None:
    sys.stdout.write(
        f"{describe_machine()}\n{options.items} live listings, {options.rate:.0f} requests/s, open "
        f"loop, with filters; {options.count} requests for each line, in {options.turns} turns; "
        f"ms\n\n| API | k | server | p50 | p99 | CPU | CPU of the model server |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for (name, api, k), of_server in sorted(measured.items(), key=lambda pair: pair[0][1:]):
        failed = f", {of_server.failed} failed" if of_server.failed else ""
        cells = (
            of_server.quantile(0.5),
            of_server.quantile(0.99),
            of_server.mean("cpu"),
            of_server.mean("model_cpu"),
        )
        written = " | ".join(f"{cell:.2f}" for cell in cells)
        sys.stdout.write(f"| {api} | {k} | {name}{failed} | {written} |\n")


def write_goals(
    measured: dict[tuple[str, str, int], Measured], names: Sequence[str], ks: Sequence[int]
) -> None:
    sys.stdout.write(
        f"\nRatios to {EMPTY}: median (smallest to largest) over the turns\n\n"
        "The goal is for p50 and for the server's own CPU. p50 has in it what the model server\n"
        "takes, whose CPU is the last column.\n\n"
        "| server | API | k | p50 | CPU | goal | CPU of the model server |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for name in (IDLE, *names):
        for api in ("REST", "gRPC"):
            for k in ks:
                ours, empty = measured[name, api, k], measured[EMPTY, api, k]
                found = [ours.ratios(empty, what) for what in ("p50", "cpu")]
                cells = [format_ratios(of) for of in found]
                towers = ours.ratios(empty, "model_cpu", to="cpu")
                goal = GOALS.get(name)
                said = "-"
                if goal is not None:
                    met = all(statistics.median(of) <= goal for of in found)
                    said = f"{goal:.1f}, {'met' if met else 'missed'}"
                cells += [said, format_ratios(towers) if any(towers) else "-"]
                sys.stdout.write(f"| {name} | {api} | {k} | {' | '.join(cells)} |\n")


def format_ratios(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def write_rates(highest: dict[tuple[str, str], float | None]) -> None:
    sys.stdout.write(
        f"\nThe highest rate with p99 <= {MOST_P99_MS:.0f} ms and no failure, k = {KS[0]}, of "
        f"{', '.join(map(str, RATES))} requests/s, {STEP_SECONDS:.0f} s each, "
        f"at best of {TRIES} tries\n\n"
        "| server | REST | gRPC |\n|---|---|---|\n"
    )
    for name in dict.fromkeys(name for name, _ in highest):
        rates = [highest[name, api] for api in ("REST", "gRPC")]
        written = " | ".join("none" if rate is None else str(rate) for rate in rates)
        sys.stdout.write(f"| {name} | {written} |\n")


def describe_machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    python = platform.python_version()
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}, Python {python}"


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
