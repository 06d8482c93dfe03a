import subprocess
import sys


def test_it_ends_without_a_traceback_when_its_pod_is_terminated(tmp_path):
    options = ("--pages", tmp_path, "--store", tmp_path / "alerts.sqlite", "--host", "127.0.0.1")
    server = subprocess.Popen(
        [sys.executable, "-m", "monitoring.review.server", *map(str, options), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr
    assert "http://127.0.0.1:" in server.stderr.readline()
    server.terminate()
    assert server.wait(30) == 0
    assert "Traceback" not in server.stderr.read()
