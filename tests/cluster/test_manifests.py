"""What the API server says to our manifests and accounts."""

import os
from pathlib import Path

import pytest
import yaml

from components.deployment.cluster import SeldonCluster
from components.deployment.routes import weights_of
from refit.errors import ServiceUnreachable, UsageError
from tests.cluster.binaries import GoPrograms, module_folder
from tests.cluster.commands import CommandFailed, wait_for
from tests.cluster.kubernetes import Cluster, Manifest, as_list
from tests.cluster.pods import namespace
from tests.cluster.recommender import deployer
from tests.cluster.settings import ROOT
from tests.kustomize.manifests import OVERLAYS, overlays
from tests.kustomize.pods import pod_specs

pytestmark = pytest.mark.cluster

TESTS = ROOT / "tests" / "kustomize"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator"
PROMETHEUS_KINDS = ("servicemonitors", "prometheusrules")
GATEWAY_API = "sigs.k8s.io/gateway-api"
ROUTES = ("httproutes", "grpcroutes")
DRY_RUN = (
    *("apply", "--server-side", "--force-conflicts"),
    *("--dry-run=server", "--validate=strict", "-f", "-"),
)
ALLOWED = r'jsonpath={.status.allowed}{"\n"}'
SUBRESOURCES = ("log", "exec", "eviction", "status", "token")
TABLE = yaml.safe_load((TESTS / "can_i.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def installed(seldon: Cluster) -> Cluster:
    """A cluster with all kinds that the overlays have, our namespace, accounts and roles."""
    modules = GoPrograms(folder=TESTS / "crds")
    prometheus = module_folder(modules, PROMETHEUS_OPERATOR) / "example/prometheus-operator-crd"
    gateway = module_folder(modules, GATEWAY_API) / "config/crd/standard"
    crds = [prometheus / f"monitoring.coreos.com_{kind}.yaml" for kind in PROMETHEUS_KINDS]
    crds += [gateway / f"gateway.networking.k8s.io_{kind}.yaml" for kind in ROUTES]
    for crd in crds:
        seldon.apply(crd)
    for kind in (*PROMETHEUS_KINDS, *ROUTES):
        wait_for(kind, lambda kind=kind: seldon.kubectl("get", kind, "-A", "-o", "name") == "", 30)
    seldon.apply([namespace("kubeflow", **{"pod-security.kubernetes.io/enforce": "privileged"})])
    for kinds in (("Namespace", "ServiceAccount"), ("Role", "RoleBinding")):
        seldon.apply([one for one in objects("production") if one["kind"] in kinds])
    return seldon


@pytest.mark.parametrize("name", overlays())
def test_the_api_server_takes_an_overlay(installed: Cluster, name: str) -> None:
    """Built as ``kubectl apply -k`` does; ``make manifests`` holds it against a golden file."""
    built = installed.kubectl("kustomize", OVERLAYS / name)
    told = installed.kubectl(*DRY_RUN, text=built).splitlines()
    assert len(told) == len(objects(name))
    assert all(line.endswith("(server dry run)") for line in told)


@pytest.mark.parametrize("name", overlays())
def test_the_namespace_takes_every_pod(installed: Cluster, name: str) -> None:
    """A Deployment is taken with a warning where its pods would be refused: ask with the pods."""
    specs = dict(pod_specs(objects(name)))
    assert set(specs) >= {"Deployment/review"}
    pods = [pod(who, spec) for who, spec in specs.items()]
    installed.kubectl(*DRY_RUN, text=as_list(pods))


def test_the_namespace_refuses_a_pod_that_may_become_root(installed: Cluster) -> None:
    specs = dict(pod_specs(objects("kind")))
    careless = pod("careless", specs["Deployment/review"])
    del careless["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"]
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        installed.kubectl(*DRY_RUN, text=as_list([careless]))


def test_a_component_builds_with_another(installed: Cluster, tmp_path: Path) -> None:
    """Those that no overlay has, such as canary and gateway beside Seldon, a GPU without it."""
    for names in (
        ["seldon", "canary", "gpu"],
        ["seldon", "gateway"],
        ["seldon", "model-server-stand-in"],
        ["plain", "gpu"],
        ["plain", "postgres", "kubeflow-steps"],
    ):
        manifests = build_components(installed, names, tmp_path / "-".join(names))
        installed.kubectl(*DRY_RUN, text=manifests)


@pytest.mark.parametrize("account", TABLE["accounts"])
def test_an_account_may_do_what_the_table_says(installed: Cluster, account: str) -> None:
    questions = list(TABLE["questions"])
    reviews = as_list(review(account, question) for question in questions)
    answers = installed.kubectl("create", "-f", "-", "-o", ALLOWED, text=reviews).split()
    allowed = {q for q, answer in zip(questions, answers, strict=True) if answer == "true"}
    assert allowed == {q for q, accounts in TABLE["questions"].items() if account in accounts}


def test_the_deployer_makes_our_deployment_and_no_other(installed: Cluster) -> None:
    (ours,) = [one for one in objects("kind") if one["kind"] == "SeldonDeployment"]
    another = {**ours, "metadata": {**ours["metadata"], "name": "another"}}
    as_deployer = (*DRY_RUN, "--as=system:serviceaccount:refit:refit-deployer")
    installed.kubectl(*as_deployer, text=as_list([ours]))
    with pytest.raises(CommandFailed, match='"another" is forbidden'):
        installed.kubectl(*as_deployer, text=as_list([another]))


def test_the_deployer_splits_by_the_gateway_api(installed: Cluster, tmp_path: Path) -> None:
    built = yaml.safe_load_all(build_components(installed, ["seldon", "gateway"], tmp_path))
    mine = [one for one in built if one["kind"] in ("Role", "HTTPRoute", "GRPCRoute")]
    another = {**mine[-1], "metadata": {**mine[-1]["metadata"], "name": "another"}}
    installed.apply([*mine, another])
    cluster = SeldonCluster("refit", "refit", client=deployer(installed))
    for weights in ({"main": 90, "canary": 10}, {"main": 100}):
        cluster.split(weights)
        for kind in ROUTES:
            assert weights_of(installed.get(kind, "refit", "refit"), "refit") == weights
    with pytest.raises(ServiceUnreachable, match="refuses"):
        SeldonCluster("refit", "another", client=deployer(installed)).split({"main": 100})
    installed.kubectl("delete", "httproute,grpcroute", "--all", "-n", "refit")
    with pytest.raises(UsageError, match="neither an HTTPRoute nor a GRPCRoute"):
        cluster.split({"main": 100})


def review(account: str, question: str) -> Manifest:
    """A question of the table, as the API server is asked it."""
    verb, what = question.split(" ")
    kind, _, part = what.partition("/")
    resource, _, group = kind.partition(".")
    asked = {"verb": verb, "resource": resource, "group": group, "namespace": TABLE["namespace"]}
    asked["subresource" if part in SUBRESOURCES else "name"] = part
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{TABLE['namespace']}:{account}",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": asked,
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
    kustomize = Path(
        os.path.relpath(ROOT / "kustomize", folder)
    )  # kustomize takes no absolute path
    wanted = {
        "resources": [str(kustomize / "base")],
        "components": [str(kustomize / "components" / name) for name in names],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(wanted), "utf-8")
    return cluster.kubectl("kustomize", folder)
