"""The gRPC door: the Open Inference Protocol v2 and gRPC's health service.

It shares the event loop, the threads and the queue of the HTTP door. A refusal has a gRPC status:
INVALID_ARGUMENT, NOT_FOUND, UNAUTHENTICATED, or RESOURCE_EXHAUSTED past the queue's bound.
"""

import logging
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from pydantic_core import to_json

from refit import __version__
from refit.errors import UsageError
from serving.doors import inference
from serving.doors.access import Certificates, Tokens
from serving.doors.admission import Admission, Overloaded
from serving.doors.http import Answering
from serving.doors.protocol import inference_pb2 as messages
from serving.doors.readiness import Readiness
from serving.doors.settings import DoorSettings
from serving.request import RequestError

SERVICE = "inference.GRPCInferenceService"
CONNECTION_SECONDS = 600
"""A connection is closed in good order after this, so that load spreads over new pods."""
GRACE_SECONDS = 30
OPEN_METHODS = ("ServerLive", "ServerReady")
"""Probes send no token; the health service needs none either."""


class GrpcDoor:
    """The service around one recommender.

    Args:
        recommender: Answers requests.
        admission: The threads and the queue.
        settings: Bounds.
        tokens: Accepted bearer tokens; None lets everybody in.
        readiness: Whether the recommender wants requests.
    """

    def __init__(
        self,
        recommender: Answering,
        admission: Admission,
        settings: DoorSettings,
        readiness: Readiness,
        tokens: Tokens | None = None,
    ) -> None:
        self._recommender, self._admission, self._settings = recommender, admission, settings
        self._tokens, self.readiness = tokens, readiness

    def handlers(self) -> Any:
        """The service, as a generic handler of gRPC."""
        methods: dict[str, tuple[Callable[..., Any], Any]] = {
            "ServerLive": (self._live, messages.ServerLiveRequest),
            "ServerReady": (self._ready, messages.ServerReadyRequest),
            "ModelReady": (self._model_ready, messages.ModelReadyRequest),
            "ServerMetadata": (self._server, messages.ServerMetadataRequest),
            "ModelMetadata": (self._model, messages.ModelMetadataRequest),
            "ModelInfer": (self._infer, messages.ModelInferRequest),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._guarded(call, name, request.FromString), response_serializer=_serialize
                )
                for name, (call, request) in methods.items()
            },
        )

    def _guarded(
        self, call: Callable[..., Any], name: str, parse: Callable[[bytes], Any]
    ) -> Callable[..., Any]:
        """A method that checks the token first, and turns errors into gRPC's statuses."""

        async def answer(request: bytes, context: Any) -> Any:
            arrived = time.perf_counter()
            if self._tokens and name not in OPEN_METHODS:
                given = dict(context.invocation_metadata() or ()).get("authorization", "")
                if not self._tokens.accept(given.encode()):
                    self._recommender.counters.add("refit_unauthorized_requests")
                    await context.abort(
                        grpc.StatusCode.UNAUTHENTICATED,
                        "send an accepted token as metadata: authorization: Bearer ...",
                    )
            try:
                return await call(parse(request), arrived)
            except DecodeError:
                reason = f"this is no request of {name}"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)
            except RequestError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except LookupError as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, str(error.args[0]))
            except Overloaded as error:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            except Exception:
                logging.exception("a gRPC request failed")
                await context.abort(grpc.StatusCode.INTERNAL, "internal error")

        return answer

    async def _live(self, _: Any, __: float) -> Any:
        return messages.ServerLiveResponse(live=True)

    async def _ready(self, _: Any, __: float) -> Any:
        return messages.ServerReadyResponse(ready=self.readiness.ready)

    async def _model_ready(self, request: Any, _: float) -> Any:
        self._check_model(request.name, request.version)
        return messages.ModelReadyResponse(ready=self.readiness.ready)

    async def _server(self, _: Any, __: float) -> Any:
        return messages.ServerMetadataResponse(name="refit", version=__version__)

    async def _model(self, request: Any, _: float) -> Any:
        self._check_model(request.name, request.version)
        described = inference.describe_model(self._settings.model, self._recommender.bundle_id)
        return messages.ModelMetadataResponse(**described.model_dump())

    async def _infer(self, request: Any, arrived: float) -> Any:
        self._check_model(request.model_name, request.model_version)
        return await self._admission.answer(self._answer, request, arrived)

    def _answer(self, request: Any, arrived: float) -> Any:
        try:
            bodies = _requests_of(request)
        except RequestError:
            self._recommender.counters.add("refit_bad_requests")
            raise
        answers = [self._recommender.recommend(body, arrived) for body in bodies]
        response = messages.ModelInferResponse(
            model_name=self._settings.model,
            model_version=self._recommender.bundle_id,
            id=request.id,
        )
        texts = [to_json(answer) for answer in answers]
        output = response.outputs.add(
            name=inference.OUTPUT, datatype=inference.DATATYPE, shape=[len(texts)]
        )
        if request.raw_input_contents:
            response.raw_output_contents.append(b"".join(map(_with_length, texts)))
        else:
            output.contents.bytes_contents.extend(texts)
        return response

    def _check_model(self, name: str, version: str) -> None:
        """Check the model that a request names, and its version if it names one.

        Raises:
            LookupError: It is not served.
        """
        if name != self._settings.model:
            raise LookupError(f"there is no such model; its name is {self._settings.model}")
        served = self._recommender.bundle_id
        if version not in ("", served):
            raise LookupError(f"this version is not served; {served} is")


