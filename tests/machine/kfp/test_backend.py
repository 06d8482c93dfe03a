"""Kubeflow Pipelines 2.0.5 supports the features that Refit's pipelines use, with the same SDK."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.machine.commands import wait_for
from tests.machine.images import Images
from tests.machine.kfp import trials
from tests.machine.kfp.backend import NAMESPACE, Backend
from tests.machine.kfp.runs import PipelineRun, compile_trial, start_trial

pytestmark = [pytest.mark.kfp, pytest.mark.timeout(3600), pytest.mark.usefixtures("runs")]

SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": trials.SECRET, "namespace": NAMESPACE},
    "stringData": {trials.SECRET_KEY: "s3same"},
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": trials.CLAIM, "namespace": NAMESPACE},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The file that a test compiles its pipeline to."""
    return tmp_path / "pipeline.yaml"


@pytest.fixture(scope="module")
def claim(kfp_backend: Backend) -> Iterator[None]:
    """A persistent volume claim and a secret for steps."""
    kfp_backend.cluster.apply([CLAIM, SECRET])
    yield
    for kind, name in (("pvc", trials.CLAIM), ("secret", trials.SECRET)):
        kfp_backend.cluster.kubectl("delete", kind, name, "-n", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def runs(
    kfp_backend: Backend,
    images: Images,
    claim: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, PipelineRun]:
    """Independent runs, started before the first test: a run mostly waits for its pods."""
    images.main()  # the steps' image
    package = tmp_path_factory.mktemp("trials") / "pipeline.yaml"
    # A new name each time: the SDK's enable_caching=False does not apply to steps in a condition.
    name = uuid4().hex
    pipelines: dict[str, tuple[Any, dict[str, str]]] = {
        "failing": (trials.failing, {"message": "out of paper"}),
        "long": (trials.branching, {"name": name}),
        "short": (trials.branching, {"name": name[:16]}),
        "ending": (trials.ending, {"text": name}),
        "placed": (trials.placed, {}),
        "retried": (trials.retried, {}),
    }
    return {
        each: start_trial(kfp_backend, pipeline, package, **arguments)
        for each, (pipeline, arguments) in pipelines.items()
    }


def test_an_uploaded_pipeline_runs_and_writes_artifacts(
    kfp_backend: Backend, package: Path
) -> None:
    client, name = kfp_backend.client(), f"hello-{uuid4().hex[:8]}"
    uploaded = client.upload_pipeline(str(compile_trial(trials.hello, package)), name)
    second = client.upload_pipeline_version(str(package), "again", pipeline_id=uploaded.pipeline_id)
    experiment = client.create_experiment("trials", namespace=NAMESPACE)
    started = client.run_pipeline(
        experiment.experiment_id,
        name,
        pipeline_id=uploaded.pipeline_id,
        version_id=second.pipeline_version_id,
        params={"name": name},
        enable_caching=False,
    )

    run = PipelineRun(kfp_backend, started.run_id).wait()

    assert run.state == "SUCCEEDED"
    assert len(run.pods()) == 2
    assert run.objects() == {"write-greeting/greeting": f"hello, {name}"}
    assert {pod["spec"]["serviceAccountName"] for pod in run.pods()} == {"pipeline-runner"}


def test_a_repeated_run_is_served_from_the_cache(kfp_backend: Backend, package: Path) -> None:
    name = f"cached-{uuid4().hex[:8]}"

    other = start_trial(kfp_backend, trials.hello, package, name=f"{name}-other")
    first = start_trial(kfp_backend, trials.hello, package, name=name).wait()
    second = start_trial(kfp_backend, trials.hello, package, name=name).wait()

    assert [run.state for run in (first, second, other.wait())] == ["SUCCEEDED"] * 3
    assert [len(run.pods()) for run in (first, second, other)] == [2, 0, 2]


def test_a_failing_step_fails_the_run_and_logs_its_error(runs: dict[str, PipelineRun]) -> None:
    run = runs["failing"].wait()

    assert run.state == "FAILED"
    assert "RuntimeError: out of paper" in run.logs()


@pytest.mark.parametrize(("length", "steps"), [("long", 2), ("short", 1)])
def test_a_condition_on_a_returned_bool(
    runs: dict[str, PipelineRun], length: str, steps: int
) -> None:
    run = runs[length].wait()

    assert run.state == "SUCCEEDED"
    assert len(run.pods()) == steps


def test_an_exit_handler_runs(runs: dict[str, PipelineRun]) -> None:
    run = runs["ending"].wait()

    assert run.state == "SUCCEEDED"
    assert len(run.pods()) == 2


def test_a_recurring_run_starts_runs(kfp_backend: Backend, package: Path) -> None:
    client, name = kfp_backend.client(), f"every-{uuid4().hex[:8]}"
    experiment = client.create_experiment(name, namespace=NAMESPACE)
    recurring = client.create_recurring_run(
        experiment.experiment_id,
        name,
        cron_expression="*/5 * * * * *",
        max_concurrency=1,
        no_catchup=True,
        params={"name": name},
        pipeline_package_path=str(compile_trial(trials.hello, package)),
        start_time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    try:
        started = wait_for(
            "the first run of a recurring run",
            lambda: client.list_runs(experiment_id=experiment.experiment_id).runs,
            seconds=90,
            pause=1,
        )
        client.disable_recurring_run(recurring.recurring_run_id)
        run = PipelineRun(kfp_backend, started[0].run_id).wait()
    finally:
        # This deletes its workflows too: a run that is not over would never end.
        client.delete_recurring_run(recurring.recurring_run_id)

    assert run.state == "SUCCEEDED"


def test_secrets_claims_and_resources_reach_the_pod(runs: dict[str, PipelineRun]) -> None:
    run = runs["placed"].wait()

    assert run.state == "SUCCEEDED"
    (pod,) = run.pods()
    (main,) = [each for each in pod["spec"]["containers"] if each["name"] == "main"]
    assert main["resources"] == {
        "requests": {"cpu": "100m", "memory": "64M"},
        "limits": {"cpu": "500m", "memory": "256M"},
    }
    environment = {variable["name"]: variable for variable in main["env"]}
    assert environment[trials.SECRET_KEY]["valueFrom"]["secretKeyRef"] == {
        "name": trials.SECRET,
        "key": trials.SECRET_KEY,
    }
    assert "s3same plain 1000" in run.logs()


def test_this_release_does_not_retry(runs: dict[str, PipelineRun]) -> None:
    """It ignores the retry policy. If a newer release passes here, Refit may enable retries."""
    run = runs["retried"].wait()

    assert run.state == "FAILED"
    assert len(run.pods()) == 1
