"""The real ``seldon-core-microservice`` of the serving environment, over REST and gRPC."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import grpc
import pyarrow.parquet as pq
import pytest
import requests
from google.protobuf import struct_pb2

from refit.errors import RefitError, UsageError
from refit.ports import free_port
from serving.client import RecommenderClient
from serving.launch import ServerHandle, launch
from serving.prediction_log import recover
from serving.request import RequestError
from serving.settings import ServeSettings
from tests.serving import tiny
from tests.serving.doors.listening import listener
from tests.serving.malformed import MALFORMED
from tests.serving.tiny import NEW, gone, ids


def settings(folder: Path, registry: Path, **changes: object) -> ServeSettings:
    recommender = {
        "registry": str(registry),
        "log_folder": folder / "log",
        "feeds": {"stock": str(folder / "stock")},
        "tower_deadline_ms": 2000,
        "poll_seconds": 0.2,
        "breaker_seconds": 0.2,
        "log_seconds": 0.5,
    }
    ports = dict.fromkeys(("http_port", "grpc_port", "metrics_port", "model_server_port"), 0)
    return ServeSettings.parse({"recommender": recommender, **ports, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seldon")
    (folder / "stock").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(folder, bundle):
    tiny.promote(folder / "registry", bundle)
    with launch(settings(folder, folder / "registry")) as handle:
        yield handle


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


def post(server: ServerHandle, **request: object) -> requests.Response:
    return requests.post(f"{server.url}/api/v1.0/predictions", timeout=10, **request)


def fields(message: bytes) -> list[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message; Seldon's classes are elsewhere."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 2:
            size = varint()
            found.append((key >> 3, message[at : at + size]))
            at += size
        else:
            varint()
    return found


JSON_DATA = 6
STR_DATA = 4


def grpc_call(server: ServerHandle, payload: bytes, field: int = JSON_DATA) -> dict:
    """Call Seldon's Predict with a SeldonMessage that has one field, as in its proto file."""
    size, encoded = len(payload), b""
    while size > 127:
        encoded, size = encoded + bytes([size & 127 | 128]), size >> 7
    message = bytes([field << 3 | 2]) + encoded + bytes([size]) + payload
    with grpc.insecure_channel(server.grpc_address) as channel:
        predict = channel.unary_unary("/seldon.protos.Seldon/Predict")
        response = predict(message, timeout=10)
    value = struct_pb2.Value.FromString(dict(fields(response))[JSON_DATA])
    from google.protobuf import json_format

    return json_format.MessageToDict(value)


def as_value(body: object) -> bytes:
    from google.protobuf import json_format

    return json_format.ParseDict(body, struct_pb2.Value()).SerializeToString()


def test_rest_and_grpc_give_the_same_answer(server, client, bundle):
    answer = client.recommend(user_id="user-3", context={"occasion": "party"}, k=5)
    assert len(ids(answer)) == 5
    assert answer["bundle_id"] == bundle.bundle_id
    assert answer["fallback"] is None
    body = {"user_id": "user-3", "context": {"occasion": "party"}, "k": 5}
    assert ids(grpc_call(server, as_value(body))) == ids(answer)
    assert ids(post(server, json=body).json()["jsonData"]) == ids(answer), "bare JSON does as well"
    assert requests.post(f"{server.url}/predict", json={"jsonData": body}, timeout=10).ok


def test_every_kind_of_request_passes_rest_and_grpc(server):
    single = {"user_id": "user-3", "k": 3, "explain": True, "cursor": ""}
    kinds = [
        ({"requests": [single, {"k": 2, "personalised": False}]}, lambda a: a["answers"][0]),
        ({"item_id": "item-7", "k": 3}, lambda a: a),
        (single, lambda a: a),
    ]
    for body, first in kinds:
        answers = [post(server, json=body).json()["jsonData"], grpc_call(server, as_value(body))]
        assert len(ids(first(answers[0]))) == 3
        assert ids(first(answers[0])) == ids(first(answers[1]))
        assert answers[0]["bundle_id"] == answers[1]["bundle_id"]
    assert answers[0]["cursor"]
    assert answers[0]["items"][0]["why"]["source"] == "towers"


