"""Properties of every overlay, checked on the golden files, so that no tool is needed."""

import re

import pytest
import yaml
from typer.main import get_command

from monitoring import metrics
from monitoring.notifications import PASSWORD_VARIABLE, WEBHOOK_VARIABLE
from monitoring.review.settings import ReviewSettings
from monitoring.review.sign_in import TOKENS_VARIABLE
from pipelines.cli.app import app
from pipelines.cluster.settings import EXAMPLE, ClusterSettings
from refit import __version__
from refit.alert import Severity
from refit.database import parse_place
from serving.engines.settings import EngineSettings, IndexWriterSettings
from serving.settings import PlainServerSettings, RecommenderSettings
from tests.kustomize.manifests import GOLDEN, ROOT, RULES, RULES_TEST, overlays
from tests.kustomize.pods import pod_specs
from tests.postgres import RELEASES

PINNED = {
    "tensorflow/serving": "2.20.0",
    "docker.io/library/postgres": "17.10@sha256:"
    "7958605b474b3d264a969cb3a123d6aa00ad1e1fe9da8a69984dabb704d93317",
}
WITH_SELDON = ("kind", "minikube", "production")
LOCAL = ("kind", "minikube")
PROBES = ("startup", "readiness", "liveness")
OF_HISTOGRAMS = re.compile(r"_(total|bucket|sum|count)$")


def objects(overlay, kind=""):
    every = yaml.safe_load_all((GOLDEN / f"{overlay}.yaml").read_text("utf-8"))
    return [one for one in every if kind in ("", one["kind"])]


def containers(spec):
    return [*spec.get("initContainers", ()), *spec["containers"]]


@pytest.fixture(params=overlays())
def overlay(request):
    return request.param


def test_every_overlay_has_a_golden_file_and_there_are_no_others():
    assert sorted(path.stem for path in GOLDEN.glob("*.yaml")) == overlays()


def test_all_objects_are_in_our_namespace_which_enforces_restricted_pods(overlay):
    (namespace,) = objects(overlay, "Namespace")
    levels = {k: v for k, v in namespace["metadata"]["labels"].items() if "pod-security" in k}
    assert set(levels.values()) == {"restricted"}
    assert len(levels) == 3
    others = [one for one in objects(overlay) if one["kind"] != "Namespace"]
    if overlay in LOCAL:
        others = [one for one in others if one["metadata"]["namespace"] != "kubeflow"]
    assert {one["metadata"].get("namespace") for one in others} == {"refit"}
    assert not any("Cluster" in one["kind"] for one in others)


def test_pods_are_restricted_and_have_limits(overlay):
    for name, spec in pod_specs(objects(overlay)):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert not any("hostPath" in volume for volume in spec["volumes"]), name
        for one in containers(spec):
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"cpu", "memory"} <= set(one["resources"]["requests"]), name
            assert "memory" in one["resources"]["limits"], name


def test_images_are_pinned(overlay):
    for name, spec in pod_specs(objects(overlay)):
        for one in containers(spec):
            image, _, tag = one["image"].partition(":")
            assert tag == (__version__ if "refit/" in image else PINNED[image]), name


def test_accounts_exist_and_only_those_that_need_a_token_have_one(overlay):
    accounts = {one["metadata"]["name"]: one for one in objects(overlay, "ServiceAccount")}
    used = {spec["serviceAccountName"] for _, spec in pod_specs(objects(overlay))}
    assert used <= set(accounts)
    silent = {name for name, one in accounts.items() if not one["automountServiceAccountToken"]}
    assert silent - {"refit-postgres"} == {"refit-serving", "refit-reviewer"}
    # The reviewer's role is asked for by Kubeflow, for whose API alone its pod has a token.
    (review,) = [spec for name, spec in pod_specs(objects(overlay)) if name == "Deployment/review"]
    sources = [s for v in review["volumes"] for s in v.get("projected", {}).get("sources", ())]
    assert [s["serviceAccountToken"]["audience"] for s in sources] == ["pipelines.kubeflow.org"]
    for binding in objects(overlay, "RoleBinding"):
        named = {subject["name"] for subject in binding["subjects"]}
        assert named <= set(accounts) - silent | {"refit-reviewer"}


