"""A refit that the monitor starts through the Kubeflow Pipelines API: once, whatever happens."""

import threading
import time
from datetime import timedelta

import pytest

from components.kubeflow import RunRequest
from components.monitoring.launch import kfp_launcher
from monitoring.refits import carry_out, resume_refits
from monitoring.settings import MonitorSettings
from monitoring.store import RefitState, SqlStore
from refit.files import write_json
from refit.registry import Registry
from tests.monitoring.alerts import LONG_AGO, NOW, alert

SETTINGS = MonitorSettings(lease_seconds=0.2)
WENT_WELL = (("train-towers", "SUCCEEDED", ""), ("deploy-bundle", "SUCCEEDED", ""))
TOLD_LATE = (("train-towers", "SUCCEEDED", ""), ("deploy-bundle", "RUNNING", ""))


@pytest.fixture
def store(tmp_path):
    return SqlStore(tmp_path / "alerts.sqlite")


@pytest.fixture
def request_(backend):
    return RunRequest(
        endpoint=backend.url,
        experiment_id=backend.add("experiments", display_name="refit"),
        pipeline_id="p",
        version_id="v",
        service_account="refit-pipeline",
        arguments={"registry": "s3://refit/registry"},
    )


@pytest.fixture
def launch(request_, tmp_path):
    return kfp_launcher(request_, Registry(tmp_path / "registry"), wait_seconds=0)


@pytest.fixture
def claimed(store):
    raised = alert()
    store.add_alert(raised)
    return store.claim_refit(raised.alert_id, raised, NOW, LONG_AGO, SETTINGS.lease_seconds)


def end(backend, state, *steps):
    """Let the run that was started come to its end."""
    (run_id,) = backend.kept["runs"]
    kept = backend.kept["runs"].pop(run_id)
    backend.add_run("x", state, *steps, run_id=run_id)
    ended = backend.kept["runs"][run_id]
    backend.kept["runs"][run_id] = kept | {
        "state": state,
        "run_details": ended["run_details"],
    }


def look_later(store, pages, launch):
    time.sleep(SETTINGS.lease_seconds * 1.5)
    return resume_refits(SETTINGS, store, pages, launch)


def test_a_refit_is_started_and_left_alone(backend, store, claimed, launch, tmp_path):
    left = carry_out(SETTINGS, store, tmp_path, claimed, launch)
    assert left.state is RefitState.RUNNING
    (run,) = backend.kept["runs"].values()
    assert run["display_name"] == claimed.key
    assert run["service_account"] == "refit-pipeline"
    assert run["runtime_config"]["parameters"] == {
        "registry": "s3://refit/registry",
        "reason": f"drift alert {claimed.alert_id}",
    }
    assert run["run_id"] in store.alert(claimed.alert_id).outcome


def test_looking_does_not_use_up_attempts(backend, store, claimed, launch, tmp_path):
    carry_out(SETTINGS, store, tmp_path, claimed, launch)
    for _ in range(SETTINGS.maximum_attempts + 1):
        (still,) = look_later(store, tmp_path, launch)
        assert still.state is RefitState.RUNNING
    assert backend.named("runs") == [claimed.key]


@pytest.mark.parametrize(
    ("state", "steps", "became", "words"),
    [
        ("SUCCEEDED", WENT_WELL, RefitState.SUCCEEDED, "b2"),
        ("SUCCEEDED", TOLD_LATE, RefitState.SUCCEEDED, "b2"),
        ("SUCCEEDED", WENT_WELL[:1], RefitState.REFUSED, "its gate refused"),
        ("FAILED", (("train-towers", "FAILED", ""),), RefitState.FAILED, "failed at train-towers"),
        ("CANCELED", (), RefitState.FAILED, "canceled"),
    ],
)
def test_the_next_look_tells_what_came_of_it(
    backend, store, claimed, launch, tmp_path, state, steps, became, words
):
    carry_out(SETTINGS, store, tmp_path, claimed, launch)
    end(backend, state, *steps)
    promotion = {
        "number": 2,
        "action": "promote",
        "bundle_id": "b2",
        "previous": "b1",
        "at": "2026-05-01T00:00:00Z",
        "by": "refit",
        "reason": f"drift alert {claimed.alert_id}",
    }
    write_json(tmp_path / "registry" / "champion.json", promotion)
    (ended,) = look_later(store, tmp_path, launch)
    assert ended.state is became
    assert words in ended.outcome
    assert look_later(store, tmp_path, launch) == []


def test_a_monitor_that_dies_around_the_creation_is_followed_by_one_that_finds_it(
    backend, store, claimed, launch, tmp_path
):
    class Killed(BaseException):
        pass

    def dies(refit, raised):
        raise Killed

    with pytest.raises(Killed):
        carry_out(SETTINGS, store, tmp_path, claimed, dies)
    assert backend.kept["runs"] == {}
    (taken,) = look_later(store, tmp_path, launch)
    assert taken.state is RefitState.RUNNING
    assert backend.named("runs") == [claimed.key]
    look_later(store, tmp_path, launch)
    assert backend.named("runs") == [claimed.key]


def test_an_api_that_is_away_costs_an_attempt_not_the_refit(
    backend, store, claimed, launch, tmp_path
):
    backend.away = 1
    away = carry_out(SETTINGS, store, tmp_path, claimed, launch)
    assert away.state is RefitState.RUNNING
    assert "to be retried" in away.outcome
    look_later(store, tmp_path, launch)
    assert backend.named("runs") == [claimed.key]


def test_an_api_that_stays_away_is_given_up(backend, store, claimed, launch, tmp_path):
    backend.away = 1000
    refit = carry_out(SETTINGS, store, tmp_path, claimed, launch)
    for _ in range(SETTINGS.maximum_attempts):
        (refit,) = look_later(store, tmp_path, launch)
    assert refit.state is RefitState.FAILED
    assert "given up" in refit.outcome


def test_two_monitors_at_once_start_one_run(backend, store, launch, tmp_path):
    raised = alert()
    store.add_alert(raised)

    def watch():
        not_since = NOW - timedelta(hours=72)
        claim = store.claim_refit(raised.alert_id, raised, NOW, not_since, 30)
        if claim:
            carry_out(SETTINGS, store, tmp_path, claim, launch)

    monitors = [threading.Thread(target=watch) for _ in range(4)]
    for monitor in monitors:
        monitor.start()
    for monitor in monitors:
        monitor.join()
    assert backend.named("runs") == [raised.alert_id]
