"""The plain door as ``refit serve`` starts it: supervisor, worker, model server, real sockets."""

import asyncio
import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import grpc
import pyarrow.parquet as pq
import pytest
import requests

from refit.errors import RefitError, ServiceUnreachable, UsageError
from serving.client import Credentials, GrpcRecommenderClient, RecommenderClient
from serving.doors.protocol import inference_pb2 as messages
from serving.doors.supervisor import ALIVE, READY, WorkerProcess
from serving.launch import ServerHandle, launch
from serving.prediction_log import recover
from serving.request import PastEvent, Request, RequestError
from serving.settings import PlainServerSettings, ServeSettings
from tests.serving import tiny
from tests.serving.doors.running import make_certificates
from tests.serving.malformed import MALFORMED
from tests.serving.tiny import NEW, gone, ids

TOKEN = "correct-horse-battery-staple"
INFER = "/inference.GRPCInferenceService/ModelInfer"


def settings(folder, registry, **changes) -> ServeSettings:
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
    given = {"recommender": recommender, "door": "plain", **ports, **changes}
    return ServeSettings.parse(given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    (folder / "stock").mkdir()
    (folder / "tokens").write_text(TOKEN)
    return folder


@pytest.fixture(scope="module")
def server(folder, bundle):
    tiny.promote(folder / "registry", bundle)
    plain = {"token_file": str(folder / "tokens"), "stuck_seconds": 4.0, "body_seconds": 2.0}
    with launch(settings(folder, folder / "registry", plain=plain)) as handle:
        yield handle


CREDENTIALS = Credentials(token=TOKEN)


@pytest.fixture
def client(server):
    with RecommenderClient(server.url, credentials=CREDENTIALS) as client:
        yield client


@pytest.fixture
def grpc_client(server):
    with GrpcRecommenderClient(server.grpc_address, credentials=CREDENTIALS) as client:
        yield client


def probe(server: ServerHandle, path: str) -> requests.Response:
    base = server.metrics_url.removesuffix("/metrics")
    return requests.get(f"{base}{path}", timeout=10)


def metric(server: ServerHandle, name: str) -> float:
    """Of all workers, added up over labels."""
    lines = probe(server, "/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def call(server: ServerHandle, method: str, message: object, **options):
    with grpc.insecure_channel(server.grpc_address) as channel:
        send = channel.unary_unary(
            method, lambda one: one if isinstance(one, bytes) else one.SerializeToString()
        )
        metadata = (("authorization", f"Bearer {options.pop('token', TOKEN)}"),)
        return send(message, timeout=10, metadata=metadata, **options)


def inference(*texts: str, model: str = "refit", **named) -> messages.ModelInferRequest:
    message = messages.ModelInferRequest(model_name=model, **named)
    tensor = message.inputs.add(name="request", datatype="BYTES", shape=[len(texts)])
    tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    return message


def workers(server: ServerHandle) -> list[int]:
    children = Path(f"/proc/{server.door.pid}/task/{server.door.pid}/children")
    return [int(pid) for pid in children.read_text("ascii").split()]


def test_rest_and_grpc_give_the_same_answer(server, client, grpc_client, bundle):
    body = {"user_id": "user-3", "context": {"occasion": "party"}, "k": 5}
    answer = client.recommend(**body)
    assert len(ids(answer)) == 5
    assert (answer["bundle_id"], answer["fallback"]) == (bundle.bundle_id, None)
    typed = Request(user_id="user-3", context={"occasion": "party"}, k=5)
    for one in (client.ask(typed), grpc_client.ask(typed)):
        assert [item.item_id for item in one.items] == ids(answer)
    event = PastEvent.model_validate(
        {"item_id": "item-7", "event_type": "like", "event_time": tiny.EARLIER}
    )
    with_history = Request(history=[event], require={"brand": ["acne"]}, k=5)
    assert client.ask(with_history).items == grpc_client.ask(with_history).items
    assert client.status()["live_items"] == tiny.N_LIVE


def test_the_protocol_over_grpc(server, bundle):
    service = "/inference.GRPCInferenceService"
    live = call(server, f"{service}/ServerLive", b"", token="")
    assert messages.ServerLiveResponse.FromString(live).live
    assert messages.ServerReadyResponse.FromString(
        call(server, f"{service}/ServerReady", b"")
    ).ready
    named = messages.ModelMetadataRequest(name="refit")
    model = messages.ModelMetadataResponse.FromString(
        call(server, f"{service}/ModelMetadata", named)
    )
    assert (list(model.versions), model.inputs[0].datatype) == ([bundle.bundle_id], "BYTES")
    ready = call(server, f"{service}/ModelReady", messages.ModelReadyRequest(name="refit"))
    assert messages.ModelReadyResponse.FromString(ready).ready
    raw = inference(model_version=bundle.bundle_id, id="7")
    raw.inputs[0].shape[:] = [2]
    text = json.dumps({"k": 4}).encode()
    raw.raw_input_contents.append((len(text).to_bytes(4, "little") + text) * 2)
    got = messages.ModelInferResponse.FromString(call(server, INFER, raw))
    assert (got.id, got.model_version, len(got.raw_output_contents)) == ("7", bundle.bundle_id, 1)
    size = int.from_bytes(got.raw_output_contents[0][:4], "little")
    assert len(json.loads(got.raw_output_contents[0][4 : 4 + size])["items"]) == 4
    # gRPC's health service: an empty request asks for the server, and SERVING is 1.
    assert call(server, "/grpc.health.v1.Health/Check", b"", token="") == b"\x08\x01"


def test_grpc_refuses_with_a_status_and_a_reason(server, grpc_client):
    code = grpc.StatusCode
    broken = inference("{}")
    broken.raw_input_contents.append(b"\x09\x00\x00\x00{}")
    broken.inputs[0].ClearField("contents")
    wrong = [
        (inference("{}"), {"token": "no"}, code.UNAUTHENTICATED),
        (inference("{}", model="other"), {}, code.NOT_FOUND),
        (inference("{}", model_version="old"), {}, code.NOT_FOUND),
        (inference("{"), {}, code.INVALID_ARGUMENT),
        (inference(*["{}"] * 65), {}, code.INVALID_ARGUMENT),
        (inference('{"exclude": ["' + "x" * (2 << 20) + '"]}'), {}, code.RESOURCE_EXHAUSTED),
        (broken, {}, code.INVALID_ARGUMENT),
        (b"\xff\xff", {}, code.INVALID_ARGUMENT),
        *(
            (inference(json.dumps(body)), {}, code.INVALID_ARGUMENT)
            for body, _ in MALFORMED
            if len(json.dumps(body)) < 100_000
        ),
    ]
    for message, options, expected in wrong:
        with pytest.raises(grpc.RpcError) as error:
            call(server, INFER, message, **options)
        assert error.value.code() is expected, (message, error.value)
        assert error.value.details()
    with pytest.raises(RequestError, match="known ones: brand"):
        grpc_client.ask(Request(require={"colour": ["red"]}))


def test_slow_senders_over_grpc_change_nothing_for_others(server, grpc_client):
    def never():
        threading.Event().wait(30)
        yield b""

    def seconds() -> float:
        started = time.monotonic()
        grpc_client.ask(Request(k=3))
        return time.monotonic() - started

    seconds()
    with grpc.insecure_channel(server.grpc_address) as channel:
        metadata = (("authorization", f"Bearer {TOKEN}"),)
        slow = channel.stream_unary(INFER)
        waiting = [slow.future(never(), metadata=metadata) for _ in range(60)]
        assert sorted(seconds() for _ in range(20))[15] < 0.5
        for one in waiting:
            one.cancel()


def test_stock_changes_and_metrics_arrive(server, client, grpc_client, folder, until):
    lines = [json.dumps(gone("item-1")), json.dumps(NEW)]
    (folder / "stock" / "feed.jsonl").write_text("\n".join(lines) + "\n")

    def shown() -> set[str]:
        return {item.item_id for item in grpc_client.ask(Request(k=500)).items}

    until(lambda: "item-1" not in shown() and "new-1" in shown())
    assert "new-1" in ids(client.recommend(k=500))
    until(lambda: metric(server, "refit_requests_total") > 5)
    text = probe(server, "/prometheus").text
    assert "refit_latency_bucket{le=" in text
    assert metric(server, "refit_bundle_in_service") == 1
    assert metric(server, "refit_unauthorized_requests_total") >= 1


def test_probes_have_a_port_of_their_own(server):
    assert probe(server, "/health/live").text == "live\n"
    assert probe(server, "/health/ready").json() == {"ready": 1, "workers": 1}
    assert requests.get(f"{server.url}/v2/health/ready", timeout=10).ok
    assert requests.get(f"{server.url}/health/ready", timeout=10).status_code == 401
    assert requests.get(f"{server.url}/metrics", timeout=10).status_code == 401


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_is_replaced_and_who_connects_meanwhile_waits(
    server, how, until
):
    (worker,) = workers(server)
    counted = metric(server, "refit_requests_total")
    os.kill(worker, how)
    until(lambda: probe(server, "/health/ready").status_code == 503)
    assert probe(server, "/health/live").ok
    with RecommenderClient(server.url, 60, CREDENTIALS) as client:
        assert client.recommend(k=3)["bundle_id"]
    until(lambda: probe(server, "/health/ready").ok)
    assert workers(server) != [worker]
    lines = server.door.output().splitlines()
    (told,) = [line for line in lines if f"worker {worker} ended" in line]
    assert told.endswith("starting another in 0 s")
    with GrpcRecommenderClient(server.grpc_address, 30, CREDENTIALS) as client:
        until(lambda: answers(client))
    assert metric(server, "refit_requests_total") >= counted
    assert metric(server, "refit_bundle_in_service") == 1


def answers(client: GrpcRecommenderClient) -> bool:
    try:
        return bool(client.ask(Request(k=3)).items)
    except ServiceUnreachable:
        return False


def test_a_new_champion_takes_over_without_a_failed_request(
    server, folder, bundle, other_bundle, until
):
    stop, seen, failures = threading.Event(), {"rest": [], "grpc": []}, []

    def ask(kind: str) -> None:
        kinds = {"rest": (RecommenderClient, server.url)}
        make, address = kinds.get(kind, (GrpcRecommenderClient, server.grpc_address))
        with make(address, credentials=CREDENTIALS) as client:
            while not stop.is_set():
                try:
                    answer = client.ask(Request(user_id="user-2", k=5))
                    seen[kind].append((answer.bundle_id, answer.fallback))
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


def test_two_workers_with_client_certificates_lose_no_answer(tmp_path, bundle, until):
    """The certificates are replaced meanwhile, and used without a restart."""
    tiny.promote(tmp_path / "registry", bundle)
    (tmp_path / "stock").mkdir()
    keys = tmp_path / "keys"
    keys.mkdir()
    files = make_certificates(keys)
    plain = {
        "certificate": str(files["server.pem"]),
        "key": str(files["server.key"]),
        "client_authority": str(files["authority.pem"]),
    }
    known = Credentials("", files["authority.pem"], files["client.pem"], files["client.key"])
    unknown = Credentials(authority=files["authority.pem"])
    sent = []

    def ask_both(credentials: Credentials) -> bool:
        """On connections of their own."""
        try:
            for make, address in clients:
                with make(address, credentials=credentials) as client:
                    sent.append(client.ask(Request()).request_id)
        except RefitError:
            return False
        return True

    with launch(settings(tmp_path, tmp_path / "registry", workers=2, plain=plain)) as server:
        assert len(workers(server)) == 2
        clients = (
            (RecommenderClient, server.url),
            (GrpcRecommenderClient, server.grpc_address),
        )
        assert all(ask_both(known) for _ in range(20))
        for make, address in clients:
            with make(address, 5.0, unknown) as client, pytest.raises(RefitError):
                client.ask(Request())
        make_certificates(keys)
        until(lambda: all(ask_both(known) for _ in range(4)))
    with pytest.raises(ProcessLookupError):
        os.killpg(server.door.pid, 0)
    recover(tmp_path / "log")
    parts = list((tmp_path / "log").glob("date=*/*.parquet"))
    logged = [name for part in parts for name in pq.read_table(part)["request_id"].to_pylist()]
    assert sorted(logged) == sorted(sent)


def test_launch_errors_are_clear(tmp_path, bundle):
    registry = tmp_path / "registry"
    tiny.promote(registry, bundle)
    plain = {"token_file": str(tmp_path / "nothing")}
    with pytest.raises(RefitError, match="nothing cannot be read"):
        launch(settings(tmp_path, registry, plain=plain))
    values = {"recommender": {"registry": "r", "log_folder": "l"}, "origins": 1}
    with pytest.raises(UsageError, match="origins"):
        PlainServerSettings.parse(values)


def test_a_worker_that_has_not_read_its_feeds_is_alive_and_not_ready():
    async def report() -> None:
        reading, writing = os.pipe()
        worker = WorkerProcess(SimpleNamespace(returncode=None), reading)
        assert not worker.came_up
        for sign, ready, came_up in (
            (ALIVE, False, False),
            (READY, True, True),
            (READY + ALIVE, False, True),
        ):
            os.write(writing, sign)
            await asyncio.sleep(0.05)
            assert (worker.is_ready(60), worker.came_up) == (ready, came_up)
        os.close(writing)
        await asyncio.sleep(0.05)

    asyncio.run(report())
