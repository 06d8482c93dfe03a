"""The ``refit`` command with a cluster file for the test cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.machine.kfp.backend import NAMESPACE, Backend
from tests.machine.kubernetes import Manifest
from tests.machine.settings import ROOT

CONFIG = ROOT / "tests" / "cluster" / "configs" / "loop.yaml"
CHECKPOINTS, CHECKPOINTS_CLAIM = "/var/refit/checkpoints", "refit-checkpoints"
SECRET_NAME = "refit-object-store"
SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

Completed = subprocess.CompletedProcess[str]


class RefitCommand:
    """Runs ``refit`` with a cluster file that it writes.

    Args:
        backend: The backend that runs are submitted to.
        folder: Folder of the cluster file.
        image: Image of the steps.
        store: URL of the object store for pods.
        values: Further settings of the cluster file.
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
        variables = {"REFIT_CLUSTER": self.file, "KUBECONFIG": backend.cluster.kubeconfig}
        self._environment = os.environ | {name: str(value) for name, value in variables.items()}
        self._environment.pop("REFIT_KFP_ENDPOINT", None)

    def __call__(self, *arguments: str | Path) -> Completed:
        """Run the command, whatever its exit code."""
        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
            capture_output=True,
            check=False,
            text=True,
            cwd=ROOT,
            env=self._environment,
        )

    def read(self, *arguments: str | Path) -> Any:
        """Run the command with ``--json`` and return its parsed output; it must succeed."""
        completed = self(*arguments, "--json")
        assert completed.returncode == 0, (
            f"refit {' '.join(map(str, arguments))}: {completed.stderr}"
        )
        return json.loads(completed.stdout)


def store_secret(key: str, secret: str, namespace: str) -> Manifest:
    """The secret with the object store's credentials."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET_NAME, "namespace": namespace},
        "stringData": dict(zip(SECRET_KEYS, (key, secret), strict=True)),
    }


def claim(name: str) -> Manifest:
    """A persistent volume claim in the steps' namespace, as in ``kustomize/base``."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "5Gi"}},
        },
    }
