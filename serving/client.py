"""Clients of the recommender, typed by the models with which the server reads and answers."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import requests

from refit.errors import RefitError, ServiceUnreachable, UsageError
from serving.answer import RecommendationAnswer
from serving.request import Request, RequestError

SELDON = "/api/v1.0/predictions"
SELDON_PING, SELDON_STATUS = "/health/ping", "/health/status"
PLAIN = "/recommend"
NOT_NOW = (502, 503, 504)
"""A gateway's answers while there is no server behind it, and a server's that is not ready."""


@dataclass(frozen=True)
class Credentials:
    """How a client shows who it is, and whom it believes.

    Attributes:
        token: Bearer token.
        authority: PEM file of the authority of the server's certificate; None is the system's.
        certificate, key: PEM files of a client certificate.
    """

    token: str = ""
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class _Client(ABC):
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


class RecommenderClient(_Client):
    """Requests recommendations over HTTP, from the plain door or from Seldon's server.

    Args:
        url: Such as ``http://127.0.0.1:9000``. Which server it is shows at the first request.
        timeout: Seconds to wait for an answer.
        credentials: For a server that asks for them.
    """

    def __init__(
        self, url: str, timeout: float = 10.0, credentials: Credentials | None = None
    ) -> None:
        self.url, self._timeout = url.rstrip("/"), timeout
        self._session = requests.Session()
        # The proxy settings of the environment do not apply to this server.
        self._session.trust_env = False
        given = credentials or Credentials()
        if given.token:
            self._session.headers["Authorization"] = f"Bearer {given.token}"
        if given.authority:
            self._session.verify = str(given.authority)
        if given.certificate and given.key:
            self._session.cert = (str(given.certificate), str(given.key))
        self._is_seldon: bool | None = None

    def ask(self, request: Request) -> RecommendationAnswer:
        """Request recommendations.

        Raises:
            RequestError: The server refused the request; the message has the reason.
            ServiceUnreachable: The server does not answer, or has too much to do.
            UsageError: The server does not accept the credentials.
        """
        return RecommendationAnswer.model_validate(self.send(_body_of(request)))

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
        """Request recommendations with plain values, which only the server checks.

        The arguments are fields of ``serving.request.Request``.

        Returns:
            The fields of ``serving.answer.RecommendationAnswer``.

        Raises:
            RequestError, ServiceUnreachable, UsageError: As ``ask``.
        """
        return self.send(
            {
                "user_id": user_id,
                "history": None if history is None else [_plain(event) for event in history],
                "context": dict(context or {}),
                "k": k,
                "exclude": list(exclude),
                "require": dict(require or {}),
                "request_id": request_id,
                "time": time.isoformat() if time else None,
            }
        )

    def send(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request as plain values: for recommendations, similar items, or a batch.

        Args:
            body: The fields of ``serving.request.Request``, of ``SimilarRequest`` or of
                ``BatchRequest``.

        Returns:
            The answer as JSON; of a batch, ``answers``.

        Raises:
            RequestError, ServiceUnreachable, UsageError: As ``ask``.
        """
        if self._speaks_seldon():
            return dict(self._call("POST", SELDON, {"jsonData": body})["jsonData"])
        return self._call("POST", PLAIN, body)

    def status(self) -> dict[str, Any]:
        """What is served now: bundle id, state of the towers, number of live items.

        Raises:
            ServiceUnreachable: The server does not answer.
        """
        if self._speaks_seldon():
            return dict(self._call("GET", SELDON_STATUS)["jsonData"])
        return self._call("GET", "/status")

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _speaks_seldon(self) -> bool:
        """Whether the server is Seldon's, which has no path of the plain door.

        Nothing is concluded from what a gateway answers that does not know the server yet.
        """
        if self._is_seldon is None:
            is_seldon = self._request("GET", PLAIN).status_code == requests.codes.not_found
            if is_seldon and not self._request("GET", SELDON_PING).ok:
                raise ServiceUnreachable(
                    f"{self.url} serves no recommender: it has neither {PLAIN} nor {SELDON}; "
                    "check the URL, or wait until the gateway in front of it knows the server"
                )
            self._is_seldon = is_seldon
        return self._is_seldon

    def _request(self, method: str, path: str, body: Any = None) -> requests.Response:
        try:
            url = self.url + path
            response = self._session.request(method, url, json=body, timeout=self._timeout)
        except requests.RequestException as error:
            raise ServiceUnreachable(
                f"no answer from {self.url} ({type(error).__name__}); refit serve starts a server"
            ) from None
        if response.status_code in NOT_NOW:
            why = response.text[:500]
            raise ServiceUnreachable(f"{self.url} answered {response.status_code}: {why}")
        return response

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        response = self._request(method, path, body)
        if response.ok:
            return dict(response.json())
        if response.status_code == requests.codes.bad_request:
            raise RequestError(_reason(response))
        if response.status_code == requests.codes.unauthorized:
            raise UsageError(f"{self.url} does not accept the token")
        if response.status_code == requests.codes.too_many_requests:
            raise ServiceUnreachable(f"{self.url} has too much to do; try again later")
        raise RefitError(f"{self.url} answered {response.status_code}: {response.text[:500]}")


