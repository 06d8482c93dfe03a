"""What a client concludes from a server that it meets first through a gateway."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from refit.errors import ServiceUnreachable
from serving.client import PLAIN, SELDON, SELDON_PING, RecommenderClient


@pytest.fixture
def gateway() -> Iterator[ThreadingHTTPServer]:
    """A gateway; ``knows`` are the paths of the server behind it, ``status`` is for the others."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Both servers take requests by POST alone."""
            if self.path == SELDON_PING and SELDON in server.knows:
                self._answer(200, b"{}")
            else:
                self._answer(405 if self.path in server.knows else server.status, b"{}")

        def do_POST(self) -> None:
            """Answer as the server that has the path."""
            self.rfile.read(int(self.headers["Content-Length"]))
            body = (
                b'{"jsonData": {"door": "seldon"}}' if self.path == SELDON else b'{"door": "plain"}'
            )
            self._answer(200 if self.path in server.knows else server.status, body)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.knows, server.status = (), 404
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [404, 502, 503, 504])
@pytest.mark.parametrize(("path", "door"), [(PLAIN, "plain"), (SELDON, "seldon")])
def test_a_gateway_that_knows_no_server_yet_decides_nothing(gateway, status, path, door):
    gateway.status = status
    with RecommenderClient(f"http://127.0.0.1:{gateway.server_port}") as client:
        with pytest.raises(ServiceUnreachable, match=r"no recommender|answered 50"):
            client.send({"k": 1})
        gateway.knows, gateway.status = (path,), 404
        assert client.send({"k": 1}) == {"door": door}
