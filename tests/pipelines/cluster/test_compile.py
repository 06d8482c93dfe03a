"""The pipelines that are compiled for a cluster, by backend."""

import pytest
import yaml

from pipelines.cluster.compile import KNOWN_TO_2_0, compile_for
from pipelines.cluster.settings import (
    EXAMPLE,
    GPU_STEPS,
    IDEMPOTENT_STEPS,
    ClusterSettings,
    read_cluster,
)
from pipelines.cluster.submit import SETTINGS_OF
from pipelines.compile import PIPELINES, compile_pipelines
from pipelines.local import COMPILED_FOLDER
from refit.errors import UsageError

CLUSTER = read_cluster(EXAMPLE).model_copy(
    update={
        "image": "registry.example/refit/main@sha256:0123",
        "gpu": {
            "count": 1,
            "steps": ["encode_listings", "train_towers", "tune_towers"],
            "image": "registry.example/refit/main-gpu@sha256:4567",
        },
        "tolerations": [{"key": "dedicated", "value": "training", "effect": "NoSchedule"}],
        "node_selector": {"pool": "refit"},
        "image_pull_secrets": ["pull"],
    }
)
CLUSTER = ClusterSettings.parse(CLUSTER.model_dump(mode="json", warnings=False))
OLD = ClusterSettings.parse(
    {
        name: value
        for name, value in CLUSTER.model_dump(mode="json").items()
        if name
        not in (
            "image_pull_policy",
            "image_pull_secrets",
            "config_maps",
            "tolerations",
            "retries",
        )
    }
    | {"backend": "2.0"}
)
ADDED_IN_2_17 = {
    "activeDeadlineSeconds",
    "dataSource",
    "resourceTtlOnCompletion",
    "resourceTtlOnFailure",
    "resourceTtlOnSuccess",
}
"""Fields of the protos in kfp-pipeline-spec and kfp-kubernetes that release 2.16 does not have."""


@pytest.fixture(scope="module")
def compiled():
    """Pipeline and platform spec, by pipeline and backend."""
    return {
        (name, cluster.backend): tuple(yaml.safe_load_all(compile_for(name, cluster).text))
        for name in PIPELINES
        for cluster in (CLUSTER, OLD)
    }


def tasks(ir):
    dags = (ir["root"], *ir["components"].values())
    return {n: t for d in dags for n, t in d.get("dag", {}).get("tasks", {}).items()}


def step(executor):
    return executor.removeprefix("exec-").replace("-", "_")


def platform_of(documents):
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {step(name): config for name, config in executors.items()}


def container(documents, name):
    executors = documents[0]["deploymentSpec"]["executors"]
    return executors[f"exec-{name.replace('_', '-')}"]["container"]


def test_the_same_settings_are_the_same_version():
    one, same = (compile_for("index_refresh", CLUSTER).version for _ in range(2))
    other = compile_for(
        "index_refresh", CLUSTER.model_copy(update={"image": "other:1.0.0"})
    ).version
    assert one == same != other


def test_compiling_for_a_cluster_leaves_the_snapshots_alone(compiled, tmp_path):
    for path in compile_pipelines(tmp_path):
        assert path.read_bytes() == (COMPILED_FOLDER / path.name).read_bytes()


