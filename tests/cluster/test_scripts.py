"""The steps of make kind and make minikube, on a cluster that stands.

What is put in their place: the cluster's creation, the loading of images, the release of Kubeflow
Pipelines, Seldon's chart (its own kustomization instead), the model server (its stand-in).
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

from tests.cluster.commands import CommandFailed, wait_for
from tests.cluster.images import Images
from tests.cluster.kfp.backend import Backend, linked_manifests, sources
from tests.cluster.kubernetes import Cluster
from tests.cluster.local import SCRIPT, do_steps, environment
from tests.cluster.market import Market
from tests.cluster.refit_command import CONFIG
from tests.cluster.seldon import manifests_file
from tests.cluster.settings import ROOT

pytestmark = pytest.mark.kfp

RECOMMENDER, REVIEW = "19000", "18081"
ASKED = {"user_id": "shopper-000012", "context": {"surface": "home"}, "k": 5}
TRAINING_SECONDS = 1200
SOON = "30"
"""Seconds; a Deployment that is recreated waits for its old pod to end first."""


@pytest.fixture(scope="module")
def prepared(kfp_backend: Backend, seldon: Cluster, market: Market, images: Images) -> Cluster:
    """A cluster whose node has every image; what is installed on it is installed again.

    Its training is the one of ``test_submit.py``: whichever comes first leaves it in the cache.
    """
    images.main()
    images.serving()
    return seldon


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """kind's own, with the model server's stand-in."""
    return write_overlay(tmp_path)


def write_overlay(folder: Path, **more: object) -> Path:
    kustomize = Path(os.path.relpath(ROOT / "kustomize", folder))  # it takes no absolute path
    wanted = {
        "resources": [str(kustomize / "overlays" / "kind")],
        "components": [str(kustomize / "components" / "model-server-stand-in")],
        **more,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(wanted), "utf-8")
    (folder / "loaded.tar").touch()
    return folder


@contextmanager
def all_steps(cluster: Cluster, overlay: Path) -> Iterator[subprocess.Popen[str]]:
    """The script as a person runs it, with all of its steps, until it is told to end."""
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
    """What it says, up to a line; fails with all of it when that never comes."""
    said = []
    assert process.stdout
    for line in process.stdout:
        said.append(line.rstrip())
        if line.startswith(end):
            return said
    raise AssertionError("\n".join(said))


def fetch(port: str, path: str = "", body: object = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"http://localhost:{port}{path}", data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


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
def test_it_ends_with_a_recommender_that_answers_and_a_second_run_finds_all_done(
    prepared: Cluster, overlay: Path, kfp_backend: Backend
) -> None:
    with all_steps(prepared, overlay) as process:
        said = read_until(process, "open until Ctrl-C")
        headings = [line.removeprefix("== ") for line in said if line.startswith("== ")]
        assert headings[0] == "check tools"
        assert headings[-1] == "open ports"
        assert f"http://localhost:{RECOMMENDER}" in "\n".join(said)
        answer = json.loads(fetch(RECOMMENDER, "/api/v1.0/predictions", {"jsonData": ASKED}))
        assert len(answer["jsonData"]["items"]) == ASKED["k"]
        assert answer["jsonData"]["bundle_id"]
        assert "refit_monitor_store_readable" in fetch(REVIEW, "/metrics")
    assert all(map(is_closed, (RECOMMENDER, REVIEW)))

    before = count_runs(kfp_backend)
    with all_steps(prepared, overlay) as process:
        said = read_until(process, "open until Ctrl-C")
        assert any("there is a champion already" in line for line in said)
    assert count_runs(kfp_backend) == before


def test_a_way_that_breaks_is_opened_again(prepared: Cluster, overlay: Path) -> None:
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
    ("mistake", "pod", "last_words"),
    [
        (WRONG_IMAGE, "pod review-", 'Failed to pull image "nowhere.example/wrong'),
        (WRONG_ARGUMENT, "pod rollout-", "No such option: --wrong"),
    ],
    ids=["image", "argument"],
)
def test_a_pod_that_fails_is_named_with_its_last_words(
    prepared: Cluster, tmp_path: Path, mistake: dict[str, object], pod: str, last_words: str
) -> None:
    steps = partial(do_steps, prepared, ["make_secrets", "apply_overlay"])
    with pytest.raises(CommandFailed) as failure:
        steps(REFIT_OVERLAY=str(write_overlay(tmp_path, **mistake)), WAIT_SECONDS=SOON)
    said = str(failure.value)
    assert pod in said
    assert last_words in said
    assert f"is not ready after {SOON} s" in said
    assert "stopped at: apply overlay" in said
    steps(REFIT_OVERLAY=str(write_overlay(tmp_path)))


def count_runs(backend: Backend) -> int:
    return len(backend.client().list_runs(page_size=100).runs or [])
