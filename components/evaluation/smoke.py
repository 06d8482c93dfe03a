"""Smoke test: the query tower in a model server of its own process, over PredictionService.

The command that starts the server is a setting: a laptop uses Refit's stand-in, an image that
holds TensorFlow Serving uses that.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Self

import numpy as np

from components.evaluation.data import Floats
from components.evaluation.results import SmokeResult
from components.evaluation.settings import EvaluationSettings
from refit.features import Inputs
from refit.progress import timed

MODEL_NAME = "query_tower"


class SmokeTest:
    """A real model server that is asked for query vectors, held against the model's own.

    It needs seconds to start and does so in the background, from here on; leaving the context ends
    it.

    Args:
        settings: Holds the command and its limits.
        model: Model folder.
    """

    def __init__(self, settings: EvaluationSettings, model: Path) -> None:
        self._asked: Future[tuple[Inputs, Floats]] = Future()
        self._background = ThreadPoolExecutor(1)
        self._result = self._background.submit(_run, settings, model, self._asked)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._asked.cancel()
        self._background.shutdown()

    def ask(self, inputs: Inputs, expected: Floats) -> None:
        """Have the server asked, once.

        Args:
            inputs: Query tower inputs of a few queries.
            expected: [n, D] what the tower answered in this process.
        """
        self._asked.set_result((inputs, expected))

    def result(self) -> SmokeResult:
        """How the server answered; waits for it."""
        return self._result.result()


def _run(
    settings: EvaluationSettings, model: Path, asked: Future[tuple[Inputs, Floats]]
) -> SmokeResult:
    if not settings.smoke_test:
        return SmokeResult(why="the settings name no model server")
    try:
        with (
            timed("tried the model in a model server"),
            _server(settings.smoke_test, model / MODEL_NAME) as (process, port, said),
        ):
            inputs, expected = asked.result()
            answer = _ask(process, port, inputs, settings.smoke_test_seconds, said)
    except Exception as error:
        return SmokeResult(why=f"{type(error).__name__}: {error}")
    if answer.shape != expected.shape:
        return SmokeResult(why=f"the server answered {answer.shape}, not {expected.shape}")
    return SmokeResult(gap=float(np.abs(answer - expected).max()), n=len(expected))


@contextmanager
def _server(
    command: tuple[str, ...], path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int, IO[bytes]]]:
    port = _free_port()
    values = {
        "python": sys.executable,
        "port": port,
        "name": MODEL_NAME,
        "path": path.resolve(),
    }
    with TemporaryFile() as said:
        process = subprocess.Popen(
            [part.format(**values) for part in command], stdout=said, stderr=said
        )
        try:
            yield process, port, said
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ask(
    process: subprocess.Popen[bytes], port: int, inputs: Inputs, seconds: float, said: IO[bytes]
) -> Floats:
    """Ask until the server is up; it may need a while to load the model."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL_NAME
    request.model_spec.signature_name = "serving_default"
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    until = time.monotonic() + seconds
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        while True:
            try:
                answer = stub.Predict(request, timeout=max(1.0, until - time.monotonic()))
                return tf.make_ndarray(answer.outputs["embedding"])
            except grpc.RpcError as error:
                if process.poll() is not None:
                    raise RuntimeError(f"the model server ended: {_tail(said)}") from None
                waiting = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
                if not waiting or time.monotonic() > until:
                    raise RuntimeError(f"{error.code().name}: {error.details()}") from None
            time.sleep(0.2)


def _tail(said: IO[Any]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace").strip()[-500:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
