"""refit review: it starts, asks who is there, carries out requests, and ends with its pod."""

import os
import signal
import subprocess
import sys
import time

import pytest
import requests

from monitoring.store import SqlStore
from tests.monitoring.alerts import alert

REFUSED = "postgresql+psycopg://refit:hush@db/refit"
TOKEN = "t" * 24


@pytest.mark.parametrize(
    ("words", "tells"),
    [
        ((), "nobody could sign in"),
        (("--no-auth", "--host", "0.0.0.0"), "only for this machine"),
        (("--no-auth", "--settings", "none.yaml"), "no settings 'none.yaml'"),
        (("--no-auth", "--config", "simulat"), "did you mean 'simulated'?"),
        (("--no-auth", "--config", "simulated", "--kubeflow", "http://k"), "give --config for"),
        (("--no-auth", "--store", REFUSED), "PGPASSWORD"),
    ],
)
def test_bad_usage_is_2(refit, monkeypatch, words, tells):
    monkeypatch.delenv("REFIT_REVIEW_TOKENS", raising=False)
    said = refit("review", "--port", "0", *words)
    assert (said.code, tells in said.err) == (2, True), said.err
    assert "hush" not in said.err


def test_a_misspelt_setting_is_2(refit, tmp_path):
    file = tmp_path / "review.yaml"
    file.write_text("links: {images: x}\n")
    said = refit("review", "--no-auth", "--settings", file)
    assert (said.code, "did you mean 'image'?" in said.err) == (2, True)


@pytest.fixture
def server(tmp_path):
    """A running application, whose alert a1 is open."""
    home = tmp_path / "home"
    SqlStore(home / "monitoring" / "alerts.sqlite").add_alert(alert())
    command = [sys.executable, "-m", "pipelines.cli", "review", "--home", home, "--port", "0"]
    with subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"REFIT_REVIEW_TOKENS": f"on-call ana {TOKEN}"},
    ) as process:
        yield process
        process.kill()


def test_it_serves_and_ends_without_a_traceback_when_its_pod_is_terminated(server, tmp_path):
    url = server.stdout.readline().removeprefix("ready: ").strip()
    assert requests.get(f"{url}healthz", timeout=5).text == "ok\n"
    assert requests.get(f"{url}alerts", timeout=5).status_code == 401
    signed_in = {"Authorization": f"Bearer {TOKEN}"}
    page = requests.get(f"{url}alerts/a1", headers=signed_in, timeout=10)
    assert "It was not told how to start runs" in page.text
    done = requests.post(
        f"{url}alerts/a1/acknowledge", data={"reason": "mine"}, headers=signed_in, timeout=10
    )
    assert "Acknowledged." in done.text
    until = time.monotonic() + 20
    static = tmp_path / "home" / "monitoring" / "pages" / "a1.html"
    while not static.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert "acknowledged by ana" in static.read_text()
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0
    assert "Traceback" not in server.stderr.read()
