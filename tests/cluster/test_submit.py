"""refit submit, status, logs, schedule and cancel against Kubeflow Pipelines 2.0.5 on a cluster."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from tests.cluster.commands import wait_for
from tests.cluster.images import Images
from tests.cluster.kfp.backend import NAMESPACE, SERVICE_ACCOUNT, Backend
from tests.cluster.kfp.runs import Run
from tests.cluster.settings import ROOT

pytestmark = [pytest.mark.kfp, pytest.mark.timeout(3600)]

MARKET = ROOT / "tests" / "pipelines" / "configs" / "valid" / "tiny_market.yaml"
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "refit-object-store", "namespace": NAMESPACE},
    "stringData": {"AWS_ACCESS_KEY_ID": "minio", "AWS_SECRET_ACCESS_KEY": "minio123"},
}
LIVELY_STEPS = ("find_start", "pass_gate", "deploy_bundle")
"""Steps that no cache answers for."""

Said = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def refit(
    kfp_backend: Backend, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Said]:
    """The ``refit`` command on this cluster, with a registry of its own."""
    kfp_backend.cluster.apply([SECRET])
    file = tmp_path_factory.mktemp("cluster") / "cluster.yaml"
    values = {
        "backend": "2.0",
        "endpoint": kfp_backend.endpoint,
        "registry": f"s3://mlpipeline/registry-{uuid4().hex[:8]}",
        "predictions": "s3://mlpipeline/predictions",
        "target": "local",
        "image": images.main(),
        "environment": {
            "AWS_ENDPOINT_URL": f"http://minio-service.{NAMESPACE}:9000",
            "AWS_DEFAULT_REGION": "us-east-1",
        },
        "secrets": [{"name": "refit-object-store", "keys": list(SECRET["stringData"])}],
        "service_accounts": dict.fromkeys(
            ("continuous_training", "index_refresh", "drift_monitoring"), SERVICE_ACCOUNT
        ),
    }
    file.write_text(yaml.safe_dump(values))
    environment = os.environ | {
        "REFIT_CLUSTER": str(file),
        "KUBECONFIG": str(kfp_backend.cluster.kubeconfig),
    }
    environment.pop("REFIT_KFP_ENDPOINT", None)

    def say(*words: str | Path) -> Said:
        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
            check=False,
        )

    return say


@pytest.fixture
def name() -> str:
    """A run's name that nothing else has."""
    return f"run-{uuid4().hex[:8]}"


def test_training_succeeds_and_a_second_run_comes_from_the_cache(
    refit: Callable[..., Said], kfp_backend: Backend, name: str
) -> None:
    training = ("submit", "-c", MARKET, "--set", f"training.seed={int(name[4:], 16) % 1000}")
    first = refit(*training, "--run-id", name, "--wait", "--json")
    assert first.returncode == 0, first.stderr
    run = json.loads(first.stdout)
    assert {step["state"] for step in run["steps"]} == {"SUCCEEDED"}
    assert {step["step"] for step in run["steps"]} >= {"train_towers", *LIVELY_STEPS}
    assert len(Run(kfp_backend, run["run_id"]).pods()) == len(run["steps"])

    # The champion is now the first run's, so that judgement is new; training is not.
    second = json.loads(refit(*training, "--run-id", f"{name}-2", "--wait", "--json").stdout)
    ran = {pod["metadata"]["name"] for pod in Run(kfp_backend, second["run_id"]).pods()}
    pods = {step["step"]: step["pods"] for step in second["steps"]}
    assert not ran & {*pods["ingest_data"], *pods["train_towers"]}
    assert ran & set(pods["judge_model"])


def test_bad_data_end_the_run_at_ingestion_with_their_message(
    refit: Callable[..., Said], name: str
) -> None:
    nothing = ("--set", "ingestion.end=2001-01-01T00:00:00Z")
    said = refit("submit", "-c", MARKET, *nothing, "--run-id", name, "--wait")
    assert said.returncode == 4, said.stderr
    *_, error, where = said.stderr.splitlines()
    assert error == (
        "error: step ingest_data failed: no event is left: the window from start to end is empty"
    )
    assert where == f"full log: refit logs {name} ingest_data"
    assert "no event is left" in refit("logs", name, "ingest_data").stdout
    assert refit("status", name).stdout.splitlines()[0] == "step\tstate\tseconds"


def test_a_name_has_one_run_and_it_can_be_cancelled(refit: Callable[..., Said], name: str) -> None:
    ids = {
        json.loads(refit("submit", "-c", MARKET, "--run-id", name, "--json").stdout)["run_id"]
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


def test_a_schedule_is_replaced_fires_and_ends(refit: Callable[..., Said], name: str) -> None:
    training = ("schedule", "continuous_training", "-c", MARKET, "--name", name, "--cron")
    assert refit(*training, "0 0 3 1 1 *").returncode == 0
    assert "(replaced)" in refit(*training, "*/5 * * * * *").stdout
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


def _runs(refit: Callable[..., Said]) -> list[str]:
    """Ids of the runs that a schedule made and that are not over."""
    found = json.loads(refit("status", "--json").stdout)
    return [r["run_id"] for r in found if r["schedule_id"] and r["finished_at"] is None]
