"""refit submit, status, logs, schedule and cancel against Kubeflow Pipelines 2.0.5 on a cluster."""

import json
from uuid import uuid4

import pytest

from refit.registry import Registry
from tests.cluster.commands import wait_for
from tests.cluster.images import Images
from tests.cluster.kfp.backend import NAMESPACE, SERVICE_ACCOUNT, Backend
from tests.cluster.kfp.runs import Run
from tests.cluster.market import Market
from tests.cluster.object_store import ObjectStore
from tests.cluster.refit_command import (
    CHECKPOINTS,
    CHECKPOINTS_CLAIM,
    CONFIG,
    RefitCommand,
    claim,
    store_secret,
)

pytestmark = [pytest.mark.kfp, pytest.mark.timeout(3600)]

REGISTRY = f"s3://refit/registry-{uuid4().hex[:8]}"
TRAINING = ("submit", "--config", CONFIG, "--wait")
LIVELY_STEPS = ("find_start", "gate", "deploy_bundle")
"""Steps that no cache answers for."""


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
        predictions="s3://refit/predictions-of-nobody",
        target="local",
        checkpoints=CHECKPOINTS,
        volumes=[{"claim": CHECKPOINTS_CLAIM, "path": CHECKPOINTS, "steps": ["train_towers"]}],
        service_accounts=dict.fromkeys(pipelines, SERVICE_ACCOUNT),
    )


@pytest.fixture
def name() -> str:
    """A run's name that nothing else has."""
    return f"run-{uuid4().hex[:8]}"


def test_training_succeeds_and_leaves_what_people_want_to_see(
    refit: RefitCommand,
    kfp_backend: Backend,
    registry: Registry,
    name: str,
) -> None:
    found = refit.read(*TRAINING, "--run-id", name)
    run = Run(kfp_backend, found["run_id"])
    assert run.state == "SUCCEEDED"
    assert {step["state"] for step in found["steps"]} == {"SUCCEEDED"}
    assert {step["step"] for step in found["steps"]} >= {"train_towers", *LIVELY_STEPS}
    kept = run.objects()
    (verdict,) = (json.loads(kept[key]) for key in kept if key.endswith("/verdict.json"))
    assert verdict["passed"]
    assert [key for key in kept if key.startswith("evaluate-model/") and key.endswith("/report")]
    assert registry.champion_id()


def test_a_second_submit_comes_from_the_cache_and_what_the_gate_refuses_is_not_deployed(
    refit: RefitCommand, kfp_backend: Backend, registry: Registry, name: str
) -> None:
    champion, history = registry.champion_id(), len(registry.history())
    said = refit(*TRAINING, "--set", "evaluation.margin=0.9", "--run-id", name)
    assert said.returncode == 3, said.stderr
    assert "the gate refused, nothing was deployed" in said.stderr
    run = refit.read("status", name)
    pods = {step["step"]: step["pods"] for step in run["steps"]}
    ran = {pod["metadata"]["name"] for pod in Run(kfp_backend, run["run_id"]).pods()}
    assert not ran & {*pods["ingest_data"], *pods["train_towers"], *pods["index_listings"]}
    assert ran & set(pods["evaluate_model"])
    assert "gate" in pods
    assert "deploy_bundle" not in pods
    assert (registry.champion_id(), len(registry.history())) == (champion, history)


def test_bad_data_end_the_run_at_ingestion_with_their_message(
    refit: RefitCommand, name: str
) -> None:
    nothing = ("--set", "ingestion.end=2001-01-01T00:00:00Z")
    said = refit("submit", "-c", CONFIG, *nothing, "--run-id", name, "--wait")
    assert said.returncode == 4, said.stderr
    *_, error, where = said.stderr.splitlines()
    assert error == (
        "error: step ingest_data failed: no event is left: the window from start to end is empty"
    )
    assert where == f"full log: refit logs {name} ingest_data"
    assert "no event is left" in refit("logs", name, "ingest_data").stdout
    assert refit("status", name).stdout.splitlines()[0] == "step\tstate\tseconds"


def test_a_name_has_one_run_and_it_can_be_cancelled(refit: RefitCommand, name: str) -> None:
    ids = {
        json.loads(refit("submit", "-c", CONFIG, "--run-id", name, "--json").stdout)["run_id"]
        for _ in range(2)
    }
    assert len(ids) == 1
    assert name in refit("status").stdout
    assert refit("cancel", name).returncode == 0
    wait_for(
        "the run's end",
        lambda: "over" in refit("cancel", name).stdout,
        seconds=120,
        pause=2,
    )


def test_a_schedule_is_replaced_fires_and_ends(refit: RefitCommand, name: str) -> None:
    schedule = ("schedule", "continuous_training", "-c", CONFIG, "--name", name, "--cron")
    assert refit(*schedule, "0 0 3 1 1 *").returncode == 0
    assert "(replaced)" in refit(*schedule, "*/5 * * * * *").stdout
    try:
        listed = refit("schedule", "--list").stdout.splitlines()
        assert [line.split("\t")[1] for line in listed if line.startswith(name)] == [
            "*/5 * * * * *"
        ]
        fired = wait_for("the schedule's first run", lambda: _runs(refit), seconds=120, pause=2)
    finally:
        assert refit("schedule", "--remove", name).returncode == 0
    for run in fired:
        refit("cancel", run)


def _runs(refit: RefitCommand) -> list[str]:
    """Ids of the runs that a schedule made and that are not over."""
    found = json.loads(refit("status", "--json").stdout)
    return [r["run_id"] for r in found if r["schedule_id"] and r["finished_at"] is None]
