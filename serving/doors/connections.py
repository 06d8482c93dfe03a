"""HTTP connections with bounds: how many, how long a request's head may take and how long it is."""

import asyncio
import json
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.counters import Counters
from serving.doors.settings import DoorSettings

MAX_HEAD_BYTES = 64 << 10
ARRIVED = "arrived"
"""Key in the state of an ASGI scope: when the last byte of the request was read."""


def _refusal(status: str, reason: str) -> bytes:
    body = json.dumps({"error": reason})
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()


INVALID = _refusal("400 Bad Request", "this is no HTTP request")
TIMED_OUT = _refusal("408 Request Timeout", "the head of the request took too long")
TOO_LONG = _refusal("431 Request Header Fields Too Large", "the head of the request is too long")


class BoundedConnection(HttpToolsProtocol):
    """Uvicorn's connection, which by itself waits for ever for the head of a request.

    Counts the connections that it cuts as ``refit_cut_connections``, by ``reason``.
    """

    def __init__(
        self, *arguments: Any, settings: DoorSettings, counters: Counters, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self._settings, self._counters = settings, counters
        self._timer: asyncio.TimerHandle | None = None
        self._in_head, self._head_bytes = False, 0

    def connection_made(self, transport: Any) -> None:
        """Start the time for the first head, or close one connection too many."""
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            self._cut("too many")
            return
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read; a head that goes on has so much time and so many bytes from its first."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self._in_head:
            self._stop_timer()
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._cut("long head", TOO_LONG)
        elif self._timer is None:
            self._start_timer()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head ends."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note when the request was complete: its latency counts from here."""
        self.cycle.scope["state"][ARRIVED] = time.perf_counter()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, as JSON like every refusal."""
        self.transport.write(INVALID)
        self.transport.close()

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self._settings.head_seconds, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        self._cut("slow head", TIMED_OUT if self._in_head else b"")

    def _cut(self, reason: str, answer: bytes = b"") -> None:
        self._counters.add("refit_cut_connections", reason=reason)
        if self.transport.is_closing():
            return
        # A pipelined head can be late while an earlier request is still being answered.
        if answer and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(answer)
        self.transport.close()
