"""The real Seldon Core operator with its validating webhook, installed from its own manifests.

Seldon Core 1.19 is under the Business Source License 1.1. Tests are not production use; production
use requires a licence from Seldon.
"""

import base64
from functools import partial
from pathlib import Path
from typing import Any

from tests.machine import binaries
from tests.machine.archives import Image, image_of_files
from tests.machine.certificates import Authority
from tests.machine.commands import timed, wait_for
from tests.machine.kubernetes import Cluster, Manifest, to_list
from tests.machine.steps import run_steps

NAMESPACE = "seldon-system"
OPERATOR = "github.com/seldonio/seldon-core/operator"
WEBHOOK = f"seldon-webhook-service.{NAMESPACE}.svc"
IMAGE = "localhost/seldon-operator:test"
CERTIFICATE_SECRET = "seldon-webhook-server-cert"
ISTIO_GATEWAY = "istio-system/seldon-gateway"
SETTINGS = {
    "ISTIO_ENABLED": "true",
    "ISTIO_GATEWAY": ISTIO_GATEWAY,
    "AMBASSADOR_ENABLED": "false",
    "MANAGER_LEADER_ELECTION_RETRY_PERIOD_SECS": "0",  # the manifests have "", which is no number
}


def install_seldon(cluster: Cluster) -> None:
    """Install the operator, its CRDs and Istio's, and wait until it accepts SeldonDeployments.

    With Istio's CRDs the operator writes a VirtualService; no mesh is installed. The operator runs
    with its own service account and roles.

    Raises:
        ServiceUnreachable: Its pod did not become ready.
    """
    programs = binaries.seldon()
    with timed("Seldon's operator is ready"):
        cluster.ensure_image(operator_image())
        istio = binaries.module_folder(programs, "istio.io/api")
        cluster.apply(istio / "kubernetes" / "customresourcedefinitions.gen.yaml")
        manifests = operator_manifests(cluster, binaries.module_folder(programs, OPERATOR))
        manifests_file(cluster).write_text(to_list(manifests), encoding="utf-8")
        run_steps(cluster, ["install_seldon"], SELDON_MANIFESTS=str(manifests_file(cluster)))
        try_apply = partial(cluster.apply, [_minimal_deployment()], "--dry-run=server")
        wait_for("the webhook's service", try_apply, cluster.settings.ready_seconds)


def operator_image() -> Image:
    """The operator, built from its Go module."""
    operator = binaries.build(binaries.seldon()) / "operator"
    return image_of_files(IMAGE, {"/manager": operator}, entrypoint=["/manager"], user="8888")


def manifests_file(cluster: Cluster) -> Path:
    """The file of the manifests that were applied to a cluster."""
    return cluster.node.folder / "var" / "seldon.json"


def operator_manifests(cluster: Cluster, module: Path) -> list[Manifest]:
    """The module's own manifests, with our image, and our certificate instead of cert-manager's."""
    import yaml

    built = cluster.kubectl("kustomize", module / "config" / "default")
    manifests = list(yaml.load_all(built, yaml.CSafeLoader))
    keys = cluster.node.folder / "etc" / "seldon"
    if not keys.exists():  # a running operator would not reload another certificate
        Authority(keys, "authority").issue("webhook", WEBHOOK, hosts=[WEBHOOK])
    kept: list[Manifest] = [_certificate_secret(keys / "webhook.crt", keys / "webhook.key")]
    for manifest in manifests:
        if manifest["apiVersion"].startswith("cert-manager.io"):
            continue
        if manifest["kind"] == "Deployment":
            _use_our_image(manifest)
        if manifest["kind"] == "ValidatingWebhookConfiguration":
            bundle = base64.b64encode((keys / "authority.crt").read_bytes()).decode()
            for webhook in manifest["webhooks"]:
                webhook["clientConfig"]["caBundle"] = bundle
        kept.append(manifest)
    return kept


def _minimal_deployment() -> Manifest:
    predictor = {
        "name": "main",
        "annotations": {"seldon.io/no-engine": "true"},
        "graph": {"name": "model", "type": "MODEL"},
        "componentSpecs": [{"spec": {"containers": [{"name": "model", "image": "none"}]}}],
    }
    return {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {"predictors": [predictor]},
    }


def _use_our_image(deployment: dict[str, Any]) -> None:
    (manager,) = deployment["spec"]["template"]["spec"]["containers"]
    manager |= {"image": IMAGE, "imagePullPolicy": "Never"}
    # Ready only when the webhook listens: until then every SeldonDeployment is rejected.
    manager["readinessProbe"] = {"tcpSocket": {"port": "webhook-server"}, "periodSeconds": 1}
    kept = [variable for variable in manager["env"] if variable["name"] not in SETTINGS]
    ours = [{"name": name, "value": value} for name, value in SETTINGS.items()]
    manager["env"] = kept + ours


def _certificate_secret(certificate: Path, key: Path) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": CERTIFICATE_SECRET, "namespace": NAMESPACE},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": certificate.read_text(), "tls.key": key.read_text()},
    }