def test_no_role_has_a_wildcard(overlay):
    for role in objects(overlay, "Role"):
        for rule in role["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])


def test_secrets_are_only_referenced(overlay):
    assert not objects(overlay, "Secret")
    assert "AWS_SECRET_ACCESS_KEY" not in (GOLDEN / f"{overlay}.yaml").read_text("utf-8")


def test_referenced_volumes_and_config_maps_exist(overlay):
    existing = {(one["kind"], one["metadata"]["name"]) for one in objects(overlay)}
    for name, spec in pod_specs(objects(overlay)):
        named = set()
        for volume in spec["volumes"]:
            if "configMap" in volume:
                named.add(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                named.add(("PersistentVolumeClaim", claim))
        for one in containers(spec):
            for source in one.get("envFrom", ()):
                named |= {("ConfigMap", s["name"]) for s in [source.get("configMapRef")] if s}
        assert named <= existing, name


def test_all_traffic_is_denied_by_default(overlay):
    policies = {one["metadata"]["name"]: one["spec"] for one in objects(overlay, "NetworkPolicy")}
    assert policies["deny-by-default"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }


def test_the_review_page_uses_the_postgresql_url_of_the_example():
    everything = {(one["kind"], one["metadata"]["name"]): one for one in objects("production")}
    pods = dict(pod_specs(objects("production")))
    (review,) = pods["Deployment/review"]["containers"]
    (server,) = pods["StatefulSet/postgres"]["containers"]
    (store,) = [a.removeprefix("--store=") for a in review["args"] if a.startswith("--store=")]
    assert store in EXAMPLE.read_text("utf-8")
    url, given = parse_place(store), {one["name"]: one for one in server["env"]}
    service = everything["Service", "postgres"]
    assert url.host == f"{service['metadata']['name']}.{service['metadata']['namespace']}"
    assert url.username == given["POSTGRES_USER"]["value"]
    assert url.database == given["POSTGRES_DB"]["value"]
    password = review["env"][-1]
    assert password["name"] == password["valueFrom"]["secretKeyRef"]["key"] == "PGPASSWORD"
    assert password["valueFrom"] == given["POSTGRES_PASSWORD"]["valueFrom"]


def test_the_postgresql_release_is_between_the_tested_ones():
    major = PINNED["docker.io/library/postgres"].partition(".")[0]
    assert min(RELEASES) <= major <= max(RELEASES)


def test_only_users_of_the_alert_store_can_reach_it(overlay):
    policies = {one["metadata"]["name"]: one["spec"] for one in objects(overlay, "NetworkPolicy")}
    (let_in,) = policies["postgres"]["ingress"]
    callers = [yaml.safe_dump(caller["podSelector"]) for caller in let_in["from"]]
    assert ["review" in callers[0], "workflow" in callers[1], len(callers)] == [True, True, 2]
    port = [{"protocol": "TCP", "port": 5432}]
    reach = {
        name
        for name, policy in policies.items()
        for rule in policy.get("egress", ())
        if rule.get("ports") == port
    }
    assert (let_in["ports"], reach) == (port, {"alert-store", "steps"})


@pytest.mark.parametrize("overlay", LOCAL, indirect=True)
def test_objects_in_kubeflows_namespace_otherwise_equal_those_of_plain(overlay):
    moved = [one for one in objects(overlay) if one["metadata"].get("namespace") == "kubeflow"]
    assert {f"{one['kind']}/{one['metadata']['name']}" for one in moved} == {
        *("ServiceAccount/refit-pipeline", "ServiceAccount/refit-monitor"),
        *("Role/refit-steps", "RoleBinding/refit-steps"),
        *("Role/refit-monitor", "RoleBinding/refit-monitor"),
        *("PersistentVolumeClaim/refit-monitoring", "ServiceAccount/refit-reviewer"),
        *("Role/refit-reviewer", "RoleBinding/refit-reviewer"),
        *("ConfigMap/refit-review", "ConfigMap/refit-config"),
        "PersistentVolumeClaim/refit-checkpoints",
        *("Deployment/review", "Service/review", "NetworkPolicy/review"),
    }
    elsewhere = yaml.safe_dump(moved).replace("namespace: kubeflow", "namespace: refit")
    assert all(one in objects("plain") for one in yaml.safe_load(elsewhere))


@pytest.mark.parametrize("overlay", WITH_SELDON, indirect=True)
def test_the_seldon_deployment(overlay):
    (deployment,) = objects(overlay, "SeldonDeployment")
    (main,) = deployment["spec"]["predictors"]
    assert (deployment["metadata"]["name"], main["name"], main["traffic"]) == ("refit", "main", 100)
    assert main["annotations"]["seldon.io/no-engine"] == "true"
    assert main["labels"]["app.kubernetes.io/name"] == "recommender"
    (component,) = main["componentSpecs"]
    assert "pdbSpec" not in component
    names = [one["name"] for one in component["spec"]["containers"]]
    assert names == ["recommender", "towers"]
    given = {one["name"]: one["value"] for one in main["graph"]["parameters"]}
    assert set(given) <= set(RecommenderSettings.model_fields)
    environment = {one["name"] for one in component["spec"]["containers"][0]["env"]}
    assert {v.strip("$()") for v in given.values() if v.startswith("$(")} <= environment


def test_the_plain_deployment_has_the_same_pods_and_parameters():
    plain = dict(pod_specs(objects("plain")))["Deployment/recommender"]
    (seldon,) = objects("production", "SeldonDeployment")
    (main,) = seldon["spec"]["predictors"]
    text = yaml.safe_dump(main["componentSpecs"][0]["spec"])
    same = yaml.safe_load(text.replace("registry.example.org/", ""))
    recommender = plain["containers"][0]
    assert recommender["command"] == ["python", "-m", "serving.doors"]
    option, text = recommender["args"]
    # The kubelet expands $(...) before the process reads it.
    settings = PlainServerSettings.parse_json(text)
    assert option == "--settings"
    given = {one["name"]: (one["type"], one["value"]) for one in main["graph"]["parameters"]}
    types = {"STRING": str, "FLOAT": float}
    same_settings = {name: types[kind](value) for name, (kind, value) in given.items()}
    assert settings.recommender == RecommenderSettings.parse(same_settings)
    named = set(re.findall(r"\$\((\w+)\)", text))
    assert named <= {one["name"] for one in recommender["env"]}
    ports = {one["name"]: one["containerPort"] for one in recommender["ports"]}
    assert (settings.http_port, settings.grpc_port, settings.health_port) == (
        *(ports["http"], ports["grpc"], ports["metrics"]),
    )
    probes = {recommender[f"{kind}Probe"]["httpGet"]["port"] for kind in PROBES}
    assert probes == {"metrics"}
    for one in (plain, same):
        one["initContainers"][0].pop("image")
        for changed in ("image", "command", "args", *(f"{kind}Probe" for kind in PROBES)):
            one["containers"][0].pop(changed)
    assert plain == same


def test_kserve_runs_the_pods_of_the_plain_deployment():
    plain = dict(pod_specs(objects("plain")))["Deployment/recommender"]
    (service,) = objects("kserve", "InferenceService")
    predictor = service["spec"]["predictor"]
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    names = [one["name"] for one in predictor["containers"]]
    # By this name KServe knows the container that answers; its first port is what its Service gets.
    assert names == ["kserve-container", "towers"]
    assert predictor["containers"][0]["ports"][0] == {"name": "http", "containerPort": 9000}
    predictor["containers"][0]["name"] = "recommender"
    assert {name: predictor[name] for name in plain} == plain
    (deployment,) = [
        one for one in objects("plain", "Deployment") if "recommender" in str(one)[:400]
    ]
    template = deployment["spec"]["template"]["metadata"]
    assert predictor["annotations"] == template["annotations"]
    assert predictor["labels"] == template["labels"]


def test_routes_of_kserve_lead_to_a_service_that_selects_its_pods():
    services = {one["metadata"]["name"]: one["spec"] for one in objects("kserve", "Service")}
    for kind, port in (("HTTPRoute", 9000), ("GRPCRoute", 9500)):
        (route,) = objects("kserve", kind)
        (rule,) = route["spec"]["rules"]
        assert rule["backendRefs"] == [{"name": "refit-main", "port": port, "weight": 100}]
    assert services["refit-main"]["selector"] == {"serving.kserve.io/inferenceservice": "refit"}
    assert {one["port"] for one in services["refit-main"]["ports"]} == {9000, 9500}


def test_routes_of_both_kinds_have_listeners_of_their_own():
    """The Gateway API has one of two such routes with the same hosts on one listener refused."""
    parents = [
        parent
        for kind in ("HTTPRoute", "GRPCRoute")
        for route in objects("kserve", kind)
        for parent in route["spec"]["parentRefs"]
    ]
    assert [parent["sectionName"] for parent in parents] == ["http", "grpc"]


@pytest.mark.parametrize("overlay", ["production", "plain", "kserve"], indirect=True)
def test_activity_lands_in_the_bucket_of_the_registry(overlay):
    """In the image of the recommender, with variables that exist."""
    pods = dict(pod_specs(objects(overlay)))
    (landing,) = pods["CronJob/landing"]["containers"]
    recommenders = [spec for spec in pods.values() if "initContainers" in spec]
    assert {spec["initContainers"][0]["image"] for spec in recommenders} == {landing["image"]}
    maps = {one["metadata"]["name"]: one["data"] for one in objects(overlay, "ConfigMap")}
    keys = [one["valueFrom"]["configMapKeyRef"]["key"] for one in landing["env"]]
    assert set(keys) <= set(maps["refit-feeds"])
    assert set(re.findall(r"\$\((\w+)\)", str(landing["args"]))) == set(keys)
    bucket, _, _ = maps["refit-config"]["REFIT_REGISTRY"].rpartition("/")
    assert maps["refit-feeds"]["REFIT_ACTIVITY_TABLES"] == f"{bucket}/activity"


def test_the_writer_and_the_servers_use_the_same_weaviate_cluster():
    """And the servers are those of the overlay plain otherwise."""
    maps = {one["metadata"]["name"]: one["data"] for one in objects("weaviate", "ConfigMap")}
    deployments = {one["metadata"]["name"]: one for one in objects("weaviate", "Deployment")}
    pods = dict(pod_specs(objects("weaviate")))

    def read(pod, kind):
        container = pod["containers"][0]
        environment = {one["name"]: one.get("valueFrom", {}) for one in container["env"]}
        option, text = container["args"]
        named = set(re.findall(r"\$\((\w+)\)", text))
        assert (option, named - set(environment)) == ("--settings", set())
        for name in named & set(maps["refit-weaviate"]):
            assert environment[name]["configMapKeyRef"] == {"name": "refit-weaviate", "key": name}
            text = text.replace(f"$({name})", maps["refit-weaviate"][name])
        return kind.parse_json(text)

    writer = read(pods["Deployment/weaviate-writer"], IndexWriterSettings)
    server = read(pods["Deployment/recommender"], PlainServerSettings)
    plain = read(dict(pod_specs(objects("plain")))["Deployment/recommender"], PlainServerSettings)
    assert writer.weaviate == server.recommender.engine.weaviate
    assert (len(writer.weaviate.http), writer.collection.replicas) == (3, 3)
    without = server.recommender.model_copy(update={"engine": EngineSettings()})
    assert server.model_copy(update={"recommender": without}) == plain
    assert writer.feeds.stock == server.recommender.feeds.stock
    (ports,) = pods["Deployment/weaviate-writer"]["containers"][0]["ports"]
    assert ports["containerPort"] == writer.health_port
    spec = deployments["weaviate-writer"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    found = objects("weaviate", "NetworkPolicy")
    policies = {one["metadata"]["name"]: one["spec"] for one in found}
    for name in ("weaviate", "feeds"):
        (chosen,) = policies[name]["podSelector"]["matchExpressions"]
        assert {"recommender", "weaviate-writer"} <= set(chosen["values"])
    allowed = {port["port"] for port in policies["weaviate"]["egress"][0]["ports"]}
    addresses = (*writer.weaviate.http, *writer.weaviate.grpc)
    assert {int(address.rpartition(":")[2]) for address in addresses} == allowed


@pytest.mark.parametrize("name", ["plain", "kserve", "weaviate"])
def test_nothing_of_seldon_is_in_the_overlays_without_it(name):
    text = (GOLDEN / f"{name}.yaml").read_text("utf-8")
    assert "seldon" not in text.lower()
    images = {one["image"] for _, spec in pod_specs(objects(name)) for one in containers(spec)}
    assert f"refit/serving-plain:{__version__}" in images
    assert f"refit/serving:{__version__}" not in images


def test_the_rollout_uses_the_same_urls(overlay):
    maps = {one["metadata"]["name"]: one["data"] for one in objects(overlay, "ConfigMap")}
    if overlay not in WITH_SELDON:
        assert "refit-cluster" not in maps
        return
    cluster = ClusterSettings.parse(yaml.safe_load(maps["refit-cluster"]["cluster.yaml"]))
    config = maps["refit-config"]
    assert cluster.registry == config["REFIT_REGISTRY"]
    assert cluster.predictions == config["REFIT_PREDICTIONS"]


def test_alerts_use_existing_metrics():
    text = RULES.read_text("utf-8")
    places = ("doors/seldon.py", "doors/http.py", "engines/__main__.py")
    documented = "".join((ROOT / "serving" / place).read_text("utf-8") for place in places)
    documented += metrics.__doc__ or ""
    used = set(re.findall(r"\brefit_\w+", text))
    known = set(re.findall(r"\brefit_\w+", documented))
    assert {OF_HISTOGRAMS.sub("", name) for name in used} <= known


def test_every_alert_is_tested_and_has_an_action():
    rules = [
        rule
        for group in yaml.safe_load(RULES.read_text("utf-8"))["spec"]["groups"]
        for rule in group["rules"]
    ]
    tested = RULES_TEST.read_text("utf-8")
    for rule in rules:
        assert rule["alert"] in tested
        assert {"summary", "action"} == set(rule["annotations"])
        # The monitor's own alerts say how urgent they are, in the same words.
        of_alert = "unresolved_alerts" in rule["expr"]
        known = ("{{ $labels.severity }}",) if of_alert else tuple(Severity)
        assert rule["labels"]["severity"] in known
        assert not of_alert or "max by (severity)" in rule["expr"]


def test_the_review_application_is_started_with_options_that_it_has(overlay):
    (review,) = dict(pod_specs(objects(overlay)))["Deployment/review"]["containers"]
    assert review["command"] == ["refit", "review"]
    options = {word.partition("=")[0] for word in review["args"]}
    known = {option for one in get_command(app).commands["review"].params for option in one.opts}
    assert options <= known
    maps = [
        one for one in objects(overlay, "ConfigMap") if one["metadata"]["name"] == "refit-review"
    ]
    assert ReviewSettings.parse(yaml.safe_load(maps[0]["data"]["review.yaml"]))
    variables = {one["name"] for one in review["env"]}
    assert {TOKENS_VARIABLE, WEBHOOK_VARIABLE, PASSWORD_VARIABLE} <= variables
