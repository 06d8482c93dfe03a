"""The towers: on a model server with TensorFlow Serving's gRPC API, or in this process."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from refit.bundle import Bundle
from refit.errors import RefitError, ServiceUnreachable
from refit.features import REPEATS, Inputs
from refit.in_process_tower import InProcessTower
from serving.model_server_api import tensorflow_serving_pb2 as messages

CHANNEL_OPTIONS = (
    # Reconnect to a dead server every second; gRPC's default back-off grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 << 20),
)
STATUS_SECONDS = 2.0


class Fallback(StrEnum):
    """The reason why an answer does not come from the model."""

    UNREACHABLE = "tower_unreachable"
    SLOW = "tower_slow"
    NOT_LOADED = "tower_not_loaded"
    REFUSED = "tower_refused_input"
    BAD_ANSWER = "tower_bad_answer"
    BREAKER_OPEN = "breaker_open"
    UNKNOWN_ITEM = "unknown_item"
    SEARCH_UNREACHABLE = "search_unreachable"
    SEARCH_SLOW = "search_slow"
    SEARCH_NOT_LOADED = "search_not_loaded"
    SEARCH_REFUSED = "search_refused"
    SEARCH_EMPTY = "search_empty"
    SEARCH_BREAKER_OPEN = "search_breaker_open"


class TowerFailure(RefitError):  # noqa: N818 - as its siblings in refit.errors
    """A tower gave no usable answer."""

    def __init__(self, reason: Fallback, details: str) -> None:
        super().__init__(f"{reason.value}: {details}")
        self.reason = reason


@dataclass(frozen=True)
class TowerNames:
    """The names of a bundle's towers on the model server; the same towers have the same names."""

    query: str
    item: str

    @classmethod
    def of(cls, embedding_version: str) -> "TowerNames":
        """Build names with the first 8 hex digits of ``embedding_version``."""
        return cls(f"query_tower_{embedding_version[:8]}", f"item_tower_{embedding_version[:8]}")


def models_of(bundle: Bundle) -> dict[str, Path]:
    """The base paths of a bundle's towers, by their names on the model server."""
    names = TowerNames.of(bundle.manifest.embedding_version)
    return {names.query: bundle.query_tower.resolve(), names.item: bundle.item_tower.resolve()}


