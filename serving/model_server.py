"""A local stand-in for ``tensorflow/serving``: SavedModels behind its gRPC API.

It implements the parts of PredictionService and ModelService that Refit uses, with TensorFlow
Serving's protocol buffers, status codes and model states, so that the real server can replace it
without a change of the client::

    python -m serving.model_server --port 8500 --model query_tower=/models/query_tower

replaces::

    tensorflow_model_server --port=8500 --model_config_file=models.config

It has no batching, no version policies (the highest version folder is served), no polling for new
versions, and no REST API.
"""

import argparse
import gc
import math
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit.errors import RefitError, UsageError
from refit.ports import check_port, free_port
from refit.progress import log_message, set_up_logging
from refit.towers import import_tensorflow

SIGNATURE = "serving_default"
FLOAT, STRING = 1, 7
"""TensorFlow's numbers of these types."""


class ServedModel:
    """One loaded version of a model, run in a session, as TensorFlow Serving does.

    Args:
        name: Its name.
        version: Its version.
        path: Its SavedModel.

    Attributes:
        inputs, outputs: TensorFlow's ``TensorInfo`` of each by its name.
    """

    def __init__(self, name: str, version: int, path: Path) -> None:
        tf = import_tensorflow()
        self.name, self.version, self.path = name, version, path
        graph = tf.Graph()
        # A single query is too small for several threads; requests run in parallel instead, each
        # on the thread that it came on: that is what less than 0 means.
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=-1
        )
        session = tf.compat.v1.Session(graph=graph, config=config)
        with graph.as_default():
            saved = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        signature = saved.signature_def[SIGNATURE]
        self.inputs, self.outputs = dict(signature.inputs), dict(signature.outputs)
        self._run = session.make_callable(
            [graph.get_tensor_by_name(one.name) for one in self.outputs.values()],
            feed_list=[graph.get_tensor_by_name(one.name) for one in self.inputs.values()],
        )

    def predict(self, tensors: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Run the serving signature on ``TensorProto`` messages by name.

        Raises:
            ValueError, TypeError, tensorflow.errors.OpError: An input is not what the model takes.
        """
        if set(tensors) != set(self.inputs):
            raise ValueError(
                f"inputs are {sorted(tensors)}, {self.name} needs {sorted(self.inputs)}"
            )
        given = [_read(name, tensors[name], info) for name, info in self.inputs.items()]
        return dict(zip(self.outputs, self._run(*given), strict=True))


def _read(name: str, tensor: Any, info: Any) -> NDArray[Any]:
    """The array in a message.

    Raises:
        ValueError: It has another type or shape than the model's input.
    """
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    wanted = tuple(dim.size for dim in info.tensor_shape.dim)
    fits = len(shape) == len(wanted) and all(
        size in (-1, given) for size, given in zip(wanted, shape, strict=True)
    )
    if tensor.dtype != info.dtype or not fits:
        raise ValueError(
            f"{name} has type {tensor.dtype} and shape {shape}, not {info.dtype} and {wanted}"
        )
    if tensor.dtype == FLOAT and tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype="<f4").reshape(shape)
    if tensor.dtype == STRING and len(tensor.string_val) == math.prod(shape):
        return np.array(list(tensor.string_val), dtype=object).reshape(shape)
    array: NDArray[Any] = import_tensorflow().make_ndarray(tensor)
    return array


def _write(array: NDArray[Any], tensor: Any) -> None:
    """Fill a message with an array."""
    if array.dtype != np.float32:
        tensor.CopyFrom(import_tensorflow().make_tensor_proto(array))
        return
    tensor.dtype, tensor.tensor_content = FLOAT, array.tobytes()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)


class ModelStore:
    """The served models; replaced atomically, so that no request sees a partial reload."""

    def __init__(self) -> None:
        self._models: dict[str, ServedModel] = {}
        self._failed: dict[str, str] = {}
        self._reloading = threading.Lock()

    def get(self, name: str) -> ServedModel | None:
        """Look up a served model."""
        return self._models.get(name)

    def failure(self, name: str) -> str | None:
        """The reason why the last load of a model failed; None if it did not."""
        return self._failed.get(name)

    def reload(self, base_paths: Mapping[str, Path]) -> None:
        """Serve exactly these models; models that are loaded already are kept.

        Raises:
            RefitError: A model cannot be loaded; the others are served.
        """
        with self._reloading:
            models: dict[str, ServedModel] = {}
            failed: dict[str, str] = {}
            for name, base_path in base_paths.items():
                try:
                    models[name] = self._load(name, base_path)
                except Exception as error:  # any broken SavedModel, in TensorFlow's many ways
                    failed[name] = f"{type(error).__name__}: {error}"
            self._models, self._failed = models, failed
        if failed:
            faults = "; ".join(f"{name}: {why}" for name, why in failed.items())
            raise RefitError(f"cannot load {faults}")

    def _load(self, name: str, base_path: Path) -> ServedModel:
        version = _latest_version(base_path)
        served = self._models.get(name)
        if served and served.version == version:
            return served
        path = base_path / str(version)
        model = ServedModel(name, version, path)
        log_message(f"serving {name} version {version} from {path}")
        return model


def _latest_version(base_path: Path) -> int:
    versions = [int(path.name) for path in base_path.glob("*") if path.name.isdecimal()]
    if not versions:
        raise RefitError(f"{base_path} has no version folder such as {base_path / '1'}")
    return max(versions)


def build_server(store: ModelStore, address: str, threads: int = 4) -> tuple[Any, int]:
    """Build a gRPC server for ``store``; return it, not started yet, and its port.

    Raises:
        UsageError: The address is in use, or is not an address of this machine.
    """
    import grpc
    from tensorflow_serving.apis import (
        model_service_pb2_grpc,
        prediction_service_pb2_grpc,
    )

    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=threads),
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 64 << 20)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(store), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(store), server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        raise UsageError(f"cannot listen on {address}: the port is in use; choose another one")
    return server, port


class PredictionService:
    """TensorFlow Serving's PredictionService: Predict and GetModelMetadata."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - the API's name
        """Run a model's serving signature; wrong inputs answer INVALID_ARGUMENT."""
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        model = self._find(request.model_spec.name, context)
        try:
            outputs = model.predict(request.inputs)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:1000])
        response = predict_pb2.PredictResponse()
        self._name(response.model_spec, model)
        for name in request.output_filter or outputs:
            _write(outputs[name], response.outputs[name])
        return response

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the API's name
        """Return the signatures of a model's SavedModel."""
        from tensorflow.core.protobuf import saved_model_pb2
        from tensorflow_serving.apis import get_model_metadata_pb2

        model = self._find(request.model_spec.name, context)
        saved = saved_model_pb2.SavedModel.FromString((model.path / "saved_model.pb").read_bytes())
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in saved.meta_graphs[0].signature_def.items():
            signatures.signature_def[name].CopyFrom(definition)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        self._name(response.model_spec, model)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def Classify(self, request: Any, context: Any) -> None:  # noqa: N802 - the API's name
        """Not implemented."""
        self._refuse(context)

    def Regress(self, request: Any, context: Any) -> None:  # noqa: N802 - the API's name
        """Not implemented."""
        self._refuse(context)

    def MultiInference(self, request: Any, context: Any) -> None:  # noqa: N802 - the API's name
        """Not implemented."""
        self._refuse(context)

    def _find(self, name: str, context: Any) -> ServedModel:
        import grpc

        model = self._store.get(name)
        if model is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {name}")
            raise AssertionError("abort raises")
        return model

    def _name(self, spec: Any, model: ServedModel) -> None:
        spec.name = model.name
        spec.version.value = model.version
        spec.signature_name = SIGNATURE

    def _refuse(self, context: Any) -> None:
        import grpc

        context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server implements Predict only")


