"""The body of an HTTP request, within its bounds of type, size and time."""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from serving.doors.settings import DoorSettings

JSON = ("application/json",)


async def read_body(request: Request, settings: DoorSettings, kinds: Sequence[str] = JSON) -> bytes:
    """Read the body of a request.

    Args:
        request: The request.
        settings: Bounds.
        kinds: Content types that are taken.

    Raises:
        HTTPException: It breaks a bound (408, 413, 415).
        ClientDisconnect: The client has left.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise HTTPException(415, f"send the request with the content type {' or '.join(kinds)}")
    limit = settings.max_body_bytes
    # Uvicorn refuses a length that is not a number.
    if int(request.headers.get("content-length", 0)) > limit:
        raise _too_large(limit)
    loop = asyncio.get_running_loop()
    until = loop.time() + settings.body_seconds
    message = await _receive(request, settings.body_seconds)
    body = message["body"]
    while message.get("more_body") and len(body) <= limit:
        message = await _receive(request, until - loop.time())
        body += message["body"]
    if len(body) > limit:
        raise _too_large(limit)
    return bytes(body)


async def _receive(request: Request, seconds: float) -> Any:
    """The next part of a body."""
    try:
        async with asyncio.timeout(seconds):
            message = await request.receive()
    except TimeoutError:
        reason = "the body of the request took too long"
        raise HTTPException(408, reason, headers={"connection": "close"}) from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message


def _too_large(limit: int) -> HTTPException:
    reason = f"the body is larger than {limit} bytes"
    return HTTPException(413, reason, headers={"connection": "close"})
