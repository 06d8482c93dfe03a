"""An open loop of requests: they are sent when they are due, whatever became of those before.

Times are counted from when a request was due, so that a server that falls behind is not spared.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httptools

Send = Callable[[], Awaitable[None]]


class RequestFailedError(Exception):
    """A request was not answered with success."""


@dataclass(frozen=True)
class Load:
    """What became of the requests of one run.

    Attributes:
        seconds: Of every request that succeeded, from when it was due, sorted.
        failed: How many did not.
    """

    seconds: list[float]
    failed: int

    def quantile(self, q: float) -> float:
        """A quantile of the times, in milliseconds."""
        return 1000 * self.seconds[min(int(q * len(self.seconds)), len(self.seconds) - 1)]


async def run(send: Send, rate: float, count: int, rng: random.Random) -> Load:
    """Send ``count`` requests at random moments, ``rate`` a second on average."""
    seconds: list[float] = []
    failed = 0

    async def one(due: float) -> None:
        nonlocal failed
        try:
            await send()
        except Exception:
            failed += 1
        else:
            seconds.append(time.perf_counter() - due)

    due, tasks = time.perf_counter(), []
    for _ in range(count):
        due += rng.expovariate(rate)
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return Load(sorted(seconds), failed)


class HttpConnections:
    """Kept connections to one server, each with one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._free: deque[_Connection] = deque()

    async def send(self, request: bytes) -> bytes:
        """Send a request and return the body of its answer.

        Raises:
            RequestFailedError: Its status is not 200, or the connection was closed.
        """
        connection = self._free.pop() if self._free else None
        if connection is None or connection.is_closed:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, *self._place)
        body = await connection.exchange(request)
        self._free.append(connection)
        return body

    def close(self) -> None:
        for connection in self._free:
            connection.close()


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.is_closed = False
        self._transport: Any = None
        self._answer: asyncio.Future[bytes] | None = None
        self._parser, self._body = httptools.HttpResponseParser(self), bytearray()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def exchange(self, request: bytes) -> asyncio.Future[bytes]:
        self._body.clear()
        self._parser = httptools.HttpResponseParser(self)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._answer is None or self._answer.done():
            return
        status = self._parser.get_status_code()
        if status == 200:
            self._answer.set_result(bytes(self._body))
        else:
            self._answer.set_exception(RequestFailedError(f"{status}: {bytes(self._body)[:200]!r}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closed = True
        if self._answer and not self._answer.done():
            self._answer.set_exception(RequestFailedError("the connection was closed"))

    def close(self) -> None:
        self._transport.close()


def http_request(path: str, body: bytes, headers: Sequence[str] = ()) -> bytes:
    """A whole POST request."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
