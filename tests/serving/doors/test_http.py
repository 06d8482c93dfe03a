"""The HTTP door on real sockets, around a recommender that answers at once or when told."""

import asyncio
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from refit.errors import RefitError, ServiceUnreachable, UsageError
from serving.answer import RecommendationAnswer
from serving.client import Credentials, RecommenderClient
from serving.doors import inference
from serving.doors.access import Tokens
from serving.doors.http import OPERATIONS
from serving.doors.readiness import Readiness
from serving.doors.settings import DoorSettings
from serving.feeds.folder import FolderFeed
from serving.feeds.intake import MOST_LINES, open_intakes
from serving.feeds.settings import LiveFeedSettings
from serving.request import MAX_K, Request, RequestError
from tests.serving.doors.running import Clerk, make_certificates, running
from tests.serving.malformed import MALFORMED

TOKEN = "correct-horse-battery-staple"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def clerk():
    return Clerk()


@pytest.fixture(scope="module")
def shared():
    """A door that several tests share, with bounds that they can reach."""
    clerk = Clerk()
    with running(clerk, head_seconds=1.0, body_seconds=1.0, max_body_bytes=10_000) as port:
        yield clerk, port


def post(port: int, path: str = "/recommend", **options) -> requests.Response:
    return requests.post(f"http://127.0.0.1:{port}{path}", timeout=10, **options)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def ask(port: int) -> float:
    """Seconds that an answer takes on a connection of its own."""
    started = time.perf_counter()
    assert post(port, json={"k": 2}).ok
    return time.perf_counter() - started


def closed_after(one: socket.socket) -> tuple[float, bytes]:
    """Seconds until the server closes a connection, and what it sent."""
    started, got = time.monotonic(), b""
    while True:
        try:
            part = one.recv(4096)
        except ConnectionResetError:
            part = b""
        if not part:
            return time.monotonic() - started, got
        got += part


def test_an_answer_is_what_the_schema_says(shared):
    _, port = shared
    answer = post(port, json={"user_id": "u", "k": 3}).json()
    assert RecommendationAnswer.model_validate(answer).model_dump(exclude_unset=True) == answer
    assert len(answer["items"]) == 3
    described = requests.get(f"http://127.0.0.1:{port}/openapi.json", timeout=10).json()
    assert described["openapi"].startswith("3.1")
    schemas = described["components"]["schemas"]
    request, given = schemas["Request"], schemas["RecommendationAnswer"]
    assert set(request["properties"]) == set(Request.model_fields)
    assert request["properties"]["k"]["maximum"] == MAX_K
    assert request["additionalProperties"] is False
    assert set(given["properties"]) == set(RecommendationAnswer.model_fields)
    names = set(schemas)
    used = json.dumps(described).split("#/components/schemas/")[1:]
    assert {text.partition('"')[0] for text in used} <= names


def test_items_similar_to_one_have_a_route_of_their_own(shared):
    _, port = shared
    answer = post(port, "/similar", json={"item_id": "i7", "k": 2}).json()
    assert [item["item_id"] for item in answer["items"]] == ["like-i7-0", "like-i7-1"]
    refused = post(port, "/similar", json={"k": 2})
    assert refused.status_code == 400
    assert "item_id" in refused.json()["error"]