class ModelService:
    """TensorFlow Serving's ModelService: GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802 - the API's name
        """Return AVAILABLE for a loaded model, or END with the reason why loading failed."""
        import grpc
        from tensorflow_serving.apis import get_model_status_pb2

        name = request.model_spec.name
        model, failure = self._store.get(name), self._store.failure(name)
        response = get_model_status_pb2.GetModelStatusResponse()
        state = get_model_status_pb2.ModelVersionStatus.State
        if model:
            response.model_version_status.add(version=model.version, state=state.AVAILABLE)
        elif failure:
            status = response.model_version_status.add(version=0, state=state.END)
            status.status.error_code = grpc.StatusCode.UNKNOWN.value[0]
            status.status.error_message = failure
        else:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        return response

    def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Serve exactly the models of model_config_list; answer once they are loaded."""
        import grpc
        from tensorflow_serving.apis import model_management_pb2

        configs = request.config.model_config_list.config
        try:
            self._store.reload({config.name: Path(config.base_path) for config in configs})
        except RefitError as error:
            log_message(str(error))
            context.abort(grpc.StatusCode.UNKNOWN, str(error)[:1000])
        return model_management_pb2.ReloadConfigResponse()


def smoke_test(model_folder: Path, python: Path | None = None, seconds: float = 120.0) -> None:
    """Load both towers into a new model server and query them as the recommender does.

    Args:
        model_folder: A model or bundle folder: query_tower/, item_tower/, features.json.
        python: Python that runs the server; None uses the running one.
        seconds: Timeout of the start, and of loading.

    Raises:
        RefitError: A tower cannot be loaded, or its output cannot be served.
    """
    from serving.processes import Process
    from serving.towers import TowerClient

    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        server = Process(
            "model server",
            [str(python or sys.executable), "-m", "serving.model_server", "--port", str(port)],
            Path(folder) / "model_server.log",
            {"CUDA_VISIBLE_DEVICES": "-1"},
        )
        try:
            server.wait_until(lambda: "model server listens" in server.output(), seconds)
            client = TowerClient(f"127.0.0.1:{port}")
            query_towers(client, model_folder, seconds)
            client.close()
        finally:
            server.stop()


