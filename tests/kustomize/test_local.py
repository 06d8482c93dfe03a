"""The parts of make kind and make minikube that need no container engine.

Fake programs for kind, minikube and others record how they are called. The steps themselves run on
the test cluster: ``tests/cluster/test_scripts.py``.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.cluster.settings import ClusterSettings
from tests.kustomize.manifests import GOLDEN, ROOT

LOCAL = ROOT / "kustomize" / "local"
FAKE_PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$*" in
    "get clusters"*) cat "$CLUSTERS" ;;
    info) exit "${ENGINE:-0}" ;;
esac
"""
REAL_PROGRAMS = ("bash", "sh", "basename", "cat", "dirname", "grep", "mkdir", "rm")


class Machine:
    """A PATH with fake programs and a few real ones; records the calls."""

    def __init__(self, folder: Path, *programs: str) -> None:
        self.folder, self.calls = folder, folder / "calls"
        self.state, self.clusters = folder / "state", folder / "clusters"
        self.calls.touch()
        self.clusters.touch()
        (folder / "bin").mkdir()
        for name in programs:
            program = folder / "bin" / name
            program.write_text(FAKE_PROGRAM, "utf-8")
            program.chmod(0o755)
        for name in REAL_PROGRAMS:
            (folder / "bin" / name).symlink_to(str(shutil.which(name)))

    def run(self, script: str, *steps: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.folder / "bin"), "CALLS": str(self.calls)}
        environment |= {"CLUSTERS": str(self.clusters), "REFIT_STATE": str(self.state), **settings}
        return subprocess.run(
            [LOCAL / f"{script}.sh", *steps],
            env={"HOME": os.environ.get("HOME", "/"), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def recorded(self) -> list[str]:
        return self.calls.read_text("utf-8").splitlines()


@pytest.fixture
def kind(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "kind", "docker", "kubectl", "git", "helm")


@pytest.fixture
def minikube(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "minikube", "kubectl", "git", "helm")


def test_kind_creates_a_cluster_with_a_pinned_node_image_and_a_separate_kubeconfig(kind):
    assert kind.run("kind", "create_cluster").returncode == 0
    _, create, export = kind.recorded
    assert create.startswith(
        "kind create cluster --name refit --image kindest/node:v1.34.3@sha256:"
    )
    assert f"--kubeconfig {kind.state}/kubeconfig" in create
    assert export == f"kind export kubeconfig --name refit --kubeconfig {kind.state}/kubeconfig"


def test_kind_keeps_an_existing_cluster(kind):
    kind.clusters.write_text("another\nrefit\n", "utf-8")
    assert kind.run("kind", "create_cluster").returncode == 0
    assert not any("create cluster" in call for call in kind.recorded)


def test_minikube_starts_a_cluster_with_network_policies_and_a_metrics_server(minikube):
    assert minikube.run("minikube", "create_cluster").returncode == 0
    start, update = minikube.recorded
    assert start.startswith("minikube start --profile refit --kubernetes-version v1.34.3 ")
    assert "--cni calico --addons metrics-server" in start
    assert update == "minikube update-context --profile refit"


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("kind", "kind load image-archive {} --name refit"),
        ("minikube", "minikube image load {} --profile refit"),
    ],
)
def test_archives_are_loaded(name, call, tmp_path, request):
    archive = tmp_path / "images" / "refit-main.tar"
    archive.parent.mkdir()
    archive.touch()
    machine = request.getfixturevalue(name)
    assert machine.run(name, "load_images", REFIT_ARCHIVES=str(archive.parent)).returncode == 0
    assert machine.recorded == [call.format(archive)]


@pytest.mark.parametrize(("name", "call"), [("kind", "delete cluster"), ("minikube", "delete")])
def test_down_deletes_the_cluster_and_its_state(name, call, request):
    machine = request.getfixturevalue(name)
    assert machine.run(name, "down").returncode == 0
    assert machine.recorded[0].startswith(f"{name} {call}")
    assert not machine.state.exists()


def test_missing_programs_are_listed(tmp_path):
    done = Machine(tmp_path, "kubectl", "docker").run("kind", "check_tools")
    assert done.returncode == 1
    assert "error: not found: git kind helm." in done.stderr
    assert "failed in step: check tools" in done.stderr


def test_an_engine_that_does_not_respond_is_reported(kind):
    done = kind.run("kind", "check_tools", ENGINE="1")
    assert done.returncode == 1
    assert "its engine does not respond" in done.stderr


def test_the_error_for_an_unknown_step_lists_the_steps(kind):
    done = kind.run("kind", "aply_overlay")
    assert done.returncode == 1
    assert "apply_overlay" in done.stderr


def test_the_cluster_file_has_the_urls_claims_and_accounts_of_the_overlays():
    cluster = ClusterSettings.parse(yaml.safe_load((LOCAL / "cluster.yaml").read_text("utf-8")))
    for overlay in ("kind", "minikube"):
        built = list(yaml.safe_load_all((GOLDEN / f"{overlay}.yaml").read_text("utf-8")))
        named = {(o["kind"], o["metadata"]["name"], o["metadata"].get("namespace")) for o in built}
        for account in cluster.service_accounts.values():
            assert ("ServiceAccount", account, cluster.runs_in) in named
        for volume in cluster.volumes:
            assert ("PersistentVolumeClaim", volume.claim, cluster.runs_in) in named
        configs = [o["data"] for o in built if o["metadata"]["name"] == "refit-config"]
        config = configs[0]
        assert configs == [config] * 2  # of the recommender, and where the steps run
        assert cluster.registry == config["REFIT_REGISTRY"]
        assert cluster.predictions == config["REFIT_PREDICTIONS"]
        assert cluster.environment["AWS_ENDPOINT_URL"] == config["AWS_ENDPOINT_URL"]
        (rollout,) = (o["data"] for o in built if o["metadata"]["name"] == "refit-cluster")
        of_rollout = ClusterSettings.parse(yaml.safe_load(rollout["cluster.yaml"]))
        assert (cluster.outcomes, cluster.rollout) == (of_rollout.outcomes, of_rollout.rollout)