def test_lines_of_a_feed_are_taken_from_those_who_may_send_them(tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    stock = tmp_path / "stock"
    intakes = open_intakes(LiveFeedSettings(stock=str(stock)))
    sold = {"item_id": "i1", "change": "sold", "at": "2026-05-01T10:00:00Z"}
    lines = {"lines": [sold, {**sold, "change": "lost"}]}
    with running(Clerk(), None, intakes, intake=True, token_file=token) as port:
        assert post(port, "/feeds/stock", json=lines).status_code == 401
        head = {"Authorization": f"Bearer {TOKEN}"}
        taken = post(port, "/feeds/stock", json=lines, headers=head)
        assert taken.json()["accepted"] == taken.json()["refused"] == 1
        assert taken.json()["reasons"][0][0] == 1
        assert post(port, "/feeds/stock", json={"line": []}, headers=head).status_code == 400
        assert post(port, "/feeds/activity", json=lines, headers=head).status_code == 404
        many = {"lines": [{}] * (MOST_LINES + 1)}
        refused = post(port, "/feeds/stock", json=many, headers=head)
        assert refused.status_code == 400
        assert "send at most" in refused.json()["error"]
    assert [json.loads(line.content) for line in FolderFeed(stock).read()] == [sold]
    with pytest.raises(UsageError, match="intake needs token_file"):
        DoorSettings.parse({"intake": True})


def test_every_described_operation_is_there(shared):
    _, port = shared
    for one in OPERATIONS:
        url = f"http://127.0.0.1:{port}{one.path.format(model='refit')}"
        status = requests.request(one.method, url, timeout=10).status_code
        assert status == (415 if one.takes else 200), one


def test_the_open_inference_protocol(shared):
    _, port = shared
    base = "/v2/models/refit"
    model = requests.get(f"http://127.0.0.1:{port}{base}", timeout=10).json()
    assert model["inputs"] == [{"name": "request", "datatype": "BYTES", "shape": [-1]}]
    texts = [json.dumps({"k": 1}), json.dumps({"k": 2, "request_id": "mine"})]
    tensor = {"name": "request", "shape": [2], "datatype": "BYTES", "data": texts}
    for path in (base, f"{base}/versions/{model['versions'][0]}"):
        got = post(port, f"{path}/infer", json={"id": "7", "inputs": [tensor]}).json()
        assert (got["id"], got["model_name"], got["model_version"]) == ("7", "refit", "the-bundle")
        (output,) = got["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("answer", "BYTES", [2])
        assert [len(json.loads(text)["items"]) for text in output["data"]] == [1, 2]
        assert json.loads(output["data"][1])["request_id"] == "mine"
    for path, status in ((f"{base}/versions/old/infer", 404), ("/v2/models/other/infer", 404)):
        refused = post(port, path, json={"inputs": [tensor]})
        assert (refused.status_code, bool(refused.json()["error"])) == (status, True)
    wrong = (
        {},
        {"inputs": []},
        {"inputs": [tensor, tensor]},
        {"inputs": [{**tensor, "name": "x"}]},
        {"inputs": [{**tensor, "datatype": "INT64"}]},
        {"inputs": [{**tensor, "shape": [3]}]},
        {"inputs": [{**tensor, "shape": [-2]}]},
        {"inputs": [{**tensor, "data": [1, 2]}]},
        {"inputs": [{**tensor, "data": ["{", "{}"]}]},
        {"inputs": [{**tensor, "data": ["{}"] * 65, "shape": [65]}]},
        {"inputs": [tensor], "outputs": [{"name": "scores"}]},
    )
    for body in wrong:
        refused = post(port, f"{base}/infer", json=body)
        assert (refused.status_code, bool(refused.json()["error"])) == (400, True), body


RAW = [
    ({}, 415),
    ({"data": "{}"}, 415),
    ({"data": "{}", "headers": {"Content-Type": "text/plain"}}, 415),
    ({"files": {"request": b"{}"}}, 415),
    ({"data": b"\xff\xfe", "headers": JSON}, 400),
    ({"data": "", "headers": JSON}, 400),
    ({"data": '{"user_id": ', "headers": JSON}, 400),
    ({"data": "[" * 9000, "headers": JSON}, 400),
    ({"data": '{"k": ' + "9" * 5000 + "}", "headers": JSON}, 400),
    ({"data": '{"k": NaN}', "headers": JSON}, 400),
    ({"json": 5}, 400),
    ({"json": {"user_id": "u" * 20_000}}, 413),
    ({"data": iter([b'{"user_id": "'] + [b"u" * 1000] * 20), "headers": JSON}, 413),
]


@pytest.mark.parametrize("number", range(len(RAW)))
def test_a_bad_body_is_refused_as_json_with_a_reason(shared, number):
    _, port = shared
    options, status = RAW[number]
    response = post(port, **options)
    assert response.status_code == status, response.text
    assert response.json()["error"]
    assert ask(port) < 5


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_is_read_in_every_encoding_of_the_standard_library(encoding):
    text = '{"user_id": "Å\\ud83d\\ude00", "context": {"age": 0.1}, "k": 12345678901234567890}'
    assert inference.parse_json(text.encode(encoding)) == json.loads(text)


def test_every_malformed_request_is_400_with_a_reason(shared):
    _, port = shared
    for body, named in MALFORMED:
        text = json.dumps(body)
        if len(text) > 10_000:
            continue
        response = post(port, data=text, headers=JSON)
        assert response.status_code == 400, (body, response.text)
        assert named in response.json()["error"]


def test_other_paths_and_methods_are_refused_as_json(shared):
    _, port = shared
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/recommend", 405),
        ("POST", "/status", 405),
        ("DELETE", "/v2", 405),
    ):
        response = requests.request(method, f"http://127.0.0.1:{port}{path}", timeout=10)
        assert (response.status_code, bool(response.json()["error"])) == (status, True)


def test_a_recommender_that_wants_no_requests_is_not_ready():
    readiness = Readiness()

    async def look() -> list[bool]:
        seen = []
        for found in ([False], [True], []):
            task = asyncio.create_task(readiness.watch(found.pop))
            await asyncio.sleep(0.1)
            task.cancel()
            seen.append(readiness.ready)
        return seen

    assert asyncio.run(look()) == [False, True, False]
    with running(Clerk(), readiness=readiness) as port:
        for path in ("/v2/health/ready", "/v2/models/refit/ready"):
            answer = requests.get(f"http://127.0.0.1:{port}{path}", timeout=10)
            assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert requests.get(f"http://127.0.0.1:{port}/v2/health/live", timeout=10).ok


def test_a_fault_of_ours_is_500_without_its_details(clerk):
    with running(clerk) as port:
        response = post(port, json={"user_id": "fails"})
        assert (response.status_code, response.json()) == (500, {"error": "internal error"})
        assert ask(port) < 5


@pytest.mark.parametrize("count", [4, 400])
def test_slow_senders_change_nothing_for_others_and_are_cut(shared, count):
    clerk, port = shared
    part = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    starts = (b"", b"POST /rec", part, part + b"Content-Length: 50\r\n\r\n{")
    slow = [connect(port) for _ in range(count)]
    for number, one in enumerate(slow):
        if starts[number % 4]:
            one.sendall(starts[number % 4])
    times = sorted(ask(port) for _ in range(40))
    assert times[20] < 0.1, times
    assert times[30] < 0.3, times
    cut = [closed_after(one) for one in slow]
    assert max(seconds for seconds, _ in cut) < 5
    assert [got.split(b" ", 2)[1:2] for _, got in cut[:4]] == [[], [b"408"], [b"408"], [b"408"]]
    assert clerk.counters.total("refit_cut_connections", reason="slow head") >= count * 3 // 4


def test_a_sender_of_a_byte_now_and_then_has_no_more_time_than_a_silent_one(shared):
    _, port = shared
    one = connect(port)
    started = time.monotonic()

    def drip() -> None:
        for byte in b"POST /recommend HTTP/1.1\r\nX: " + b"x" * 1000:
            one.sendall(bytes([byte]))
            time.sleep(0.05)

    with pytest.raises(OSError):
        drip()
    assert 0.9 < time.monotonic() - started < 4


def test_a_second_request_on_a_connection_has_its_own_time(shared):
    _, port = shared
    one = connect(port)
    whole = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    whole += b"Content-Length: 2\r\n\r\n{}"
    for _ in range(3):
        one.sendall(whole)
        assert one.recv(65536).startswith(b"HTTP/1.1 200")
        time.sleep(0.5)
    one.sendall(b"POST /rec")
    assert 0.5 < closed_after(one)[0] < 4


def test_a_head_without_end_is_refused(shared):
    _, port = shared
    one = connect(port)
    one.sendall(b"GET /v2 HTTP/1.1\r\n")
    try:
        for _ in range(40):
            one.sendall(b"X-Long: " + b"x" * 4000 + b"\r\n")
    except OSError:
        return
    assert closed_after(one)[1][:12] in (b"HTTP/1.1 431", b"")


def test_connections_are_bounded(clerk):
    with running(clerk, max_connections=5) as port:
        open_ones = [connect(port) for _ in range(5)]
        time.sleep(0.2)
        assert closed_after(connect(port))[0] < 2
        for one in open_ones:
            one.close()
        time.sleep(0.2)
        assert ask(port) < 5


def test_too_many_waiting_requests_are_shed(clerk):
    clerk.go.clear()
    with (
        running(clerk, threads=2, queue=3, retry_after_s=7) as port,
        ThreadPoolExecutor(20) as pool,
    ):
        waiting = [pool.submit(post, port, json={}) for _ in range(20)]
        while clerk.counters.total("refit_shed_requests") < 15:
            time.sleep(0.01)
        assert requests.get(f"http://127.0.0.1:{port}/v2/health/live", timeout=10).ok
        clerk.go.set()
        answers = [one.result() for one in waiting]
        shed = [one for one in answers if one.status_code == 429]
        assert (len(shed), sum(one.ok for one in answers)) == (15, 5)
        assert {one.headers["retry-after"] for one in shed} == {"7"}
        assert "too many" in shed[0].json()["error"]
        clerk.go.clear()
        busy = [pool.submit(post, port, json={}) for _ in range(5)]
        while len(clerk.asked) < 7:
            time.sleep(0.01)
        time.sleep(0.2)
        with RecommenderClient(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(ServiceUnreachable, match="too much to do"):
                client.recommend()
            clerk.go.set()
            assert all(one.result().ok for one in busy)
            assert client.recommend(k=2)["bundle_id"] == "the-bundle"


def test_the_latency_counts_from_the_socket(clerk):
    clerk.go.clear()
    with running(clerk, threads=1) as port, ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, port, json={})
        while not clerk.asked:
            time.sleep(0.01)
        second = pool.submit(post, port, json={})
        time.sleep(1.0)
        clerk.go.set()
        assert first.result().ok
        assert second.result().ok
    (_, at_once), (_, waited) = clerk.asked
    assert waited > 0.3, "it waited for the thread"
    assert at_once < waited


def test_a_token_is_asked_for_and_read_again(clerk, tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"# of the shop\n{TOKEN}\n")
    with running(clerk, token_file=file) as port:
        url = f"http://127.0.0.1:{port}"
        assert requests.get(f"{url}/v2/health/ready", timeout=10).ok
        for header in ("", "Bearer", "Bearer no", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"):
            for path in ("/recommend", "/nothing", "/openapi.json", "/v2/health/../status"):
                one = requests.post(
                    url + path, json={}, timeout=10, headers={"Authorization": header.encode()}
                )
                assert one.status_code == 401, (header, path)
                assert one.headers["www-authenticate"] == "Bearer"
        with RecommenderClient(url) as client, pytest.raises(UsageError, match="token"):
            client.recommend()
        with RecommenderClient(url, credentials=Credentials(token=TOKEN)) as client:
            assert len(client.ask(Request(k=2)).items) == 2
            with pytest.raises(RequestError, match="k"):
                client.recommend(k=0)
            described = client._call("GET", "/openapi.json")
        assert described["security"] == [{"bearer": []}]
    assert clerk.counters.total("refit_unauthorized_requests") > 20


def test_tokens_change_with_their_file_and_never_to_nothing(tmp_path):
    file = tmp_path / "tokens"
    for text, reason in (("", "no token"), ("# none\n", "no token"), ("short", "less than")):
        file.write_text(text)
        with pytest.raises(UsageError, match=reason):
            Tokens(file)
    with pytest.raises(UsageError, match="cannot be read"):
        Tokens(tmp_path / "missing")
    file.write_text(TOKEN)
    tokens = Tokens(file)
    new = TOKEN[::-1]
    for text, accepted in (("", TOKEN), (f"{TOKEN}\n{new}", new), (new, new)):
        file.write_text(text)
        os.utime(file, ns=(time.time_ns(), time.time_ns()))
        tokens.refresh()
        assert tokens.accept(f"Bearer {accepted}".encode())
    assert not tokens.accept(f"Bearer {TOKEN}".encode())


def test_tls_and_client_certificates(clerk, tmp_path):
    files = make_certificates(tmp_path)
    server = {"certificate": files["server.pem"], "key": files["server.key"]}
    trusting = Credentials(authority=files["authority.pem"])
    with running(clerk, **server) as port:
        url = f"https://127.0.0.1:{port}"
        with RecommenderClient(url, credentials=trusting) as client:
            assert len(client.recommend(k=3)["items"]) == 3
        with RecommenderClient(url) as client, pytest.raises(ServiceUnreachable):
            client.recommend()
    known = Credentials("", files["authority.pem"], files["client.pem"], files["client.key"])
    with running(clerk, **server, client_authority=files["authority.pem"]) as port:
        url = f"https://127.0.0.1:{port}"
        with RecommenderClient(url, credentials=known) as client:
            assert len(client.recommend(k=3)["items"]) == 3
        with RecommenderClient(url, credentials=trusting) as client, pytest.raises(RefitError):
            client.recommend()


def test_browsers_may_call_only_from_pages_that_are_named(clerk):
    preflight = {"Origin": "https://shop.example.org", "Access-Control-Request-Method": "POST"}
    with running(clerk) as port:
        url = f"http://127.0.0.1:{port}/recommend"
        headers = requests.options(url, headers=preflight, timeout=10).headers
        assert "access-control-allow-origin" not in headers
    with running(clerk, allowed_origins=("https://shop.example.org",)) as port:
        url = f"http://127.0.0.1:{port}/recommend"
        headers = requests.options(url, headers=preflight, timeout=10).headers
        assert headers["access-control-allow-origin"] == "https://shop.example.org"
        other = preflight | {"Origin": "https://evil.example.org"}
        headers = requests.options(url, headers=other, timeout=10).headers
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"certificate": "a.pem"}, "need each other"),
        ({"client_authority": "a.pem"}, "needs certificate"),
        ({"allowed_origins": ["*"]}, "names the pages"),
        ({"model": "a/b"}, "model"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, reason):
    with pytest.raises(UsageError, match=reason):
        DoorSettings.parse(settings)
