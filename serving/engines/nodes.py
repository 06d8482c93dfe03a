"""The nodes of a Weaviate cluster: each in turn, and the next where one does not answer."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from refit.errors import RefitError, ServiceUnreachable, UsageError
from serving.engines.protocol import weaviate_pb2 as messages
from serving.engines.settings import WeaviateSettings
from serving.towers import CHANNEL_OPTIONS

SERVICE = "weaviate.v1.Weaviate"
ASIDE_SECONDS = 1.0
"""A node that did not answer is asked last for so long."""
HTTP_SECONDS = 60.0
CONNECT_SECONDS = 2.0
_REPLIES: dict[str, Any] = {
    "Search": messages.SearchReply,
    "BatchObjects": messages.BatchObjectsReply,
    "BatchDelete": messages.BatchDeleteReply,
    "Aggregate": messages.AggregateReply,
}


class Turns:
    """Whose turn it is: all take turns, and those that did not answer lately come last.

    Args:
        n: Number of nodes.
        clock: Seconds.
    """

    def __init__(self, n: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._next = 0
        self._aside_until = [0.0] * n

    def order(self) -> list[int]:
        """The nodes, in the order in which they are to be asked; at least two tries."""
        n = len(self._aside_until)
        with self._lock:
            first, self._next = self._next, (self._next + 1) % n
        turns = [(first + i) % n for i in range(n)]
        now = self._clock()
        ordered = sorted(turns, key=lambda node: self._aside_until[node] > now)
        return ordered if n > 1 else [0, 0]

    def set_aside(self, node: int) -> None:
        """Ask a node last for a moment."""
        self._aside_until[node] = self._clock() + ASIDE_SECONDS


class GrpcNodes:
    """The gRPC APIs of the nodes. Create it after a fork, not before.

    Args:
        settings: The cluster.
    """

    def __init__(self, settings: WeaviateSettings) -> None:
        import grpc

        self._settings = settings
        self._turns = Turns(len(settings.grpc))
        # A name with several addresses is a headless Service: its nodes take turns as well.
        options = (*CHANNEL_OPTIONS, ("grpc.lb_policy_name", "round_robin"))
        secure = grpc.ssl_channel_credentials() if settings.tls else None
        self._channels = [
            grpc.secure_channel(address, secure, options=options)
            if secure
            else grpc.insecure_channel(address, options=options)
            for address in settings.grpc
        ]
        self._calls = [
            {
                name: channel.unary_unary(
                    f"/{SERVICE}/{name}",
                    request_serializer=_serialize,
                    response_deserializer=reply.FromString,
                )
                for name, reply in _REPLIES.items()
            }
            for channel in self._channels
        ]

    def call(
        self,
        method: str,
        request: Any,
        deadline: float,
        attempt: float,
        is_whole: Callable[[Any], bool] = lambda reply: True,
    ) -> Any:
        """Ask the nodes until one answers.

        Args:
            method: Of the service.
            request: Its message.
            deadline: Seconds for all of them.
            attempt: Seconds for one of them.
            is_whole: Whether a reply has all that it should; else the next node is asked.

        Returns:
            The first whole reply, or the last one.

        Raises:
            grpc.RpcError: None answered; the error of the last one.
        """
        import grpc

        until = time.monotonic() + deadline
        last: Exception | None = None
        reply: Any = None
        for node in self._turns.order():
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                call = self._calls[node][method]
                reply = call(request, timeout=min(left, attempt), metadata=self._metadata())
                if is_whole(reply):
                    return reply
            except grpc.RpcError as error:
                last = error
                code = error.code()
                if code in _refusals(grpc):
                    break
                if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    self._turns.set_aside(node)
        if reply is None and last is not None:
            raise last
        return reply

    def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            channel.close()

    def _metadata(self) -> list[tuple[str, str]]:
        return [(name.lower(), value) for name, value in authorization(self._settings).items()]


class HttpNodes:
    """The HTTP APIs of the nodes, for collections and their names.

    Args:
        settings: The cluster.
    """

    def __init__(self, settings: WeaviateSettings) -> None:
        self._settings = settings
        self._turns = Turns(len(settings.http))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the nodes until one answers; None where it is not found.

        Raises:
            ServiceUnreachable: None answered.
            RefitError: The request was refused; the message says why.
        """
        import requests

        scheme = "https" if self._settings.tls else "http"
        reason = ""
        for node in self._turns.order():
            address = self._settings.http[node]
            try:
                with requests.Session() as session:
                    session.trust_env = False
                    reply = session.request(
                        method,
                        f"{scheme}://{address}/v1/{path}",
                        json=body,
                        headers=authorization(self._settings),
                        timeout=(CONNECT_SECONDS, HTTP_SECONDS),
                    )
            except requests.RequestException as error:
                self._turns.set_aside(node)
                reason = str(error)
                continue
            if reply.status_code == 404:
                return None
            if reply.status_code < 400:
                return reply.json() if reply.content else {}
            reason = f"{method} {path}: {reply.status_code} {reply.text[:500]}"
            if reply.status_code < 500:
                raise RefitError(f"Weaviate refuses: {reason}")
        nodes = ", ".join(self._settings.http)
        raise ServiceUnreachable(f"Weaviate does not answer ({nodes}): {reason}")


def authorization(settings: WeaviateSettings) -> dict[str, str]:
    """The header with the key, as it is in its file now.

    Raises:
        UsageError: The file cannot be read.
    """
    if settings.api_key is None:
        return {}
    return {"Authorization": f"Bearer {_read_key(settings.api_key)}"}


def _read_key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise UsageError(f"engine.weaviate.api_key: {error}") from None


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _refusals(grpc: Any) -> Sequence[Any]:
    """Statuses that another node would give as well."""
    status = grpc.StatusCode
    return (status.INVALID_ARGUMENT, status.UNAUTHENTICATED, status.PERMISSION_DENIED)
