"""refit submit, status, logs, schedule and cancel against Kubeflow Pipelines 2.0.5 on a cluster."""

import json
from uuid import uuid4

import pytest

from refit.registry import Registry
from tests.cluster.market import Market
from tests.cluster.refit_command import (
    CHECKPOINTS,
    CHECKPOINTS_CLAIM,
    CONFIG,
    RefitCommand,
    claim,
    store_secret,
)
from tests.machine.commands import wait_for
from tests.machine.images import Images
from tests.machine.kfp.backend import NAMESPACE, SERVICE_ACCOUNT, Backend
from tests.machine.kfp.runs import PipelineRun
from tests.machine.object_store import ObjectStore

pytestmark = [pytest.mark.kfp, pytest.mark.timeout(3600)]

REGISTRY = f"s3://refit/registry-{uuid4().hex[:8]}"
TRAINING = ("submit", "--config", CONFIG, "--wait")
UNCACHED_STEPS = ("find_start", "gate", "deploy_bundle")


@pytest.fixture(scope="module")
def refit(
    kfp_backend: Backend,
    images: Images,
    object_store: ObjectStore,
    market: Market,
    tmp_path_factory: pytest.TempPathFactory,
) -> RefitCommand:
    """The ``refit`` command on this cluster."""
    secret = store_secret(object_store.key, object_store.secret, NAMESPACE)
    kfp_backend.cluster.apply([secret, claim(CHECKPOINTS_CLAIM)])
    pipelines = ("continuous_training", "index_refresh", "drift_monitoring")
    return RefitCommand(
        kfp_backend,
        tmp_path_factory.mktemp("cluster"),
        images.main(),
        object_store.endpoint,
        registry=REGISTRY,
        predictions="s3://refit/no-predictions",
        target="local",
        checkpoints=CHECKPOINTS,
        volumes=[{"claim": CHECKPOINTS_CLAIM, "path": CHECKPOINTS, "steps": ["train_towers"]}],
        service_accounts=dict.fromkeys(pipelines, SERVICE_ACCOUNT),
    )


@pytest.fixture
def name() -> str:
    """A unique name for a run."""
    return f"run-{uuid4().hex[:8]}"


def test_a_training_succeeds_and_stores_verdict_and_report(
    refit: RefitCommand,
    kfp_backend: Backend,
    registry: Registry,
    name: str,
) -> None:
    status = refit.read(*TRAINING, "--first-model", "--run-id", name)
    run = PipelineRun(kfp_backend, status["run_id"])
    assert run.state == "SUCCEEDED"
    assert {step["state"] for step in status["steps"]} == {"SUCCEEDED"}
    assert {step["step"] for step in status["steps"]} >= {"train_towers", *UNCACHED_STEPS}
    objects = run.objects()
    (verdict,) = (json.loads(objects[key]) for key in objects if key.endswith("/verdict.json"))
    assert verdict["passed"]
    assert [key for key in objects if key.startswith("evaluate-model/") and key.endswith("/report")]
    assert registry.champion_id()


def test_a_second_submit_uses_the_cache_and_a_bundle_that_the_gate_refuses_is_not_deployed(
    refit: RefitCommand, kfp_backend: Backend, registry: Registry, name: str
) -> None:
    champion, history = registry.champion_id(), len(registry.history())
    completed = refit(*TRAINING, "--set", "evaluation.margin=0.9", "--run-id", name)
    assert completed.returncode == 3, completed.stderr
    assert "the gate refused, nothing was deployed" in completed.stderr
    run = refit.read("status", name)
    pods = {step["step"]: step["pods"] for step in run["steps"]}
    ran = {pod["metadata"]["name"] for pod in PipelineRun(kfp_backend, run["run_id"]).pods()}
    assert not ran & {*pods["ingest_data"], *pods["train_towers"], *pods["index_listings"]}
    assert ran & set(pods["evaluate_model"])
    assert "gate" in pods
    assert "deploy_bundle" not in pods
    assert (registry.champion_id(), len(registry.history())) == (champion, history)


def test_invalid_data_fails_the_run_at_ingestion_with_its_message(
    refit: RefitCommand, name: str
) -> None:
    empty = ("--set", "ingestion.end=2001-01-01T00:00:00Z")
    completed = refit("submit", "-c", CONFIG, *empty, "--run-id", name, "--wait")
    assert completed.returncode == 4, completed.stderr
    *_, error, where = completed.stderr.splitlines()
    assert error == (
        "error: step ingest_data failed: no event is left: the window from start to end is empty"
    )
    assert where == f"full log: refit logs {name} ingest_data"
    assert "no event is left" in refit("logs", name, "ingest_data").stdout
    assert refit("status", name).stdout.splitlines()[0] == "step\tstate\tseconds"


def test_a_name_has_one_run_which_can_be_cancelled(refit: RefitCommand, name: str) -> None:
    ids = {
        json.loads(refit("submit", "-c", CONFIG, "--run-id", name, "--json").stdout)["run_id"]
        for _ in range(2)
    }
    assert len(ids) == 1
    assert name in refit("status").stdout
    assert refit("cancel", name).returncode == 0
    wait_for(
        "the run's end",
        lambda: "has ended" in refit("cancel", name).stdout,
        seconds=120,
        pause=2,
    )


def test_a_schedule_is_replaced_starts_runs_and_is_removed(refit: RefitCommand, name: str) -> None:
    schedule = ("schedule", "continuous_training", "-c", CONFIG, "--name", name, "--cron")
    assert refit(*schedule, "0 0 3 1 1 *").returncode == 0
    assert "(replaced)" in refit(*schedule, "*/5 * * * * *").stdout
    try:
        listed = refit("schedule", "--list").stdout.splitlines()
        assert [line.split("\t")[1] for line in listed if line.startswith(name)] == [
            "*/5 * * * * *"
        ]
        started = wait_for(
            "the schedule's first run", lambda: _active_runs(refit), seconds=120, pause=2
        )
    finally:
        assert refit("schedule", "--remove", name).returncode == 0
    for run in started:
        refit("cancel", run)


def _active_runs(refit: RefitCommand) -> list[str]:
    """Ids of the runs that a schedule started and that are not over."""
    runs = refit.read("status")
    return [run["run_id"] for run in runs if run["schedule_id"] and run["finished_at"] is None]
