"""The steps of make kind and make minikube on a running cluster.

Replaced are the creation of the cluster, the loading of images, the release of Kubeflow Pipelines,
Seldon's chart (by its own kustomization) and TensorFlow Serving (by Refit's model server).
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ECONNREFUSED
from functools import partial
from pathlib import Path
from socket import socket
from urllib.request import Request, urlopen

import pytest
import yaml

from tests.cluster.market import Market
from tests.cluster.refit_command import CONFIG
from tests.machine.commands import CommandError, wait_for
from tests.machine.images import Images
from tests.machine.kfp.backend import Backend, linked_manifests, sources
from tests.machine.kubernetes import Cluster
from tests.machine.seldon import manifests_file
from tests.machine.settings import ROOT
from tests.machine.steps import SCRIPT, environment, run_steps

pytestmark = pytest.mark.kfp

RECOMMENDER, REVIEW = "19000", "18081"
REQUEST = {"user_id": "shopper-000012", "context": {"surface": "home"}, "k": 5}
TRAINING_SECONDS = 1200
SHORT_TIMEOUT = "30"
"""Seconds; a Deployment with strategy Recreate waits for its old pod to end first."""


@pytest.fixture(scope="module")
def prepared(kfp_backend: Backend, seldon: Cluster, market: Market, images: Images) -> Cluster:
    """A cluster with all images, on which the steps install everything again.

    The training is the same as in ``test_submit.py``: the second of the two uses the cache.
    """
    images.main()
    images.serving()
    return seldon


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """The overlay for kind, with Refit's own model server."""
    return write_overlay(tmp_path)


def write_overlay(folder: Path, **more: object) -> Path:
    # kustomize does not accept absolute paths.
    kustomize = Path(os.path.relpath(ROOT / "kustomize", folder))
    kustomization = {
        "resources": [str(kustomize / "overlays" / "kind")],
        "components": [str(kustomize / "components" / "model-server-stand-in")],
        **more,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), "utf-8")
    (folder / "loaded.tar").touch()
    return folder


@contextmanager
def all_steps(cluster: Cluster, overlay: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the script with all of its steps, and terminate it at the end of the block."""
    with linked_manifests() as kubeflow:
        settings = sources(kubeflow) | {
            "SELDON_MANIFESTS": str(manifests_file(cluster)),
            "REFIT_OVERLAY": str(overlay),
            "REFIT_ARCHIVES": str(overlay),  # the node has the images
            "REFIT_CONFIG": str(CONFIG),
            "PORT_RECOMMENDER": RECOMMENDER,
            "PORT_REVIEW": REVIEW,
        }
        process = subprocess.Popen(
            [SCRIPT],
            env=os.environ | environment(cluster) | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def read_until(process: subprocess.Popen[str], end: str) -> list[str]:
    """Read output lines up to one that starts with ``end``; fail if there is none."""
    lines = []
    assert process.stdout
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith(end):
            return lines
    raise AssertionError("\n".join(lines))


def fetch(port: str, path: str = "", body: object = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"http://localhost:{port}{path}", data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=10) as response:
        return str(response.read().decode())


def is_healthy(port: str, path: str) -> bool:
    try:
        fetch(port, path)
    except OSError:
        return False
    return True


def is_closed(port: str) -> bool:
    with socket() as client:
        return client.connect_ex(("127.0.0.1", int(port))) == ECONNREFUSED


@pytest.mark.timeout(TRAINING_SECONDS + 600)
def test_the_recommender_answers_after_all_steps_and_a_second_run_trains_nothing(
    prepared: Cluster, overlay: Path, kfp_backend: Backend
) -> None:
    with all_steps(prepared, overlay) as process:
        lines = read_until(process, "open until Ctrl-C")
        headings = [line.removeprefix("== ") for line in lines if line.startswith("== ")]
        assert headings[0] == "check tools"
        assert headings[-1] == "open ports"
        assert f"http://localhost:{RECOMMENDER}" in "\n".join(lines)
        answer = json.loads(fetch(RECOMMENDER, "/api/v1.0/predictions", {"jsonData": REQUEST}))
        assert len(answer["jsonData"]["items"]) == REQUEST["k"]
        assert answer["jsonData"]["bundle_id"]
        assert "refit_monitor_store_readable" in fetch(REVIEW, "/metrics")
    assert all(map(is_closed, (RECOMMENDER, REVIEW)))

    before = count_runs(kfp_backend)
    with all_steps(prepared, overlay) as process:
        lines = read_until(process, "open until Ctrl-C")
        assert any("there is already a champion" in line for line in lines)
    assert count_runs(kfp_backend) == before


def test_a_broken_port_forwarding_is_restarted(prepared: Cluster, overlay: Path) -> None:
    with all_steps(prepared, overlay) as process:
        read_until(process, "open until Ctrl-C")
        prepared.kubectl("delete", "pod", "-n", "kubeflow", "-l", "app.kubernetes.io/name=review")
        wait_for("the review page", lambda: is_healthy(REVIEW, "/healthz"), 60)


WRONG_IMAGE = {"images": [{"name": "refit/main", "newName": "nowhere.example/wrong"}]}
WRONG_ARGUMENT = {
    "patches": [
        {
            "target": {"kind": "Deployment", "name": "rollout"},
            "patch": "- {op: add, path: /spec/template/spec/containers/0/args/-, value: --wrong}",
        }
    ]
}


@pytest.mark.parametrize(
    ("mistake", "pod", "error"),
    [
        (WRONG_IMAGE, "pod review-", 'Failed to pull image "nowhere.example/wrong'),
        (WRONG_ARGUMENT, "pod rollout-", "No such option: --wrong"),
    ],
    ids=["image", "argument"],
)
def test_the_error_names_a_failing_pod_and_its_last_log_lines(
    prepared: Cluster, tmp_path: Path, mistake: dict[str, object], pod: str, error: str
) -> None:
    steps = partial(run_steps, prepared, ["create_secrets", "apply_overlay"])
    with pytest.raises(CommandError) as failure:
        steps(REFIT_OVERLAY=str(write_overlay(tmp_path, **mistake)), WAIT_SECONDS=SHORT_TIMEOUT)
    message = str(failure.value)
    assert pod in message
    assert error in message
    assert f"is not ready after {SHORT_TIMEOUT} s" in message
    assert "failed in step: apply overlay" in message
    steps(REFIT_OVERLAY=str(write_overlay(tmp_path)))


def count_runs(backend: Backend) -> int:
    return len(backend.client().list_runs(page_size=100).runs or [])
