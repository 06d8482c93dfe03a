"""A client of the recommender's REST API."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import requests

from refit.errors import RefitError, ServiceUnreachable
from serving.request import RequestError


class RecommenderClient:
    """Requests recommendations from a running microservice.

    Args:
        url: Such as ``http://127.0.0.1:9000``.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self.url, self._timeout = url.rstrip("/"), timeout
        self._session = requests.Session()
        # The proxy settings of the environment do not apply to this server.
        self._session.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def recommend(
        self,
        *,
        user_id: str | None = None,
        history: Sequence[Mapping[str, Any]] | None = None,
        context: Mapping[str, Any] | None = None,
        k: int = 10,
        exclude: Sequence[str] = (),
        require: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        time: datetime | None = None,
    ) -> dict[str, Any]:
        """Request recommendations; the arguments are the fields of ``serving.request.Request``.

        Returns:
            ``request_id``, ``bundle_id``, ``items`` and ``fallback``.

        Raises:
            RequestError: The server refused the request; the message has the reason.
            ServiceUnreachable: The server does not answer.
        """
        request = {
            "user_id": user_id,
            "history": None if history is None else [_plain(event) for event in history],
            "context": dict(context or {}),
            "k": k,
            "exclude": list(exclude),
            "require": dict(require or {}),
            "request_id": request_id,
            "time": time.isoformat() if time else None,
        }
        answer = self._call("POST", "/api/v1.0/predictions", {"jsonData": request})
        return dict(answer["jsonData"])

    def status(self) -> dict[str, Any]:
        """What is served now: bundle id, state of the towers, number of live items.

        Raises:
            ServiceUnreachable: The server does not answer.
        """
        return dict(self._call("GET", "/health/status")["jsonData"])

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            response = self._session.request(
                method, self.url + path, json=body, timeout=self._timeout
            )
        except requests.RequestException as error:
            raise ServiceUnreachable(
                f"no answer from {self.url} ({type(error).__name__}); refit serve starts a server"
            ) from None
        if response.ok:
            return dict(response.json())
        if response.status_code == requests.codes.bad_request:
            raise RequestError(response.json()["status"]["info"])
        raise RefitError(f"{self.url} answered {response.status_code}: {response.text[:500]}")


def _plain(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in event.items()
    }
