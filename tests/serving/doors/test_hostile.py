"""10,000 hostile requests and 1,000 slow connections: ``make test-hostile``.

None may be answered with a fault of ours, and who asks meanwhile must not notice.
"""

import json
import os
import random
import resource
import socket
import string
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests

from refit.errors import RefitError
from serving.client import RecommenderClient
from serving.doors.protocol import inference_pb2 as messages
from serving.launch import ServerHandle, launch
from tests.serving import tiny
from tests.serving.doors.test_plain import INFER, metric, settings
from tests.serving.malformed import MALFORMED

HTTP, GRPC, SLOW = 8000, 2000, 1000
SEED = int(os.environ.get("REFIT_SEED", "14"))
PATHS = (
    "/recommend",
    "/v2/models/refit/infer",
    "/status",
    "/v2",
    "/",
    "/openapi.json",
    "/recommend/",
)
METHODS = ("POST", "POST", "POST", "GET", "PUT", "HEAD", "OPTIONS", "BREW", "")
CLOSED = -1
"""Stands for a connection that the server closed without an answer."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bundle) -> Iterator[ServerHandle]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "stock").mkdir()
    tiny.promote(folder / "registry", bundle)
    plain = {"head_seconds": 2.0, "body_seconds": 2.0}
    with launch(settings(folder, folder / "registry", plain=plain)) as handle:
        yield handle


class Neighbour(threading.Thread):
    """Somebody else, who asks steadily on a connection of their own."""

    def __init__(self, server: ServerHandle) -> None:
        super().__init__(daemon=True)
        self._server, self._done = server, threading.Event()
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def run(self) -> None:
        with RecommenderClient(self._server.url, timeout=10.0) as client:
            while not self._done.wait(0.02):
                started = time.perf_counter()
                try:
                    client.recommend(user_id="user-3", k=5)
                except RefitError as error:
                    self.failures.append(str(error))
                self.seconds.append(time.perf_counter() - started)

    def stop(self) -> tuple[float, float]:
        """Median and 95th percentile of the times."""
        self._done.set()
        self.join()
        times = sorted(self.seconds)
        return times[len(times) // 2], times[int(len(times) * 0.95)]


@contextmanager
def watched(server: ServerHandle) -> Iterator[Neighbour]:
    neighbour = Neighbour(server)
    neighbour.start()
    yield neighbour
    neighbour.stop()


def test_hostile_requests_are_refused_and_slow_connections_cut(server: ServerHandle) -> None:
    with watched(server) as alone:
        time.sleep(5)
    usual = alone.stop()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    memory = resident(server)
    slow = [connect_slowly(server, number) for number in range(SLOW)]
    with watched(server) as among_slow:
        time.sleep(1.5)
    with watched(server) as among_hostile, ThreadPoolExecutor(32) as pool:
        http = sum(pool.map(lambda n: attack_http(server, n, HTTP // 32), range(32)), Counter())
        codes = sum(pool.map(lambda n: attack_grpc(server, n, GRPC // 8), range(8)), Counter())
    for one in slow:
        assert is_cut(one)
    times = {"alone": usual, "slow": among_slow.stop(), "hostile": among_hostile.stop()}
    grown = resident(server) - memory
    sys.stdout.write(f"\nHTTP {dict(http)}, gRPC {dict(codes)}\n")
    sys.stdout.write(f"seconds at p50 and p95: {times}; memory: {grown / 1e6:+.0f} MB\n")
    assert not [status for status in http if status >= 500], http
    ours = {"UNKNOWN", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert not ours & set(codes), codes
    assert not [*alone.failures, *among_slow.failures, *among_hostile.failures]
    # The attackers share the processors with the server, so that medians are what can be compared.
    assert times["slow"][0] < 2 * usual[0] + 0.01
    assert times["hostile"][0] < 4 * usual[0] + 0.05
    assert http[400] > HTTP // 3, "most of them reach what parses requests"
    assert metric(server, "refit_errors_total") == 0
    assert grown < 200e6


def connect_slowly(server: ServerHandle, number: int) -> socket.socket:
    """A connection that is silent, or stops within the head or the body of a request."""
    one = socket.create_connection(("127.0.0.1", server.settings.http_port), timeout=20)
    head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    starts = (b"", b"P", head, head + b"Content-Length: 900\r\n\r\n{", head + CHUNKED + b"1\r\n{")
    if start := starts[number % len(starts)]:
        one.sendall(start)
    return one


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def is_cut(one: socket.socket) -> bool:
    with suppress(ConnectionError):
        while one.recv(4096):
            pass
    one.close()
    return True


def attack_http(server: ServerHandle, seed: int, count: int) -> Counter[int]:
    """Send hostile requests; how many had which status."""
    rng, found = random.Random(SEED * 1000 + seed), Counter[int]()
    for _ in range(count):
        found[exchange(server.settings.http_port, hostile_request(rng))] += 1
    return found


def exchange(port: int, request: bytes) -> int:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
            one.sendall(request)
            got = b""
            while b"\r\n" not in got and (part := one.recv(4096)):
                got += part
    except ConnectionError:
        return CLOSED
    return int(got.split(b" ", 2)[1]) if got.startswith(b"HTTP/") else CLOSED


def hostile_request(rng: random.Random) -> bytes:
    """A request that is wrong in its body, its head, or everywhere."""
    kind = rng.random()
    if kind < 0.05:
        return rng.randbytes(rng.randrange(1, 3000))
    body = hostile_body(rng)
    if kind < 0.6:
        head = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        return request("POST", rng.choice(PATHS[:2]), head, body)
    lengths = (str(len(body)), "-1", "1" * 30, "x", "0", str(len(body) + 5), str(2 << 20))
    head = [
        ("Content-Type", rng.choice(("application/json", "text/plain", "", "\x00", "é" * 100))),
        ("Content-Length", rng.choice(lengths)),
    ]
    if rng.random() < 0.3:
        head.append(("Transfer-Encoding", rng.choice(("chunked", "gzip", "chunked, chunked"))))
    if rng.random() < 0.3:
        head += [(text(rng), text(rng)) for _ in range(rng.randrange(200))]
    if rng.random() < 0.1:
        head.append(("Expect", "100-continue"))
    if rng.random() < 0.1:
        head += [("Connection", "Upgrade"), ("Upgrade", rng.choice(("websocket", "h2c", "x")))]
    path = rng.choice(PATHS) + rng.choice(("", "?", "?" + text(rng), "/../" * 9, "%00%ff", "#"))
    sent = request(rng.choice(METHODS), path, head, body)
    if rng.random() < 0.2:
        at = rng.randrange(len(sent))
        sent = sent[:at] + rng.randbytes(3) + sent[at + 3 :]
    return sent[: rng.randrange(1, len(sent))] if rng.random() < 0.1 else sent


def request(method: str, path: str, head: list[tuple[str, str]], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in head)]
    return "\r\n".join([*lines, "", ""]).encode(errors="replace") + body


def hostile_body(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randrange(200))
    if kind < 0.2:
        return rng.choice(
            (b"[" * 50_000, b'{"a":' * 5000, b"9" * 9000, b"\xef\xbb\xbf{}", b'"\\ud800"')
        )
    if kind < 0.4:
        body: Any = rng.choice(MALFORMED)[0]
    else:
        names = (
            "user_id",
            "k",
            "history",
            "context",
            "exclude",
            "require",
            "time",
            "hidden",
            text(rng),
        )
        body = {rng.choice(names): value(rng, 3) for _ in range(rng.randrange(4))}
    whole = json.dumps(body).encode()
    if kind > 0.8:
        tensor = {"name": "request", "shape": [1], "datatype": "BYTES", "data": [whole.decode()]}
        wrong = value(rng, 2) if rng.random() < 0.5 else tensor
        whole = json.dumps({"inputs": [wrong], "id": value(rng, 1)}).encode()
    return whole


def value(rng: random.Random, depth: int) -> Any:
    """Any JSON value."""
    plain = (
        None,
        True,
        -1,
        0,
        3,
        1e308,
        -(10**30),
        float("nan"),
        "",
        text(rng),
        "2026-01-01T00:00:00Z",
    )
    kind = rng.random()
    if depth == 0 or kind < 0.6:
        return rng.choice(plain)
    if kind < 0.8:
        return [value(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {text(rng): value(rng, depth - 1) for _ in range(rng.randrange(5))}


def text(rng: random.Random) -> str:
    letters = string.printable + "éß漢\u202e\x00\x7f\ud800"
    return "".join(rng.choice(letters) for _ in range(rng.choice((1, 5, 20, 300))))


def attack_grpc(server: ServerHandle, seed: int, count: int) -> Counter[str]:
    """Send hostile messages; how many had which status."""
    rng, found = random.Random(SEED * 2000 + seed), Counter[str]()
    with grpc.insecure_channel(server.grpc_address) as channel:
        infer = channel.unary_unary(INFER)
        for _ in range(count):
            try:
                infer(hostile_message(rng), timeout=20)
            except grpc.RpcError as error:
                found[error.code().name] += 1
            else:
                found["OK"] += 1
    return found


def hostile_message(rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(300))
    message = messages.ModelInferRequest(model_name=rng.choice(("refit", "refit", "", "other")))
    for _ in range(rng.choice((1, 1, 1, 0, 3))):
        name, kind = rng.choice(("request", "request", "x")), rng.choice(("BYTES", "BYTES", "FP32"))
        tensor = message.inputs.add(
            name=name, datatype=kind, shape=[rng.choice((1, 1, 1, -1, 2**60))]
        )
        for _ in range(rng.choice((1, 1, 1, 0, 2, 70))):
            tensor.contents.bytes_contents.append(hostile_body(rng))
    if rng.random() < 0.2:
        message.raw_input_contents.append(rng.randbytes(rng.randrange(50)))
    sent = bytearray(message.SerializeToString())
    if sent and rng.random() < 0.2:
        sent[rng.randrange(len(sent))] = rng.randrange(256)
    return bytes(sent)


def resident(server: ServerHandle) -> float:
    """Memory of the worker, in bytes."""
    children = Path(f"/proc/{server.door.pid}/task/{server.door.pid}/children").read_text().split()
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in children)
    return pages * float(resource.getpagesize())


def test_after_all_that_the_server_answers(server: ServerHandle) -> None:
    with server.client() as client:
        assert len(client.recommend(user_id="user-3", k=5)["items"]) == 5
    assert requests.get(server.metrics_url, timeout=10).ok
