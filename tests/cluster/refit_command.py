"""The ``refit`` command, as a person uses it on the test cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.kfp.backend import NAMESPACE, Backend
from tests.cluster.kubernetes import Manifest
from tests.cluster.settings import ROOT

CONFIG = ROOT / "tests" / "cluster" / "configs" / "loop.yaml"
CHECKPOINTS, CHECKPOINTS_CLAIM = "/var/refit/checkpoints", "refit-checkpoints"
SECRET_NAME = "refit-object-store"
SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

Said = subprocess.CompletedProcess[str]


class RefitCommand:
    """Runs ``refit`` with a cluster file of its own.

    Args:
        backend: Where runs are submitted to.
        folder: For the cluster file.
        image: Of the steps.
        store: URL of the object store, as pods reach it.
        values: The rest of the cluster file.
    """

    def __init__(
        self, backend: Backend, folder: Path, image: str, store: str, **values: Any
    ) -> None:
        self.file = folder / "cluster.yaml"
        common = {
            "backend": "2.0",
            "endpoint": backend.endpoint,
            "runs_in": NAMESPACE,
            "image": image,
            "environment": {"AWS_ENDPOINT_URL": store, "AWS_DEFAULT_REGION": "us-east-1"},
            "secrets": [{"name": SECRET_NAME, "keys": list(SECRET_KEYS)}],
        }
        self.file.write_text(yaml.safe_dump(common | values))
        given = {"REFIT_CLUSTER": self.file, "KUBECONFIG": backend.cluster.kubeconfig}
        self._environment = os.environ | {name: str(value) for name, value in given.items()}
        self._environment.pop("REFIT_KFP_ENDPOINT", None)

    def __call__(self, *words: str | Path) -> Said:
        """Run it to its end, however it ends."""
        return self.start(*words, wait=True)

    def start(self, *words: str | Path, wait: bool = False) -> Any:
        """Start it; with ``wait``, run it to its end."""
        command = [sys.executable, "-m", "pipelines.cli", *map(str, words)]
        options: dict[str, Any] = {"text": True, "cwd": ROOT, "env": self._environment}
        if wait:
            return subprocess.run(command, capture_output=True, check=False, **options)
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, **options)

    def read(self, *words: str | Path) -> Any:
        """What it says with ``--json``; it has to succeed."""
        said = self(*words, "--json")
        assert said.returncode == 0, f"refit {' '.join(map(str, words))}: {said.stderr}"
        return json.loads(said.stdout)


def store_secret(key: str, secret: str, namespace: str) -> Manifest:
    """The secret with the object store's credentials."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET_NAME, "namespace": namespace},
        "stringData": dict(zip(SECRET_KEYS, (key, secret), strict=True)),
    }


def claim(name: str) -> Manifest:
    """A persistent claim beside the steps, as in ``kustomize/base``."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "5Gi"}},
        },
    }