def test_every_pipeline_has_its_arguments():
    assert set(SETTINGS_OF) == set(PIPELINES)
    with pytest.raises(UsageError, match="no pipeline"):
        compile_for("training", CLUSTER)


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("backend", ["2.17", "2.0"])
def test_every_step_runs_in_its_image_with_its_secrets(compiled, name, backend):
    documents = compiled[name, backend]
    executors = documents[0]["deploymentSpec"]["executors"]
    assert executors
    for executor in executors:
        asked = container(documents, step(executor))
        gpu = step(executor) in GPU_STEPS
        assert asked["image"] == (CLUSTER.gpu.image if gpu else CLUSTER.image)
        assert {"name": "TF_CPP_MIN_LOG_LEVEL", "value": "2"} in asked["env"]
        config = platform_of(documents)[step(executor)]
        (secret,) = config["secretAsEnv"]
        assert secret["secretName"] == "refit-object-store"
        keys = {(entry["secretKey"], entry["envVar"]) for entry in secret["keyToEnv"]}
        assert keys == {(k, k) for k in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        assert config["nodeSelector"]["labels"] == {"pool": "refit"}


@pytest.mark.parametrize("name", PIPELINES)
def test_backend_2_17_gets_everything(compiled, name):
    documents = compiled[name, "2.17"]
    for executor in platform_of(documents).values():
        assert executor["imagePullPolicy"] == "IfNotPresent"
        assert executor["imagePullSecret"][0]["secretName"] == "pull"
        assert executor["configMapAsEnv"][0]["configMapName"] == "refit-config"
        assert executor["tolerations"][0]["key"] == "dedicated"
    assert "report-run" in tasks(documents[0])


def keys(node):
    """All keys in nested dicts and lists."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return set(node if isinstance(node, dict) else ()).union(*map(keys, children))


@pytest.mark.parametrize("name", PIPELINES)
def test_backend_2_16_gets_the_same_without_fields_that_it_does_not_know(compiled, name):
    text = compile_for(name, CLUSTER.model_copy(update={"backend": "2.16"})).text
    assert tuple(yaml.safe_load_all(text)) == compiled[name, "2.17"]
    for document in compiled[name, "2.17"]:
        assert not keys(document) & ADDED_IN_2_17


@pytest.mark.parametrize("name", PIPELINES)
def test_backend_2_0_gets_what_it_knows(compiled, name):
    """Its driver refuses other fields of kfp-kubernetes, its compiler a task's final status."""
    documents = compiled[name, "2.0"]
    for config in platform_of(documents).values():
        assert set(config) <= {*KNOWN_TO_2_0, "nodeSelector"}
        for kind, known in KNOWN_TO_2_0.items():
            for entry in config.get(kind, ()):
                assert set(entry) <= known
    text = yaml.safe_dump(documents[0])
    for unknown in ("TASK_FINAL_STATUS", "ALL_UPSTREAM", "retryPolicy", "one_of", "collected"):
        assert unknown not in text
    assert not any(task.startswith(("exit-handler", "report-run")) for task in tasks(documents[0]))


def test_only_steps_that_may_be_done_again_are(compiled):
    for name in PIPELINES:
        for task in tasks(compiled[name, "2.17"][0]).values():
            component = task["componentRef"]["name"].removeprefix("comp-").replace("-", "_")
            retries = task.get("retryPolicy", {}).get("maxRetryCount", 0)
            assert retries == (2 if component in IDEMPOTENT_STEPS else 0), component


@pytest.mark.parametrize("backend", ["2.17", "2.0"])
def test_claims_go_to_their_steps_alone(compiled, backend):
    claims = {
        (name, mount["constant"], mount["mountPath"])
        for pipeline in PIPELINES
        for name, config in platform_of(compiled[pipeline, backend]).items()
        for mount in config.get("pvcMount", ())
    }
    assert claims == {
        ("train_towers", "refit-checkpoints", "/var/refit/checkpoints"),
        ("watch_drift", "refit-monitoring", "/var/refit/monitoring"),
    }


@pytest.mark.parametrize("backend", ["2.17", "2.0"])
def test_resources_and_gpus(compiled, backend):
    documents = compiled["continuous_training", backend]
    train = container(documents, "train_towers")["resources"]
    assert (train["cpuRequest"], train["memoryLimit"]) == (4.0, 16 * 1.073741824)
    for executor in documents[0]["deploymentSpec"]["executors"]:
        given = container(documents, step(executor))["resources"]
        assert given["cpuRequest"] == (4.0 if step(executor) == "train_towers" else 0.5)
        if step(executor) in GPU_STEPS:
            assert given["accelerator"]["type"] == "nvidia.com/gpu"
            assert given["accelerator"]["count"] == "1"
        else:
            assert "accelerator" not in given


def test_without_a_gpu_all_steps_run_in_one_image():
    cluster = CLUSTER.model_copy(update={"gpu": CLUSTER.gpu.model_copy(update={"count": 0})})
    documents = list(yaml.safe_load_all(compile_for("continuous_training", cluster).text))
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        assert executor["container"]["image"] == cluster.image
        assert "accelerator" not in executor["container"].get("resources", {})


@pytest.mark.parametrize("name", ["continuous_training", "index_refresh"])
@pytest.mark.parametrize("backend", ["2.17", "2.0"])
def test_data_and_champion_are_looked_up_by_the_run(compiled, name, backend):
    found = tasks(compiled[name, backend][0])
    assert not found["find-start"]["cachingOptions"].get("enableCache")
    fingerprint = found["ingest-data"]["inputs"]["parameters"]["fingerprint"]
    assert fingerprint["taskOutputParameter"]["producerTask"] == "find-start"
    assert not found["plan-encoding"]["cachingOptions"].get("enableCache")
    plan = found["encode-listings"]["inputs"]["parameters"]["plan"]
    assert plan["taskOutputParameter"]["producerTask"] == "plan-encoding"
    judge = found.get("evaluate-model") or found["reindex-listings"]
    champion = judge["inputs"]["parameters"]["champion"]
    assert champion["taskOutputParameter"]["outputParameterKey"] == "champion"


def test_without_caching_no_step_takes_earlier_outputs():
    ir = next(yaml.safe_load_all(compile_for("continuous_training", CLUSTER, False).text))
    assert not any(t["cachingOptions"].get("enableCache") for t in tasks(ir).values())
