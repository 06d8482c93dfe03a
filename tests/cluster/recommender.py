"""The recommender on a test cluster, as kustomize/ has it, and people who keep asking it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.kubernetes import Cluster, Manifest
from tests.cluster.object_store import ObjectStore
from tests.cluster.pods import pod
from tests.cluster.settings import ROOT

NAMESPACE = "refit"
SERVICE = "http://recommender.refit.svc.cluster.local.:9000"
REGISTRY = "s3://refit/registry"
PREDICTIONS = "s3://refit/predictions"
KUSTOMIZATION = """\
resources: [{root}/kustomize/base]
components:
  - {root}/kustomize/components/seldon
  - {root}/kustomize/components/one-node
  - {root}/kustomize/components/model-server-stand-in
"""
NOT_NEEDED = ("Deployment", "PersistentVolumeClaim")
"""What runs the main image: review page and rollout."""


def recommender_manifests(cluster: Cluster, folder: Path) -> list[Manifest]:
    """The manifests of kustomize/ for one machine, without what runs the main image.

    Args:
        cluster: Whose kubectl builds them.
        folder: An empty one, for the kustomization.
    """
    up = "/".join([".."] * len(folder.resolve().parts[1:]))
    (folder / "kustomization.yaml").write_text(KUSTOMIZATION.format(root=f"{up}{ROOT}"))
    built = list(yaml.safe_load_all(cluster.kubectl("kustomize", folder)))
    return [one for one in built if one["kind"] not in NOT_NEEDED]


def install_recommender(cluster: Cluster, store: ObjectStore, manifests: list[Manifest]) -> None:
    """Apply the recommender's manifests and the secret that they refer to."""
    cluster.apply([one for one in manifests if one["kind"] == "Namespace"])
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "refit-object-store", "namespace": NAMESPACE},
        "stringData": {"AWS_ACCESS_KEY_ID": store.key, "AWS_SECRET_ACCESS_KEY": store.secret},
    }
    cluster.apply([secret, *(one for one in manifests if one["kind"] != "Namespace")])


@dataclass(frozen=True)
class Asked:
    """What a steady load has seen so far.

    Attributes:
        answers: By bundle id.
        fallbacks: Of these, by bundle id.
        failures: Everything that was not an answer, in words.
        slowest_ms: The longest that an answer took.
    """

    answers: dict[str, int]
    fallbacks: dict[str, int]
    failures: list[str]
    slowest_ms: float

    @property
    def total(self) -> int:
        """How many were answered."""
        return sum(self.answers.values())


class SteadyLoad:
    """A pod that asks the recommender's Service at a steady rate, on a new connection each time."""

    NAME = "people"

    def __init__(self, cluster: Cluster, image: str, rate: float, body: dict[str, Any]) -> None:
        self._cluster = cluster
        program = Path(__file__).with_name("people.py").read_text(encoding="utf-8")
        command = ["python3", "-c", program, SERVICE, str(rate), json.dumps(body)]
        cluster.apply([pod(self.NAME, NAMESPACE, image, command)])
        cluster.wait(f"pod/{self.NAME}", "condition=Ready", NAMESPACE)

    def seen(self) -> Asked:
        """What it has seen until a second ago."""
        last = self._cluster.kubectl("logs", self.NAME, "-n", NAMESPACE, "--tail=1")
        return Asked(
            **json.loads(last or '{"answers":{},"fallbacks":{},"failures":[],"slowest_ms":0}')
        )

    def end(self) -> None:
        """End the pod; safe to repeat."""
        options = ("-n", NAMESPACE, "--grace-period=0", "--force", "--ignore-not-found")
        self._cluster.kubectl("delete", "pod", self.NAME, *options)
