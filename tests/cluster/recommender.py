"""The recommender on a test cluster, as kustomize/ has it, and people who keep asking it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.kubernetes import Cluster, Manifest
from tests.cluster.object_store import ObjectStore
from tests.cluster.pods import pod
from tests.cluster.refit_command import store_secret
from tests.cluster.settings import ROOT

NAMESPACE = "refit"
SERVICE = "http://recommender.refit.svc.cluster.local.:9000"
REGISTRY = "s3://refit/registry"
PREDICTIONS = "s3://refit/predictions"
COMPONENTS = ("seldon", "one-node", "model-server-stand-in")
RUN_MAIN_IMAGE = ("Deployment", "PersistentVolumeClaim")
"""Kinds of what runs the main image: review page, rollout, claims of steps."""


def refit_manifests(
    cluster: Cluster, folder: Path, *components: str, patches: list[Manifest] | None = None
) -> list[Manifest]:
    """The manifests of kustomize/ for one machine.

    Args:
        cluster: Whose kubectl builds them.
        folder: An empty one, for the kustomization.
        components: Further components.
        patches: The kustomization's patches.
    """
    up = "/".join([".."] * len(folder.resolve().parts[1:]))
    place = f"{up}{ROOT}/kustomize"
    kustomization = {
        "resources": [f"{place}/base"],
        "components": [f"{place}/components/{name}" for name in (*COMPONENTS, *components)],
        "patches": patches or [],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return list(yaml.safe_load_all(cluster.kubectl("kustomize", folder)))


def recommender_manifests(cluster: Cluster, folder: Path) -> list[Manifest]:
    """The same without what runs the main image."""
    built = refit_manifests(cluster, folder)
    return [one for one in built if one["kind"] not in RUN_MAIN_IMAGE]


def install_recommender(cluster: Cluster, store: ObjectStore, manifests: list[Manifest]) -> None:
    """Apply the recommender's manifests and the secret that they refer to."""
    cluster.apply([one for one in manifests if one["kind"] == "Namespace"])
    secret = store_secret(store.key, store.secret, NAMESPACE)
    cluster.apply([secret, *(one for one in manifests if one["kind"] != "Namespace")])


def deployer(cluster: Cluster) -> Any:
    """A client with the token of the service account refit-deployer, and nothing else."""
    from kubernetes import client

    admin = cluster.client().configuration
    token = cluster.kubectl("create", "token", "refit-deployer", "-n", NAMESPACE).strip()
    configuration = client.Configuration(
        host=admin.host,
        api_key={"authorization": token},
        api_key_prefix={"authorization": "Bearer"},
    )
    configuration.ssl_ca_cert = admin.ssl_ca_cert
    return client.ApiClient(configuration)


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