class Breaker:
    """A circuit breaker: it opens after ``failures`` consecutive failures, for ``seconds``.

    Then it lets one call through, which decides whether it closes or stays open.
    """

    def __init__(
        self, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._seconds, self._clock = failures, seconds, clock
        self._failures = 0
        self._open_until = 0.0
        self._lock = threading.Lock()

    def allows(self) -> bool:
        """Whether a call is allowed now; after an open period, one call at a time is."""
        with self._lock:
            if self._failures < self._limit:
                return True
            if self._clock() < self._open_until:
                return False
            self._open_until = self._clock() + self._seconds
            return True

    def succeeded(self) -> None:
        """Record a success: the breaker closes."""
        with self._lock:
            self._failures = 0

    def failed(self) -> None:
        """Record a failure; enough consecutive ones open the breaker."""
        with self._lock:
            self._failures += 1
            self._open_until = self._clock() + self._seconds


class ModelServer(Protocol):
    """What answers for towers outside this process, and loads them."""

    def predict(self, name: str, inputs: Inputs, timeout: float) -> dict[str, NDArray[Any]]:
        """Run a model's serving signature; see ``TowerClient``."""
        ...

    def is_available(self, name: str) -> bool:
        """Whether a model is served now."""
        ...

    def check(self) -> None:
        """Check that it answers."""
        ...

    def serve_only(self, models: Mapping[str, Path], timeout: float) -> None:
        """Serve exactly these models."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


class TowerClient:
    """Calls towers and makes the model server load them.

    Threads may share a client. Create it after a fork, not before: gRPC does not survive a fork.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._predict = self._method("PredictionService/Predict", messages.PredictResponse)
        self._get_status = self._method(
            "ModelService/GetModelStatus", messages.GetModelStatusResponse
        )
        self._reload = self._method(
            "ModelService/HandleReloadConfigRequest", messages.ReloadConfigResponse
        )

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def predict(self, name: str, inputs: Inputs, timeout: float) -> dict[str, NDArray[Any]]:
        """Run a model's serving signature.

        Args:
            name: The model's name on the server.
            inputs: Arrays by input name, each with the batch dimension first.
            timeout: Timeout in seconds.

        Raises:
            TowerFailure: The server did not answer in time, or refused.
        """
        request = messages.PredictRequest()
        request.model_spec.name = name
        request.model_spec.signature_name = "serving_default"
        for key, values in inputs.items():
            _pack(values, request.inputs[key])
        try:
            response = self._predict(request, timeout=timeout)
        except grpc.RpcError as error:
            raise TowerFailure(_reason(error.code()), f"{name}: {error.details()}") from None
        return {key: _unpack(tensor, key) for key, tensor in response.outputs.items()}

    def embed(
        self, name: str, inputs: Inputs, size: int, timeout: float, output: str = "embedding"
    ) -> NDArray[np.float32]:
        """Run a tower and return one of its outputs, [B, size] and finite.

        Raises:
            TowerFailure: The server did not answer in time, refused, or returned invalid vectors.
        """
        outputs = self.predict(name, inputs, timeout)
        return checked_vectors(outputs, output, len(next(iter(inputs.values()))), size)

    def is_available(self, name: str) -> bool:
        """Whether the server serves a model now.

        Raises:
            ServiceUnreachable: The server did not answer.
        """
        request = messages.GetModelStatusRequest()
        request.model_spec.name = name
        try:
            response = self._get_status(request, timeout=STATUS_SECONDS)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return False
            raise self._unreachable(error) from None
        available = messages.ModelVersionStatus.State.AVAILABLE
        return any(status.state == available for status in response.model_version_status)

    def check(self) -> None:
        """Check that the server answers.

        Raises:
            ServiceUnreachable: The server does not answer within ``STATUS_SECONDS``.
        """
        self.is_available("any model at all")

    def serve_only(self, models: Mapping[str, Path], timeout: float) -> None:
        """Make the server serve exactly these models, and wait until all are available.

        Raises:
            ServiceUnreachable: The server did not answer in time.
            RefitError: The server could not load a model.
        """
        request = messages.ReloadConfigRequest()
        for name, path in models.items():
            config = request.config.model_config_list.config.add()
            config.name, config.base_path, config.model_platform = name, str(path), "tensorflow"
        deadline = time.monotonic() + timeout
        try:
            response = self._reload(request, timeout=timeout)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise self._unreachable(error) from None
            raise RefitError(f"the model server refused: {error.details()}") from None
        if response.status.error_code:
            raise RefitError(f"the model server refused: {response.status.error_message}")
        while not all(self.is_available(name) for name in models):
            if time.monotonic() > deadline:
                raise ServiceUnreachable(f"{', '.join(models)} not available after {timeout:.0f} s")
            time.sleep(0.1)

    def _method(self, path: str, response: Any) -> Callable[..., Any]:
        return self._channel.unary_unary(
            f"/tensorflow.serving.{path}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )

    def _unreachable(self, error: Any) -> ServiceUnreachable:
        return ServiceUnreachable(
            f"the model server at {self.address} does not answer ({error.code().name}); "
            "is it running?"
        )


def checked_vectors(
    outputs: Mapping[str, NDArray[Any]], output: str, rows: int, size: int
) -> NDArray[np.float32]:
    """Return one output as float32 [rows, size].

    Raises:
        TowerFailure: The output is missing, has another shape, or contains NaN or infinity.
    """
    vectors = outputs.get(output)
    if vectors is None or vectors.shape != (rows, size):
        shape = None if vectors is None else vectors.shape
        raise TowerFailure(Fallback.BAD_ANSWER, f"{output} is {shape}, not {(rows, size)}")
    if not np.isfinite(vectors).all():
        raise TowerFailure(Fallback.BAD_ANSWER, f"{output} is not finite")
    return np.ascontiguousarray(vectors, dtype=np.float32)


class NoModelServer:
    """In place of a model server where there is none: the query tower runs in this process.

    Without the item tower, listings that are newer than the bundle wait.
    """

    def predict(self, name: str, inputs: Inputs, timeout: float) -> dict[str, NDArray[Any]]:
        """Raise ``TowerFailure``."""
        raise TowerFailure(Fallback.UNREACHABLE, f"{name}: there is no model server")

    def is_available(self, name: str) -> bool:
        """Nothing is served."""
        return False

    def check(self) -> None:
        """Do nothing: nobody waits for it."""

    def serve_only(self, models: Mapping[str, Path], timeout: float) -> None:
        """Load nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class EmbeddedQueries:
    """What a query tower says of B queries.

    Attributes:
        vectors: [B, D].
        repeats: [B, L] what each event of a history adds to its item's score; None where the tower
            was trained without ``repeats``.
    """

    vectors: NDArray[np.float32]
    repeats: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls, outputs: Mapping[str, NDArray[Any]], inputs: Inputs, size: int
    ) -> "EmbeddedQueries":
        """Check the outputs of a query tower with vectors of length ``size``.

        Raises:
            TowerFailure: See ``checked_vectors``.
        """
        rows, length = inputs["history_age_days"].shape
        vectors = checked_vectors(outputs, "embedding", rows, size)
        if REPEATS not in outputs:
            return cls(vectors)
        return cls(vectors, checked_vectors(outputs, REPEATS, rows, length))


class QueryEmbedder(Protocol):
    """Embeds queries, wherever it runs."""

    def embed(self, inputs: Inputs, timeout: float) -> EmbeddedQueries:
        """Embed B queries; see ``refit.features.query_inputs``.

        Raises:
            TowerFailure: It gave no usable answer in time.
        """
        ...


@dataclass(frozen=True)
class ServedQueryTower:
    """A query tower on a model server.

    Attributes:
        client: Of the model server.
        name: The tower's name there.
        size: D.
    """

    client: ModelServer
    name: str
    size: int

    def embed(self, inputs: Inputs, timeout: float) -> EmbeddedQueries:
        """Ask the model server; see ``QueryEmbedder``."""
        outputs = self.client.predict(self.name, inputs, timeout)
        return EmbeddedQueries.of(outputs, inputs, self.size)


@dataclass(frozen=True)
class OwnQueryTower:
    """A query tower in this process, which cannot be late.

    Attributes:
        tower: The tower.
        size: D.
    """

    tower: InProcessTower
    size: int

    def embed(self, inputs: Inputs, timeout: float) -> EmbeddedQueries:
        """Run it, however long it takes; see ``QueryEmbedder``."""
        try:
            outputs = self.tower.run(inputs)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TowerFailure(Fallback.REFUSED, f"{type(error).__name__}: {error}") from None
        return EmbeddedQueries.of(outputs, inputs, self.size)


def _pack(values: NDArray[Any], tensor: Any) -> None:
    """Fill a tensor with texts or numbers."""
    for size in values.shape:
        tensor.tensor_shape.dim.add(size=size)
    if values.dtype == object:
        tensor.dtype = messages.DT_STRING
        tensor.string_val.extend([str(text).encode() for text in values.ravel().tolist()])
    else:
        tensor.dtype = messages.DT_FLOAT
        tensor.tensor_content = np.asarray(values, dtype="<f4").tobytes()


def _unpack(tensor: Any, name: str) -> NDArray[np.float32]:
    """The numbers of a tensor.

    Raises:
        TowerFailure: It holds something else, or not as many as its shape says.
    """
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, dtype="<f4")
    else:
        values = np.array(tensor.float_val, dtype=np.float32)
    if tensor.dtype != messages.DT_FLOAT or len(values) != np.prod(shape, dtype=int):
        raise TowerFailure(Fallback.BAD_ANSWER, f"{name} is no tensor of float32 {shape}")
    return values.reshape(shape)


def _reason(code: Any) -> Fallback:
    return {
        grpc.StatusCode.UNAVAILABLE: Fallback.UNREACHABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED: Fallback.SLOW,
        grpc.StatusCode.NOT_FOUND: Fallback.NOT_LOADED,
        grpc.StatusCode.INVALID_ARGUMENT: Fallback.REFUSED,
    }.get(code, Fallback.UNREACHABLE)
