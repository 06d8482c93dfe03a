"""Traefik in the cluster: the controller and the data plane of a Gateway of the Gateway API."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.machine import binaries
from tests.machine.archives import Image, image_of_files
from tests.machine.binaries import GoPrograms
from tests.machine.commands import timed
from tests.machine.kfp.programs import cached_folder, folder_for
from tests.machine.kubernetes import Cluster, Manifest
from tests.machine.settings import GO_MODULES, MANIFESTS, ROOT

NAMESPACE, GATEWAY = "gateways", "recommender"
"""Those that the routes of kustomize/components/gateway name."""
IMAGE = "localhost/traefik:test"
TRAEFIK = "github.com/traefik/traefik/v3"
ROLES = "docs/content/reference/dynamic-configuration/kubernetes-gateway-rbac.yml"
LEGO = "github.com/go-acme/lego/v4"
FOLDER = GO_MODULES / "traefik"
NO_PROVIDERS = FOLDER / "providers.go"
WITHOUT_PROVIDERS, REPLACED_MOD = "lego-without-providers", "replaced.mod"
PINS = (FOLDER / "go.mod", FOLDER / "go.sum", NO_PROVIDERS)
GATEWAY_API = "sigs.k8s.io/gateway-api"
KINDS = (
    *("gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants"),
    "backendtlspolicies",
)


@dataclass(frozen=True)
class Gateway:
    """A running Gateway.

    Attributes:
        http: URL of its listener for HTTP, for this host.
        grpc: ``host:port`` of its listener for gRPC.
    """

    http: str
    grpc: str


def is_built() -> bool:
    """Whether the cache contains Traefik.

    Raises:
        UnsupportedHostError: Go is missing, or older than go.mod requires.
    """
    return binaries.is_built(_programs())


def traefik_image() -> Image:
    """Traefik without its clients of DNS providers, built from its Go module."""
    cached_folder(WITHOUT_PROVIDERS, PINS, _replace_providers)
    program = binaries.build(_programs()) / "traefik"
    return image_of_files(IMAGE, {"/traefik": program}, entrypoint=["/traefik"], user="1000:1000")


def apply_gateway_api(cluster: Cluster, *kinds: str) -> None:
    """Apply the Gateway API's definitions of some kinds; of all that Traefik needs, if none."""
    module = binaries.module_folder(GoPrograms(folder=ROOT / "tests/kustomize/crds"), GATEWAY_API)
    for kind in kinds or KINDS:
        cluster.apply(module / "config/crd/standard" / f"gateway.networking.k8s.io_{kind}.yaml")
    for kind in kinds or KINDS:
        cluster.wait(f"crd/{kind}.gateway.networking.k8s.io", "condition=Established")


def install_gateway(cluster: Cluster) -> Gateway:
    """Install Traefik with its own roles, a GatewayClass and a Gateway.

    Raises:
        ServiceUnreachable: Its pod, or the Gateway, did not become ready.
    """
    with timed("the Gateway is ready"):
        cluster.ensure_image(traefik_image())
        apply_gateway_api(cluster)
        cluster.apply(MANIFESTS / "gateway.yaml")
        cluster.apply(_roles())
        cluster.wait_for_rollout("deployment/traefik", NAMESPACE)
        cluster.wait(f"gateway/{GATEWAY}", "condition=Programmed", NAMESPACE)
        service = cluster.get("service", "traefik", NAMESPACE)["spec"]
    ports = {one["name"]: one["port"] for one in service["ports"]}
    host = service["clusterIP"]
    return Gateway(f"http://{host}:{ports['http']}", f"{host}:{ports['grpc']}")


def _roles() -> list[Manifest]:
    """The roles that Traefik documents, for our account."""
    module = binaries.module_folder(GoPrograms(folder=FOLDER), TRAEFIK)
    roles: list[dict[str, Any]] = list(yaml.safe_load_all((module / ROLES).read_text("utf-8")))
    for role in roles:
        if role["kind"] == "ClusterRoleBinding":
            role["subjects"] = [
                {"kind": "ServiceAccount", "name": "traefik", "namespace": NAMESPACE}
            ]
    return roles


def _programs() -> GoPrograms:
    replaced = folder_for(WITHOUT_PROVIDERS, PINS) / REPLACED_MOD
    packages = (f"{TRAEFIK}/cmd/traefik",)
    return GoPrograms(folder=FOLDER, packages=packages, flags=(f"-modfile={replaced}",))


def _replace_providers(folder: Path) -> None:
    """Copy lego, Traefik's client for certificates, and write a go.mod that uses the copy."""
    copy = folder / "lego"
    ignored = shutil.ignore_patterns("*_test.go", "cmd", "docs", "e2e", "providers")
    shutil.copytree(binaries.module_folder(GoPrograms(folder=FOLDER), LEGO), copy, ignore=ignored)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (copy / "providers/dns").mkdir(parents=True)
    shutil.copy(NO_PROVIDERS, copy / "providers/dns")
    final = folder_for(WITHOUT_PROVIDERS, PINS) / "lego"
    replaced = folder / REPLACED_MOD
    replaced.write_text(f"{PINS[0].read_text()}\nreplace {LEGO} => {final}\n")
    shutil.copy(PINS[1], replaced.with_suffix(".sum"))
