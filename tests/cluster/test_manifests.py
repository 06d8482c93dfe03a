"""The API server accepts our manifests, and our accounts have the intended permissions."""

import os
from pathlib import Path

import pytest
import yaml

from components.deployment.cluster import SeldonCluster
from components.deployment.routes import weights_of
from refit.errors import ServiceUnreachable, UsageError
from tests.cluster.recommender import deployer
from tests.kustomize.manifests import OVERLAYS, overlays
from tests.kustomize.pods import pod_specs
from tests.machine.binaries import GoPrograms, module_folder
from tests.machine.commands import CommandError, wait_for
from tests.machine.kubernetes import Cluster, Manifest, to_list
from tests.machine.pods import namespace
from tests.machine.settings import ROOT
from tests.machine.traefik import apply_gateway_api

pytestmark = pytest.mark.cluster

TESTS = ROOT / "tests" / "kustomize"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator"
PROMETHEUS_KINDS = ("servicemonitors", "prometheusrules")
ROUTES = ("httproutes", "grpcroutes")
OF_KSERVE = "InferenceService"
DRY_RUN = (
    *("apply", "--server-side", "--force-conflicts"),
    *("--dry-run=server", "--validate=strict", "-f", "-"),
)
ALLOWED = r'jsonpath={.status.allowed}{"\n"}'
SUBRESOURCES = ("log", "exec", "eviction", "status", "token")
TABLE = yaml.safe_load((TESTS / "can_i.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def installed(seldon: Cluster) -> Cluster:
    """A cluster with the CRDs that the overlays use, and our namespace, accounts and roles."""
    modules = GoPrograms(folder=TESTS / "crds")
    prometheus = module_folder(modules, PROMETHEUS_OPERATOR) / "example/prometheus-operator-crd"
    crds = [prometheus / f"monitoring.coreos.com_{kind}.yaml" for kind in PROMETHEUS_KINDS]
    for crd in crds:
        seldon.apply(crd)
    for kind in PROMETHEUS_KINDS:
        wait_for(kind, lambda kind=kind: seldon.kubectl("get", kind, "-A", "-o", "name") == "", 30)
    apply_gateway_api(seldon, *ROUTES)
    seldon.apply([namespace("kubeflow", **{"pod-security.kubernetes.io/enforce": "privileged"})])
    for kinds in (("Namespace", "ServiceAccount"), ("Role", "RoleBinding")):
        seldon.apply([one for one in objects("production") if one["kind"] in kinds])
    return seldon


@pytest.mark.parametrize("name", overlays())
def test_the_api_server_accepts_an_overlay(installed: Cluster, name: str) -> None:
    """Built like ``kubectl apply -k``; ``make manifests`` compares it with a golden file."""
    built = without_kserve(installed.kubectl("kustomize", OVERLAYS / name))
    lines = installed.kubectl(*DRY_RUN, text=built).splitlines()
    assert len(lines) == len([one for one in objects(name) if one["kind"] != OF_KSERVE])
    assert all(line.endswith("(server dry run)") for line in lines)


@pytest.mark.parametrize("name", overlays())
def test_the_namespace_admits_every_pod(installed: Cluster, name: str) -> None:
    """Checked with pods: a Deployment is accepted even if its pods would be rejected."""
    specs = dict(pod_specs(objects(name)))
    assert set(specs) >= {"Deployment/review"}
    pods = [pod(owner, spec) for owner, spec in specs.items()]
    installed.kubectl(*DRY_RUN, text=to_list(pods))


def test_the_namespace_rejects_a_pod_that_may_become_root(installed: Cluster) -> None:
    specs = dict(pod_specs(objects("kind")))
    privileged = pod("privileged", specs["Deployment/review"])
    del privileged["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"]
    with pytest.raises(CommandError, match="violates PodSecurity"):
        installed.kubectl(*DRY_RUN, text=to_list([privileged]))


def test_components_can_be_combined(installed: Cluster, tmp_path: Path) -> None:
    """Combinations that no overlay has, such as canary and gateway with Seldon, GPU without."""
    for names in (
        ["seldon", "canary", "gpu"],
        ["seldon", "gateway"],
        ["seldon", "model-server-stand-in"],
        ["plain", "gpu"],
        ["plain", "postgres", "kubeflow-steps"],
        ["kserve", "gateway", "kserve-canary", "gpu"],
    ):
        manifests = build_components(installed, names, tmp_path / "-".join(names))
        installed.kubectl(*DRY_RUN, text=without_kserve(manifests))


@pytest.mark.parametrize("account", TABLE["accounts"])
def test_an_account_has_exactly_the_permissions_of_the_table(
    installed: Cluster, account: str
) -> None:
    actions = list(TABLE["actions"])
    reviews = to_list(review(account, action) for action in actions)
    answers = installed.kubectl("create", "-f", "-", "-o", ALLOWED, text=reviews).split()
    allowed = {a for a, answer in zip(actions, answers, strict=True) if answer == "true"}
    assert allowed == {a for a, accounts in TABLE["actions"].items() if account in accounts}


def test_the_deployer_may_create_only_our_deployment(installed: Cluster) -> None:
    (ours,) = [one for one in objects("kind") if one["kind"] == "SeldonDeployment"]
    another = {**ours, "metadata": {**ours["metadata"], "name": "another"}}
    as_deployer = (*DRY_RUN, "--as=system:serviceaccount:refit:refit-deployer")
    installed.kubectl(*as_deployer, text=to_list([ours]))
    with pytest.raises(CommandError, match='"another" is forbidden'):
        installed.kubectl(*as_deployer, text=to_list([another]))


def test_the_deployer_may_split_traffic_by_the_gateway_api(
    installed: Cluster, tmp_path: Path
) -> None:
    built = yaml.safe_load_all(build_components(installed, ["seldon", "gateway"], tmp_path))
    ours = [one for one in built if one["kind"] in ("Role", "HTTPRoute", "GRPCRoute")]
    another = {**ours[-1], "metadata": {**ours[-1]["metadata"], "name": "another"}}
    installed.apply([*ours, another])
    cluster = SeldonCluster("refit", "refit", client=deployer(installed))
    for weights in ({"main": 90, "canary": 10}, {"main": 100}):
        cluster.split(weights)
        for kind in ROUTES:
            assert weights_of(installed.get(kind, "refit", "refit"), "refit") == weights
    with pytest.raises(ServiceUnreachable, match="denies access"):
        SeldonCluster("refit", "another", client=deployer(installed)).split({"main": 100})
    installed.kubectl("delete", "httproute,grpcroute", "--all", "-n", "refit")
    with pytest.raises(UsageError, match="neither an HTTPRoute nor a GRPCRoute"):
        cluster.split({"main": 100})


def without_kserve(manifests: str) -> str:
    """All but InferenceServices: their definition is in no module that can be had here."""
    every = yaml.safe_load_all(manifests)
    return yaml.safe_dump_all([one for one in every if one["kind"] != OF_KSERVE])


def review(account: str, action: str) -> Manifest:
    """A SubjectAccessReview for an action of the table."""
    verb, target = action.split(" ")
    kind, _, part = target.partition("/")
    resource, _, group = kind.partition(".")
    attributes = {"verb": verb, "resource": resource, "group": group}
    attributes["namespace"] = TABLE["namespace"]
    attributes["subresource" if part in SUBRESOURCES else "name"] = part
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{TABLE['namespace']}:{account}",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": attributes,
        },
    }


def pod(name: str, spec: Manifest) -> Manifest:
    metadata = {"name": name.replace("/", "-").lower(), "namespace": "refit"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def objects(overlay: str) -> list[Manifest]:
    golden = TESTS / "golden" / f"{overlay}.yaml"
    return list(yaml.safe_load_all(golden.read_text("utf-8")))


def build_components(cluster: Cluster, names: list[str], folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    # kustomize does not accept absolute paths.
    kustomize = Path(os.path.relpath(ROOT / "kustomize", folder))
    kustomization = {
        "resources": [str(kustomize / "base")],
        "components": [str(kustomize / "components" / name) for name in names],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), "utf-8")
    return cluster.kubectl("kustomize", folder)
