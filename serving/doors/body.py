"""The body of an HTTP request, within its bounds of type, size and time."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from serving.doors.connections import ARRIVED
from serving.doors.settings import DoorSettings

JSON = ("application/json",)


async def read_body(
    scope: Scope, receive: Receive, settings: DoorSettings, kinds: Sequence[str] = JSON
) -> bytes:
    """Read the body of a request.

    Args:
        scope: Of the request.
        receive: Gives its parts.
        settings: Bounds.
        kinds: Content types that are taken.

    Raises:
        HTTPException: It breaks a bound (408, 413, 415).
        ClientDisconnect: The client has left.
    """
    kind = find_header(scope["headers"], b"content-type").decode("latin-1")
    if kind not in kinds and kind.partition(";")[0].strip().lower() not in kinds:
        raise HTTPException(415, f"send the request with the content type {' or '.join(kinds)}")
    limit = settings.max_body_bytes
    # Uvicorn refuses a length that is not a number.
    if int(find_header(scope["headers"], b"content-length") or 0) > limit:
        raise _too_large(limit)
    if ARRIVED in scope["state"]:  # all of it was read, so that nothing waits
        body = _as_part(await receive())["body"]
    else:
        body = await _read_parts(receive, settings)
    if len(body) > limit:
        raise _too_large(limit)
    return bytes(body)


def find_header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    """The value of the first header of a name, in small letters; empty without one."""
    for name, value in headers:
        if name == wanted:
            return value
    return b""


async def _read_parts(receive: Receive, settings: DoorSettings) -> Any:
    """A body that comes in several parts, until it is complete or too large."""
    loop = asyncio.get_running_loop()
    until = loop.time() + settings.body_seconds
    body, more = b"", True
    while more and len(body) <= settings.max_body_bytes:
        message = await _await_part(receive, until - loop.time())
        body += message["body"]
        more = message.get("more_body", False)
    return body


async def _await_part(receive: Receive, seconds: float) -> Any:
    """The next part of a body."""
    try:
        async with asyncio.timeout(seconds):
            return _as_part(await receive())
    except TimeoutError:
        reason = "the body of the request took too long"
        raise HTTPException(408, reason, headers={"connection": "close"}) from None


def _as_part(message: Any) -> Any:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message


def _too_large(limit: int) -> HTTPException:
    reason = f"the body is larger than {limit} bytes"
    return HTTPException(413, reason, headers={"connection": "close"})
