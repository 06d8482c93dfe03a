import subprocess
import sys


def test_it_ends_in_good_order_when_its_pod_does(tmp_path):
    asked = ("--pages", tmp_path, "--store", tmp_path / "alerts.sqlite", "--host", "127.0.0.1")
    server = subprocess.Popen(
        [sys.executable, "-m", "monitoring.review.server", *map(str, asked), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr
    assert "http://127.0.0.1:" in server.stderr.readline()
    server.terminate()
    assert server.wait(30) == 0
    assert "Traceback" not in server.stderr.read()
