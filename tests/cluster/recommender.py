"""The recommender on a test cluster, installed from kustomize/, and a steady load on it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.refit_command import store_secret
from tests.machine.kubernetes import Cluster, Manifest
from tests.machine.object_store import ObjectStore
from tests.machine.pods import pod
from tests.machine.settings import ROOT

NAMESPACE = "refit"
SERVICE = "http://recommender.refit.svc.cluster.local.:9000"
REGISTRY = "s3://refit/registry"
PREDICTIONS = "s3://refit/predictions"
COMPONENTS = ("seldon", "one-node", "model-server-stand-in")
WITH_MAIN_IMAGE = ("Deployment", "PersistentVolumeClaim")
"""Kinds of the objects that need the main image: review page, rollout, claims of steps."""
OF_RECOMMENDER = ("Deployment/recommender", "CronJob/landing")
SMALL = {"cpu": "100m", "memory": "384Mi"}
"""Resource requests with which several recommenders fit on a node of two processors."""


def refit_manifests(
    cluster: Cluster, folder: Path, *components: str, patches: list[Manifest] | None = None
) -> list[Manifest]:
    """Build the manifests of kustomize/ for one node.

    Args:
        cluster: The cluster whose kubectl builds them.
        folder: An empty folder for the kustomization.
        components: Further components.
        patches: Patches of the kustomization.
    """
    names = (*COMPONENTS, *components)
    return build_manifests(cluster, folder, "base", names, patches=patches or [])


def build_manifests(
    cluster: Cluster, folder: Path, resource: str, components: Sequence[str], **more: Any
) -> list[Manifest]:
    """Build a folder of kustomize/ with components.

    Args:
        cluster: The cluster whose kubectl builds them.
        folder: An empty folder for the kustomization.
        resource: Such as ``overlays/plain``.
        components: Their names.
        more: Further fields of the kustomization, such as ``namespace`` and ``patches``.
    """
    to_root = "/".join([".."] * len(folder.resolve().parts[1:]))
    source = f"{to_root}{ROOT}/kustomize"
    kustomization = {
        "resources": [f"{source}/{resource}"],
        "components": [f"{source}/components/{name}" for name in components],
        **more,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return list(yaml.safe_load_all(cluster.kubectl("kustomize", folder)))


def recommender_manifests(cluster: Cluster, folder: Path) -> list[Manifest]:
    """The same, without the objects that need the main image."""
    manifests = refit_manifests(cluster, folder)
    return without_main_image(manifests)


def without_main_image(manifests: Iterable[Manifest]) -> list[Manifest]:
    """What of these manifests does not need the main image."""
    return [
        one
        for one in manifests
        if one["kind"] not in WITH_MAIN_IMAGE
        or f"{one['kind']}/{one['metadata']['name']}" in OF_RECOMMENDER
    ]


def patch(kind: str, name: str, values: Mapping[str, Any]) -> Manifest:
    """A patch of a kustomization that sets values.

    Args:
        kind: Kind of the objects.
        name: Regular expression of their names.
        values: By their paths, such as ``/spec/replicas``.
    """
    # "add" also replaces what is there.
    operations = [{"op": "add", "path": path, "value": value} for path, value in values.items()]
    return {"target": {"kind": kind, "name": name}, "patch": yaml.safe_dump(operations)}


def install_recommender(
    cluster: Cluster, store: ObjectStore, manifests: list[Manifest], namespace: str = NAMESPACE
) -> None:
    """Apply the recommender's manifests and the secret that they refer to."""
    cluster.apply([one for one in manifests if one["kind"] == "Namespace"])
    secret = store_secret(store.key, store.secret, namespace)
    cluster.apply([secret, *(one for one in manifests if one["kind"] != "Namespace")])


def deployer(cluster: Cluster) -> Any:
    """A client that authenticates as the service account refit-deployer."""
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
class LoadReport:
    """Results of a steady load so far.

    Attributes:
        answers: Number of answers by bundle id.
        fallbacks: Number of answers from the popularity fallback, by bundle id.
        failures: Error messages of failed requests.
        slowest_ms: Latency of the slowest answer.
    """

    answers: dict[str, int]
    fallbacks: dict[str, int]
    failures: list[str]
    slowest_ms: float

    @property
    def total(self) -> int:
        """Number of answers."""
        return sum(self.answers.values())


class SteadyLoad:
    """A pod that sends requests to the recommender's Service, each on a new connection.

    Args:
        cluster: The cluster that it runs in.
        image: An image with Python.
        rate: Requests per second.
        body: The request, without its id.
    """

    NAME = "load"

    def __init__(self, cluster: Cluster, image: str, rate: float, body: dict[str, Any]) -> None:
        self._cluster = cluster
        program = Path(__file__).with_name("load.py").read_text(encoding="utf-8")
        command = ["python3", "-c", program, SERVICE, str(rate), json.dumps(body)]
        cluster.apply([pod(self.NAME, NAMESPACE, image, command)])
        cluster.wait(f"pod/{self.NAME}", "condition=Ready", NAMESPACE)

    def read(self) -> LoadReport:
        """The results until a second ago."""
        last = self._cluster.kubectl("logs", self.NAME, "-n", NAMESPACE, "--tail=1")
        return LoadReport(
            **json.loads(last or '{"answers":{},"fallbacks":{},"failures":[],"slowest_ms":0}')
        )

    def stop(self) -> None:
        """Delete the pod; may be called again."""
        options = ("-n", NAMESPACE, "--grace-period=0", "--force", "--ignore-not-found")
        self._cluster.kubectl("delete", "pod", self.NAME, *options)