RAW = [
    {},
    {"data": ""},
    {"data": b"\xff\xfe", "headers": {"Content-Type": "application/json"}},
    {"data": '{"user_id": ', "headers": {"Content-Type": "application/json"}},
    {"data": "[" * 100_000, "headers": {"Content-Type": "application/json"}},
    {"data": '{"k": ' + "9" * 5000 + "}", "headers": {"Content-Type": "application/json"}},
    {"data": '{"k": NaN}', "headers": {"Content-Type": "application/json"}},
    {"data": "{}", "headers": {"Content-Type": "text/plain"}},
    {"data": {"json": "{no json"}},
    {"data": {"json": "{}"}},
    {"files": {"strData": b"\xff"}},
    {"files": {"jsonData": b"{"}},
    {"json": {}, "params": {"json": "{no json"}},
    {"json": {"jsonData": {"user_id": "u" * (2 << 20)}}},
    {"json": {"jsonData": None}},
    {"json": {"data": {"ndarray": [[1, 2]]}}},
    {"json": {"strData": "user"}},
    {"json": 5},
    {"json": "text"},
]


@pytest.mark.parametrize("number", range(len(RAW)))
def test_an_invalid_body_is_answered_400_with_a_reason(server, number):
    response = post(server, **RAW[number])
    assert response.status_code == 400, response.text
    assert response.json()["status"]["info"]


def test_every_malformed_request_is_400_or_invalid_argument_with_a_reason(server, bundle):
    for body, named in MALFORMED:
        text = json.dumps({"jsonData": body})
        headers = {"Content-Type": "application/json"}
        response = post(server, data=text, headers=headers)
        assert response.status_code == 400, (body, response.text)
        assert named in response.json()["status"]["info"]
        if "\\ud800" in text or "Infinity" in text or "NaN" in text or "0" * 300 in text:
            continue  # protobuf itself cannot carry these
        with pytest.raises(grpc.RpcError) as error:
            grpc_call(server, as_value(body))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert named in error.value.details()
    with pytest.raises(grpc.RpcError) as error:
        grpc_call(server, b"text", STR_DATA)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for body in (
        {"require": {"colour": ["red"]}},
        {"context": {"age": "old"}},
        {"time": tiny.AS_OF.isoformat()},
    ):
        assert post(server, json=body).status_code == 400


def test_the_client_raises_the_reason_of_a_refusal(client):
    with pytest.raises(RequestError, match="known ones: brand"):
        client.recommend(require={"colour": ["red"]})


def test_an_unknown_path_is_answered_404(server):
    assert requests.get(f"{server.url}/nothing", timeout=10).status_code == 404


def test_metrics_are_exported_by_seldon(server, client, until):
    names = ("refit_requests_total", "refit_latency_bucket", "refit_bundle_in_service")

    def are_there() -> bool:
        client.recommend()  # metrics go with answers, though not with every one
        text = requests.get(server.metrics_url, timeout=10).text
        return all(name in text for name in names)

    until(are_there)


def test_stock_changes_reach_rest_and_grpc(server, client, folder, until):
    lines = [json.dumps(gone("item-1")), json.dumps(NEW)]
    (folder / "stock" / "feed.jsonl").write_text("\n".join(lines) + "\n")

    def has_changed(shown: list[str]) -> bool:
        return "item-1" not in shown and "new-1" in shown

    until(lambda: has_changed(ids(client.recommend(k=500))))
    until(lambda: has_changed(ids(grpc_call(server, as_value({"k": 500})))))


def test_answers_continue_while_the_model_server_restarts(server, client, until):
    os.killpg(server.model_server.pid, signal.SIGKILL)
    until(lambda: client.recommend()["fallback"] is not None)
    answer = client.recommend(context={"occasion": "party"}, k=3)
    assert answer["fallback"] in ("tower_unreachable", "breaker_open")
    assert ids(answer)[0] == "item-0"
    assert client.status()["towers"] != "available"
    until(lambda: not server.model_server.is_running())
    assert "refit_fallbacks_total{" in requests.get(server.metrics_url, timeout=10).text
    server.tend()
    assert server.model_server.is_running()
    until(lambda: client.recommend()["fallback"] is None)
    until(lambda: grpc_call(server, as_value({}))["fallback"] is None)
    before = server.model_server.pid
    server.tend()
    assert server.model_server.pid == before


