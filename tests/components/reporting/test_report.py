import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from components.reporting import report
from components.reporting.report import report_end


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(report, "log_message", lines.append)
    return lines


@pytest.fixture
def webhook():
    """A server that keeps what is posted to it; answers 500 on /broken."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 200)
            self.end_headers()

        def log_message(self, *args):
            logging.getLogger(__name__).debug("%s", args)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()


def test_the_end_is_said(said):
    report_end("continuous_training", "SUCCEEDED", "")
    report_end("continuous_training", "FAILED", "step train failed")
    assert said == [
        "Refit continuous_training: SUCCEEDED",
        "Refit continuous_training: FAILED - step train failed",
    ]


def test_the_end_is_posted(said, webhook):
    url, got = webhook
    report_end("index_refresh", "FAILED", "no space", url)
    assert got == [
        {
            "text": "Refit index_refresh: FAILED - no space",
            "pipeline": "index_refresh",
            "state": "FAILED",
            "error": "no space",
        }
    ]
    assert len(said) == 1


def test_a_webhook_that_refuses_or_is_dead_is_said_and_changes_nothing(said, webhook):
    url, got = webhook
    report_end("index_refresh", "SUCCEEDED", "", f"{url}/broken")
    assert len(got) == 1
    assert said[-1] == "the webhook at 127.0.0.1 was not reached: it answered 500"
    report_end("index_refresh", "SUCCEEDED", "", "http://127.0.0.1:1/")
    assert said[-1] == "the webhook at 127.0.0.1 was not reached: ConnectionError"
    report_end("index_refresh", "SUCCEEDED", "", "not a url")
    assert said[-1] == "the webhook at an unknown host was not reached: MissingSchema"