class GrpcServer:
    """A running server of the door and of gRPC's health service."""

    def __init__(self, server: Any, health: Any) -> None:
        self._server, self._health = server, health
        self._told: bool | None = None

    async def tell(self, ready: bool) -> None:
        """Have the health service say whether the recommender wants requests."""
        from grpc_health.v1.health_pb2 import HealthCheckResponse

        if ready == self._told:
            return
        self._told = ready
        status = HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)

    async def stop(self, seconds: float) -> None:
        """Tell health checks, take no new requests, and finish those that run."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(seconds)


async def start_grpc(
    door: GrpcDoor,
    settings: DoorSettings,
    address: str,
    shared: bool,
    certificates: Certificates | None = None,
) -> GrpcServer:
    """Start a server.

    Args:
        door: The door.
        settings: Bounds.
        address: ``host:port``.
        shared: Whether other worker processes listen on the same address.
        certificates: For TLS.

    Raises:
        UsageError: The address cannot be used.
    """
    from grpc import aio
    from grpc_health.v1 import health_pb2_grpc
    from grpc_health.v1.health import aio as health

    server = aio.server(
        options=(
            ("grpc.so_reuseport", int(shared)),
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            ("grpc.max_metadata_size", 16 << 10),
            ("grpc.max_concurrent_streams", 100),
            ("grpc.server_handshake_timeout_ms", int(settings.head_seconds * 1000)),
            ("grpc.max_connection_idle_ms", int(settings.idle_seconds * 1000)),
            ("grpc.max_connection_age_ms", CONNECTION_SECONDS * 1000),
            ("grpc.max_connection_age_grace_ms", GRACE_SECONDS * 1000),
        )
    )
    server.add_generic_rpc_handlers((door.handlers(),))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    try:
        if certificates is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _credentials(certificates))
    except RuntimeError:
        port = 0
    if not port:
        raise UsageError(f"cannot listen on {address}: grpc_port is in use; choose another one")
    running = GrpcServer(server, servicer)
    await running.tell(door.readiness.ready)
    await server.start()
    return running


def _credentials(certificates: Certificates) -> Any:
    """Credentials that every handshake asks for again, so that a new certificate is used."""
    version = None

    def read() -> Any:
        nonlocal version
        if version == certificates.version:
            return None
        version = certificates.version
        return grpc.ssl_server_certificate_configuration(
            [(certificates.key.read_bytes(), certificates.certificate.read_bytes())],
            certificates.authority.read_bytes() if certificates.authority else None,
        )

    first = read()
    return grpc.dynamic_ssl_server_credentials(
        first, read, require_client_authentication=certificates.authority is not None
    )


def _requests_of(request: Any) -> list[Any]:
    """The requests in a message, as parsed JSON.

    Raises:
        RequestError: Names, types or shapes are not those of the recommender.
    """
    if len(request.inputs) != 1:
        raise RequestError(f"inputs: give the one input {inference.INPUT!r}")
    tensor = request.inputs[0]
    texts = list(tensor.contents.bytes_contents)
    if request.raw_input_contents:
        if texts or len(request.raw_input_contents) != 1:
            raise RequestError("raw_input_contents: give one, and no contents beside it")
        texts = list(_without_lengths(request.raw_input_contents[0]))
    inference.check_tensor(tensor.name, tensor.datatype, list(tensor.shape), len(texts))
    inference.check_outputs([one.name for one in request.outputs])
    return [inference.parse_json(text) for text in texts]


def _with_length(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


def _without_lengths(raw: bytes) -> Iterator[bytes]:
    """The strings of raw contents, each preceded by its length."""
    at = 0
    while at < len(raw):
        if len(raw) < at + 4:
            raise RequestError("raw_input_contents: it ends within a length")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4 + size
        if len(raw) < at:
            raise RequestError("raw_input_contents: it ends within a string")
        yield raw[at - size : at]


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