def test_probes_see_that_the_grpc_process_is_gone_and_it_is_started_again(server, client, until):
    assert requests.get(f"{server.url}/health/alive", timeout=10).ok
    os.kill(listener(server.settings.grpc_port), signal.SIGKILL)

    def statuses() -> set[int]:
        paths = ("/health/alive", "/health/status")
        return {requests.get(f"{server.url}{path}", timeout=10).status_code for path in paths}

    until(lambda: statuses() == {503})
    assert client.recommend()["bundle_id"], "REST answers meanwhile"
    server.tend()
    until(lambda: is_ready(client), 60)
    until(lambda: grpc_call(server, as_value({}))["fallback"] is None)
    server.tend()


def is_ready(client: RecommenderClient) -> bool:
    try:
        return bool(client.status())
    except RefitError:
        return False


def test_a_new_champion_takes_over_without_a_failed_request(
    server, folder, bundle, other_bundle, until
):
    stop, seen, failures = threading.Event(), {"rest": [], "grpc": []}, []

    def ask(kind: str) -> None:
        with RecommenderClient(server.url) as client:
            while not stop.is_set():
                try:
                    body = {"user_id": "user-2", "k": 5}
                    answer = (
                        client.recommend(**body)
                        if kind == "rest"
                        else grpc_call(server, as_value(body))
                    )
                    seen[kind].append((answer["bundle_id"], answer["fallback"]))
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask, args=(k,)) for k in ("rest", "rest", "grpc")]
    for thread in threads:
        thread.start()
    try:
        until(lambda: all(len(answers) > 10 for answers in seen.values()))
        tiny.promote(folder / "registry", other_bundle)
        new = (other_bundle.bundle_id, None)
        until(lambda: all(answers[-1] == new for answers in seen.values()), 60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    for answers in seen.values():
        assert set(answers) == {(bundle.bundle_id, None), new}


def test_stopping_writes_the_log_and_leaves_no_process(tmp_path, bundle, other_bundle):
    """One of two servers is stopped and one is killed; both logs are complete."""
    tiny.promote(tmp_path / "registry", bundle)
    (tmp_path / "stock").mkdir()
    log = tmp_path / "log"
    sent = []
    for how in ("stop", "kill"):
        with launch(settings(tmp_path, tmp_path / "registry")) as server, server.client() as client:
            for _ in range(20):
                sent.append(client.recommend()["request_id"])
                sent.append(grpc_call(server, as_value({}))["request_id"])
            if how == "kill":
                time.sleep(0.3)  # more than the queue's milliseconds, less than a part's seconds
                os.killpg(server.door.pid, signal.SIGKILL)
        with pytest.raises(ProcessLookupError):
            os.killpg(server.door.pid, 0)
    recover(log)
    parts = list(log.glob("date=*/*.parquet"))
    logged = [name for part in parts for name in pq.read_table(part)["request_id"].to_pylist()]
    assert sorted(logged) == sorted(sent)


def test_launch_errors_are_clear(tmp_path, bundle):
    registry = tmp_path / "registry"
    with pytest.raises(UsageError, match="no champion"):
        launch(settings(tmp_path, registry))
    with pytest.raises(UsageError, match="serving environment is missing"):
        launch(settings(tmp_path, registry, python="/nowhere/bin/python"))
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} for grpc cannot be used"):
            launch(settings(tmp_path, registry, grpc_port=port))
    port = free_port()
    with pytest.raises(UsageError, match="cannot share a port"):
        launch(settings(tmp_path, registry, grpc_port=port, http_port=port))
    tiny.promote(registry, bundle)
    (registry / "bundles" / bundle.bundle_id / "index" / "vectors.npy").write_bytes(b"changed")
    with pytest.raises(RefitError, match="does not match its checksum"):
        launch(settings(tmp_path, registry))
