"""The checks of a cluster, against stand-ins for both APIs, and a real object store's protocol."""

import json

import pytest
import yaml

from pipelines.cluster.settings import ClusterSettings
from pipelines.doctor.checks import run_check
from pipelines.doctor.cluster import ClusterDoctor, check_readable, needed_permissions
from tests.pipelines.cluster.standin import StandIn
from tests.pipelines.cluster.standin import serving as serving_pipelines
from tests.pipelines.doctor.kubernetes import KubernetesStandIn, serving, write_kubeconfig

RUNS = "/api/v1/namespaces/kubeflow"
SELDON = "/apis/machinelearning.seldon.io/v1"
OBJECTS = {
    RUNS,
    "/api/v1/namespaces/refit",
    f"{RUNS}/serviceaccounts/trainer",
    f"{RUNS}/secrets/store",
    f"{RUNS}/configmaps/config",
    f"{RUNS}/persistentvolumeclaims/checkpoints",
    SELDON,
    f"{SELDON}/namespaces/refit/seldondeployments/refit",
}


@pytest.fixture
def kubernetes(tmp_path, monkeypatch):
    """A stand-in for the API server, where everything is as it should be."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    known = KubernetesStandIn(objects=set(OBJECTS))
    with serving(known, tmp_path / "kubeconfig"):
        yield known


@pytest.fixture
def backend():
    with serving_pipelines(StandIn()) as standin:
        yield standin


@pytest.fixture
def values(backend, tmp_path):
    return {
        "endpoint": backend.url,
        "registry": "memory://registry",
        "predictions": "memory://predictions",
        "service_accounts": {"continuous_training": "trainer", "index_refresh": "trainer"},
        "secrets": [{"name": "store", "keys": ["KEY"]}],
        "config_maps": [{"name": "config", "keys": ["URL"]}],
        "volumes": [{"claim": "checkpoints", "path": "/var/refit/checkpoints"}],
    }


def examine(values, endpoint=""):
    checks = ClusterDoctor(ClusterSettings.parse(values), endpoint).checks()
    results = [result for subject, check in checks.items() for result in run_check(subject, check)]
    return {result.subject: result for result in results}


def faults(found):
    return {subject: result.detail for subject, result in found.items() if not result.ok}


def test_a_cluster_where_all_is_there(values, kubernetes):
    found = examine(values)
    assert not faults(found)
    assert found["Kubeflow Pipelines: release"].detail.startswith("2.17.0")
    assert "v1.34.4" in found["Kubernetes"].detail
    assert found["serviceaccounts/trainer"].ok
    assert found["seldondeployments/refit"].ok
    assert "has no bundles yet" in found["registry"].detail


def test_the_doctor_reads_no_secret(values, kubernetes):
    examine(values)
    assert all("PartialObjectMetadata" in accept for accept in kubernetes.accepted)


@pytest.mark.parametrize(
    ("path", "subject", "words"),
    [
        (RUNS, "namespace kubeflow", "it does not exist; it is for runs"),
        ("/api/v1/namespaces/refit", "namespace refit", "it is for the recommender"),
        (f"{RUNS}/serviceaccounts/trainer", "serviceaccounts/trainer", "not in namespace kubeflow"),
        (f"{RUNS}/secrets/store", "secrets/store", "create it, or correct the cluster file"),
        (f"{RUNS}/persistentvolumeclaims/checkpoints", "persistentvolumeclaims/checkpoints", "not"),
        (SELDON, "SeldonDeployment kind", "install Seldon Core's operator"),
        (
            f"{SELDON}/namespaces/refit/seldondeployments/refit",
            "seldondeployments/refit",
            "apply an overlay of kustomize/",
        ),
    ],
)
def test_what_is_missing_is_named(values, kubernetes, path, subject, words):
    kubernetes.objects.remove(path)
    found = faults(examine(values))
    assert words in found[subject]
    assert len(found) == 1
    kubernetes.objects.add(path)
    kubernetes.forbidden.add(path)
    found = examine(values)
    assert "it could not be checked" in found[subject].detail
    assert (found[subject].ok, found[subject].exit_code) == (False, 5)


def test_what_is_not_allowed_is_named(values, kubernetes):
    kubernetes.refused |= {"patch seldondeployments", "list pods"}
    found = faults(examine(values))
    assert (
        "not allowed to patch in namespace refit, for refit rollout"
        in (found["may get, patch seldondeployments.machinelearning.seldon.io"])
    )
    assert "may list pods" in found
    assert len(found) == 2


def test_each_setting_needs_its_own_permissions():
    def needed(**values):
        settings = ClusterSettings.parse({"registry": "s3://r", **values})
        permissions = needed_permissions(settings, values.get("endpoint", ""))
        return {f"{' '.join(p.verbs)} {p.what} in {p.namespace}" for p in permissions}

    logs = {"list pods in kubeflow", "get pods/log in kubeflow"}
    assert needed(target="local", endpoint="http://kfp") == logs
    assert needed(target="local") - logs == {"get create delete services/proxy in kubeflow"}
    seldon = "seldondeployments.machinelearning.seldon.io"
    assert needed(endpoint="http://kfp", namespace="shop") - logs == {
        f"get patch {seldon} in shop",
        "list pods in shop",
        "get pods/proxy in shop",
    }
    assert "get patch httproutes.gateway.networking.k8s.io in refit" in needed(
        rollout={"split": "gateway"}
    )
    assert "create get list runs.pipelines.kubeflow.org in team" in needed(
        multi_user=True, runs_in="team"
    )


def test_a_proxied_api_is_asked_about_by_name(values, kubernetes):
    examine(values | {"endpoint": ""})
    (review, *_) = [r for r in kubernetes.reviews if r["subresource"] == "proxy" and r["name"]]
    assert review["name"] == "http:ml-pipeline:8888"


@pytest.mark.parametrize(
    ("release", "words"),
    [("2.5.0", "it is 2.5.0, the cluster file has backend 2.17"), ("unknown", "does not report")],
)
def test_a_release_that_does_not_fit_is_not_ok(values, kubernetes, backend, release, words):
    backend.release = release
    assert words in faults(examine(values))["Kubeflow Pipelines: release"]


def test_unreachable_services_are_5(values, tmp_path, monkeypatch):
    write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    found = examine(
        values
        | {
            "endpoint": "http://127.0.0.1:1",
            "registry": "s3://refit/registry",
            "predictions": "s3://refit/predictions",
            "alert_store": "postgresql+psycopg://u@127.0.0.1:1/d",
        }
    )
    assert {result.exit_code for result in found.values()} == {5}
    assert "http://127.0.0.1:1" in found["Kubeflow Pipelines"].detail
    assert "the Kubernetes API does not answer" in found["Kubernetes"].detail
    assert "needs a port-forward" in found["registry"].detail
    assert "needs a port-forward" in found["predictions"].detail


def test_no_kubeconfig_is_2_and_a_wrong_token_5(values, kubernetes, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    found = examine(values)
    assert found["Kubernetes"].exit_code == 2
    assert "set KUBECONFIG" in found["Kubernetes"].detail
    config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
    config["users"][0]["user"]["token"] = "wrong"
    (tmp_path / "none").write_text(yaml.safe_dump(config))
    found = examine(values)
    assert "answered 401" in found["Kubernetes"].detail
    assert found["Kubernetes"].exit_code == 5


def test_a_folder_of_the_pods_cannot_be_checked(values, kubernetes):
    found = examine(values | {"predictions": "/var/refit/predictions"})
    assert "cannot be checked from here" in faults(found)["predictions"]


def test_a_readable_store_may_be_empty(tmp_path):
    (result,) = check_readable("predictions", f"file://{tmp_path}/none")
    assert (result.ok, result.detail.endswith("is empty")) == (True, True)
    (tmp_path / "part.parquet").touch()
    (result,) = check_readable("predictions", f"file://{tmp_path}")
    assert (result.ok, result.detail.endswith("can be read")) == (True, True)


def test_the_command_prints_every_result_and_ends_with_its_code(
    refit, values, kubernetes, tmp_path, monkeypatch
):
    monkeypatch.setattr("pipelines.doctor.environments.MAIN_IMPORTS", ("yaml",))
    kubernetes.refused.add("patch seldondeployments")
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(values))
    words = ("doctor", "--python", tmp_path / "no-python", "--cluster", file)
    result = refit(*words)
    lines = result.out.splitlines()
    assert all(line.startswith(("ok  ", "NOT OK  ")) for line in lines)
    assert any(line.startswith("ok      main environment: packages: ") for line in lines)
    (line,) = (line for line in lines if "patch seldondeployments" in line)
    assert line.startswith("NOT OK  cluster: may get, patch seldondeployments")
    assert (result.code, result.err) == (5, "")
    kubernetes.refused.clear()
    result = refit(*words, "--json")
    found = {entry["subject"]: entry for entry in json.loads(result.out)}
    assert not found["serving environment"]["ok"]
    assert found["cluster: Kubernetes"]["ok"]
    assert result.code == 2  # nothing is unreachable any more