class GrpcRecommenderClient(_Client):
    """Requests recommendations over gRPC, by the Open Inference Protocol.

    Args:
        address: ``host:port`` of the plain door's gRPC API.
        timeout: Seconds to wait for an answer.
        credentials: For a server that asks for them; with an ``authority`` the connection is TLS.
        model: The name under which the server serves the recommender.
    """

    def __init__(
        self,
        address: str,
        timeout: float = 10.0,
        credentials: Credentials | None = None,
        model: str = "refit",
    ) -> None:
        import grpc

        from serving.doors.protocol import inference_pb2 as messages

        given = credentials or Credentials()
        self.address, self._timeout, self._model = address, timeout, model
        self._metadata = (("authorization", f"Bearer {given.token}"),) if given.token else ()
        options = (("grpc.enable_http_proxy", 0),)
        if given.authority:
            self._channel = grpc.secure_channel(address, _tls(given), options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._messages = messages
        self._infer = self._channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )

    def ask(self, request: Request) -> RecommendationAnswer:
        """Request recommendations.

        Raises:
            RequestError: The server refused the request; the message has the reason.
            ServiceUnreachable: The server does not answer, or has too much to do.
            UsageError: The server does not accept the credentials.
        """
        import grpc

        message = self._messages.ModelInferRequest(model_name=self._model)
        tensor = message.inputs.add(name="request", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(json.dumps(_body_of(request)).encode())
        try:
            response = self._infer(message, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            self._fail(error)
        text = response.outputs[0].contents.bytes_contents[0]
        return RecommendationAnswer.model_validate_json(text)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _fail(self, error: Any) -> NoReturn:
        import grpc

        code, details = error.code(), error.details()
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            raise RequestError(details) from None
        if code is grpc.StatusCode.UNAUTHENTICATED:
            raise UsageError(f"{self.address} does not accept the token") from None
        if code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ):
            raise ServiceUnreachable(f"{self.address}: {code.name}: {details}") from None
        raise RefitError(f"{self.address}: {code.name}: {details}") from None


def _tls(given: Credentials) -> Any:
    import grpc

    assert given.authority  # the caller asked for TLS
    return grpc.ssl_channel_credentials(
        given.authority.read_bytes(),
        given.key.read_bytes() if given.key else None,
        given.certificate.read_bytes() if given.certificate else None,
    )


def _body_of(request: Request) -> dict[str, Any]:
    return request.model_dump(mode="json", exclude_defaults=True)


def _reason(response: requests.Response) -> str:
    body = response.json()
    return str(body["error"] if "error" in body else body["status"]["info"])


def _plain(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in event.items()
    }
