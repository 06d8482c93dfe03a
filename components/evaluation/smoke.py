"""Smoke test: a tower in a model server process, queried over PredictionService.

The command that starts the server is a setting (``refit.model_server``): Refit's stand-in by
default, or TensorFlow Serving where an image has it.
"""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Self

import numpy as np

from components.evaluation.results import SmokeResult
from components.evaluation.settings import EvaluationSettings
from refit.features import Inputs
from refit.model_server import fill_in
from refit.parent_watch import ParentWatch
from refit.ports import free_port
from refit.progress import timed
from refit.towers import Outputs


class SmokeTest:
    """Compares a model server's answers for one tower with those of the tower in this process.

    The server starts in the background when the test is created, and is stopped at the end of the
    context.

    Args:
        settings: The server's command and its limits.
        model: Model folder.
        tower: Name of the tower, and of its folder.
    """

    def __init__(self, settings: EvaluationSettings, model: Path, tower: str) -> None:
        self._request: Future[tuple[Inputs, Outputs]] = Future()
        self._background = ThreadPoolExecutor(1)
        self._result = self._background.submit(_run, settings, model / tower, self._request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._request.cancel()
        self._background.shutdown()

    def send(self, inputs: Inputs, expected: Outputs) -> None:
        """Send one request to the server, as soon as it is up.

        Args:
            inputs: The tower's inputs for a few queries or items.
            expected: What the tower returned in this process: [n, D] by the name of the output.
        """
        self._request.set_result((inputs, expected))

    def result(self) -> SmokeResult:
        """Wait for the comparison."""
        return self._result.result()


def _run(
    settings: EvaluationSettings, tower: Path, request: Future[tuple[Inputs, Outputs]]
) -> SmokeResult:
    if not settings.smoke_test:
        return SmokeResult(why="the settings name no model server")
    try:
        with (
            timed(f"tested the {tower.name} in a model server"),
            _server(settings.smoke_test, tower) as (process, port, output),
        ):
            inputs, expected = request.result()
            answer = _predict(
                process, port, tower.name, inputs, settings.smoke_test_seconds, output
            )
    except Exception as error:
        return SmokeResult(why=f"{type(error).__name__}: {error}")
    gaps = []
    for name, values in expected.items():
        found = answer.get(name)
        if found is None or found.shape != values.shape:
            shape = None if found is None else found.shape
            return SmokeResult(why=f"the server returned {name} {shape}, not {values.shape}")
        gaps.append(float(np.abs(found - values).max()))
    return SmokeResult(gap=max(gaps), n=min(map(len, expected.values())))


@contextmanager
def _server(
    command: tuple[str, ...], path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int, IO[bytes]]]:
    """A running model server, its port, and the file that receives its output."""
    port = free_port()
    with TemporaryFile() as output, ParentWatch() as watch:
        process = subprocess.Popen(
            fill_in(command, port, path.name, path),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        watch.watch(process.pid)
        try:
            yield process, port, output
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _predict(
    process: subprocess.Popen[bytes],
    port: int,
    name: str,
    inputs: Inputs,
    seconds: float,
    output: IO[bytes],
) -> Outputs:
    """Query the server; retried until it has loaded the model.

    Raises:
        RuntimeError: It ended, refused the request, or was not ready in time.
    """
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = "serving_default"
    for key, values in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
    until = time.monotonic() + seconds
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        while True:
            try:
                answer = stub.Predict(request, timeout=max(1.0, until - time.monotonic()))
                return {key: tf.make_ndarray(value) for key, value in answer.outputs.items()}
            except grpc.RpcError as error:
                if process.poll() is not None:
                    raise RuntimeError(f"the model server ended: {_tail(output)}") from None
                waiting = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
                if not waiting or time.monotonic() > until:
                    raise RuntimeError(f"{error.code().name}: {error.details()}") from None
            time.sleep(0.2)


def _tail(output: IO[Any]) -> str:
    output.seek(0)
    return output.read().decode(errors="replace").strip()[-500:]