def query_towers(client: Any, model_folder: Path, seconds: float) -> None:
    """Make a model server load the towers of a model folder, and check their outputs.

    Args:
        client: A ``serving.towers.TowerClient``.
        model_folder: As for ``smoke_test``.
        seconds: Timeout of loading, and of each query.

    Raises:
        RefitError: As for ``smoke_test``.
    """
    from refit.features import FeaturesManifest, item_inputs, query_inputs

    folder = model_folder.resolve()
    client.serve_only(
        {"query_tower": folder / "query_tower", "item_tower": folder / "item_tower"}, seconds
    )
    features = FeaturesManifest.read(folder)
    spec, rows, length = features.spec, 3, features.spec.history_length
    names = ("item_id", *spec.item_categorical, *spec.item_text, *spec.item_numeric)
    columns: dict[str, Any] = {name: [None] * rows for name in names}
    if spec.item_vector:
        columns[spec.item_vector] = np.zeros((rows, features.vector_size), dtype=np.float32)
    ages = np.zeros(rows, dtype=np.float32)
    popularity = np.zeros((rows, features.popularity_size), dtype=np.float32)
    items = client.predict("item_tower", item_inputs(spec, columns, ages, popularity), seconds)
    content = _vectors(items, "content", rows)
    queries = query_inputs(
        spec,
        {name: [None] * rows for name in (*spec.context_categorical, *spec.context_numeric)},
        {name: [None] * rows for name in (*spec.user_categorical, *spec.user_numeric)},
        np.repeat(content[:, None], length, axis=1),
        [["view"] * length] * rows,
        np.zeros((rows, length), dtype=np.float32),
    )
    query_vectors = _vectors(client.predict("query_tower", queries, seconds), "embedding", rows)
    item_vectors = _vectors(items, "embedding", rows)
    if query_vectors.shape != item_vectors.shape:
        raise RefitError(
            f"the towers do not match: query embeddings are {query_vectors.shape}, item embeddings "
            f"{item_vectors.shape}"
        )


def _vectors(outputs: Mapping[str, Any], name: str, rows: int) -> Any:
    from serving.towers import checked_vectors

    size = outputs[name].shape[-1] if name in outputs and outputs[name].ndim == 2 else 0
    return checked_vectors(outputs, name, rows, size)


def main(arguments: list[str] | None = None) -> None:
    """Serve until a signal arrives; a RefitError ends it with its message and exit code."""
    parser = argparse.ArgumentParser(prog="serving.model_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8500)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--model_config_file", type=Path, help="as TensorFlow Serving reads it")
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args(arguments)
    set_up_logging()
    try:
        _serve(options)
    except RefitError as error:
        log_message(f"error: {error}")
        sys.exit(error.exit_code)


def _serve(options: argparse.Namespace) -> None:
    # Checked first, because importing TensorFlow takes seconds.
    check_port(options.port, "the model server", "--port", options.host)
    import_tensorflow()
    store = ModelStore()
    server, port = build_server(store, f"{options.host}:{options.port}", options.threads)
    store.reload(_models_of(options))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server.start()
    log_message(f"model server listens on {options.host}:{port}")
    stop.wait()
    server.stop(grace=2.0).wait()
    gc.freeze()  # else the end of the process goes through all of TensorFlow's objects once more


def _models_of(options: argparse.Namespace) -> dict[str, Path]:
    from serving.fetch import read_models_config

    models = dict(_named_path(model) for model in options.model)
    if options.model_config_file:
        try:
            text = options.model_config_file.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--model_config_file cannot be read: {error}") from None
        models |= read_models_config(text)
    return models


def _named_path(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise UsageError(f"--model needs NAME=PATH, got {text!r}")
    return name, Path(path)


if __name__ == "__main__":
    main()
