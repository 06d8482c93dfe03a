import shutil
import socket
import subprocess
import sys

import grpc
import numpy as np
import pytest

from refit.errors import RefitError, ServiceUnreachable
from refit.features import query_inputs
from refit.ports import free_port
from serving.model_server import query_towers, smoke_test
from serving.towers import Breaker, Fallback, TowerClient, TowerFailure
from tests.serving import tiny


@pytest.fixture
def client(model_server):
    client = TowerClient(model_server)
    yield client
    client.close()


def queries(rows: int = 2) -> dict:
    length = tiny.SPEC.history_length
    return query_inputs(
        tiny.SPEC,
        {"occasion": ["party", None][:rows], "age": [30.0, None][:rows]},
        {"city": [None] * rows},
        np.zeros((rows, length, tiny.C), np.float32),
        [[""] * length] * rows,
        np.zeros((rows, length), np.float32),
    )


def test_a_config_loads_and_unloads_models(client, model):
    client.serve_only({"q": model / "query_tower", "i": model / "item_tower"}, 60)
    assert client.is_available("q")
    vectors = client.embed("q", queries(), tiny.D, 10)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    client.serve_only({"q": model / "query_tower"}, 60)
    assert not client.is_available("i")
    np.testing.assert_array_equal(client.embed("q", queries(), tiny.D, 10), vectors)


def test_an_unknown_model_is_not_loaded(client):
    with pytest.raises(TowerFailure) as failure:
        client.predict("nobody", queries(), 10)
    assert failure.value.reason is Fallback.NOT_LOADED


def test_a_broken_model_is_refused_and_the_others_are_served(client, model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model / "query_tower", broken)
    (broken / "1" / "saved_model.pb").write_bytes(b"this is no model")
    with pytest.raises(RefitError, match="broken_tower"):
        client.serve_only({"q": model / "query_tower", "broken_tower": broken}, 60)
    assert client.is_available("q")
    assert not client.is_available("broken_tower")


def test_an_empty_folder_is_refused(client, tmp_path):
    with pytest.raises(RefitError, match="no version folder"):
        client.serve_only({"empty": tmp_path}, 60)


def test_wrong_inputs_are_refused(client, model):
    client.serve_only({"q": model / "query_tower"}, 60)
    for change in (
        lambda inputs: inputs.pop("context_age"),
        lambda inputs: inputs.update(more=np.zeros(2, np.float32)),
        lambda inputs: inputs.update(context_age=np.array(["x", "y"], dtype=object)),
        lambda inputs: inputs.update(history_content=np.zeros((2, 5, tiny.C + 1), np.float32)),
    ):
        inputs = queries()
        change(inputs)
        with pytest.raises(TowerFailure) as failure:
            client.predict("q", inputs, 10)
        assert failure.value.reason is Fallback.REFUSED


def test_a_wrong_size_or_output_is_a_bad_answer(client, model):
    client.serve_only({"q": model / "query_tower"}, 60)
    for size, output in ((tiny.D + 1, "embedding"), (tiny.D, "content")):
        with pytest.raises(TowerFailure) as failure:
            client.embed("q", queries(), size, 10, output)
        assert failure.value.reason is Fallback.BAD_ANSWER


def test_signatures_are_returned_as_by_tensorflow_serving(client, model):
    from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc

    client.serve_only({"q": model / "query_tower"}, 60)
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "q"
    with grpc.insecure_channel(client.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        metadata = stub.GetModelMetadata(request, timeout=10).metadata["signature_def"]
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert metadata.Unpack(signatures)
    assert set(signatures.signature_def["serving_default"].inputs) == set(queries())


def test_a_missing_server_is_unreachable_at_once():
    client = TowerClient(f"127.0.0.1:{free_port()}")
    with pytest.raises(ServiceUnreachable, match="is it running"):
        client.is_available("q")
    with pytest.raises(TowerFailure) as failure:
        client.predict("q", queries(), 10)
    assert failure.value.reason is Fallback.UNREACHABLE


def test_a_silent_server_is_slow():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = TowerClient(f"127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(TowerFailure) as failure:
            client.predict("q", queries(), 0.2)
    assert failure.value.reason in (Fallback.SLOW, Fallback.UNREACHABLE)


def test_a_port_in_use_ends_the_server_with_a_clear_message(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "serving.model_server", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 2
    assert f"port {port} for the model server cannot be used" in done.stderr


def test_the_smoke_test_passes_a_good_model(model):
    smoke_test(model)


def test_the_smoke_test_fails_a_model_with_nan_outputs(client, tmp_path):
    bad = tiny.make_model(tmp_path / "bad", seed=3, nan_queries=True)
    with pytest.raises(RefitError, match="not finite"):
        query_towers(client, bad, 60)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_breaker_opens_lets_one_call_through_and_closes():
    clock = Clock()
    breaker = Breaker(failures=2, seconds=5, clock=clock)
    breaker.failed()
    assert breaker.allows(), "one failure is no pattern"
    breaker.failed()
    assert not breaker.allows()
    clock.now += 5
    assert breaker.allows(), "one try"
    assert not breaker.allows(), "and no second beside it"
    breaker.failed()
    clock.now += 4
    assert not breaker.allows()
    clock.now += 1
    assert breaker.allows()
    breaker.succeeded()
    assert all(breaker.allows() for _ in range(5))
