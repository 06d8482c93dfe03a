"""What people ask for on a cluster: runs through the Kubeflow Pipelines API, each once."""

import json
import time

import pytest

from components.monitoring.means import cluster_means
from monitoring.orders import Order, ask, carry_out_orders
from monitoring.review.settings import NotifySettings
from monitoring.review.worker import ReviewWorker
from monitoring.settings import MonitorSettings
from monitoring.store import OrderState, RefitState, SqlStore
from refit.errors import ServiceUnreachable
from tests.monitoring.alerts import alert


@pytest.fixture
def store(tmp_path):
    made = SqlStore(tmp_path / "alerts.sqlite")
    made.add_alert(alert())
    return made


@pytest.fixture
def means(store, backend, tmp_path):
    """Of a process that reaches the API at its own address, with a token of its own."""
    backend.token = "of-this-process"
    token = tmp_path / "token"
    token.write_text(backend.token)
    return lambda: cluster_means(store, str(tmp_path / "registry"), backend.url, str(token))


@pytest.fixture
def told(store, backend):
    """What a monitor keeps; its endpoint is not where another process may send a token."""
    experiment = backend.add("experiments", display_name="refit")
    for pipeline in ("continuous_training", "index_refresh"):
        request = {
            "endpoint": "http://127.0.0.1:1",
            "token_file": "/etc/passwd",
            "experiment_id": experiment,
            "pipeline_id": pipeline,
            "version_id": "v",
            "arguments": {},
        }
        store.keep_run_request(pipeline, json.dumps(request))


def carry_out(store, means, tmp_path):
    return carry_out_orders(MonitorSettings(), store, tmp_path / "pages", means())


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr("components.monitoring.means.LOOK_SECONDS", 0.0)


def test_a_refit_and_a_refresh_are_runs_of_the_requests_names(
    store, means, told, backend, tmp_path
):
    for order in (Order.REFRESH, Order.REFIT):
        ask(store, means(), order, "a1", "ana", "new stock")
    done = {each.order: each for each in carry_out(store, means, tmp_path)}
    assert sorted(backend.named("runs")) == sorted(each.request_id for each in done.values())
    assert "was started" in done[Order.REFRESH].outcome
    assert done[Order.REFIT].outcome.startswith("refit running: run ")


def test_a_refit_is_stopped_where_it_runs(store, means, told, backend, tmp_path):
    ask(store, means(), Order.REFIT, "a1", "ana", "new stock")
    carry_out(store, means, tmp_path)
    ask(store, means(), Order.STOP, "a1", "ana", "not yet")
    (done,) = carry_out(store, means, tmp_path)
    assert done.state is OrderState.DONE, done.outcome
    (run,) = backend.kept["runs"].values()
    assert run["state"] in ("CANCELING", "CANCELED")
    assert [refit.state for refit in store.refits()] == [RefitState.STOPPED]


def test_before_a_monitor_has_run_it_says_what_is_missing(store, means):
    found = means()
    assert not found.can(Order.REFIT)
    assert "schedule drift_monitoring" in found.missing[Order.REFIT]
    assert found.can(Order.ROLL_BACK)


def test_a_monitor_of_an_earlier_release_says_only_how_to_refit(store, means, told):
    with store._database.writing() as db:
        db.exec_driver_sql("DELETE FROM run_requests WHERE pipeline = 'index_refresh'")
    found = means()
    assert found.can(Order.REFIT)
    assert "schedule it again" in found.missing[Order.REFRESH]


def test_a_refit_is_followed_to_its_end_and_not_given_up_while_the_api_is_away(
    store, means, told, backend, tmp_path, monkeypatch
):
    settings = MonitorSettings(lease_seconds=0.01)
    monkeypatch.setattr("monitoring.review.worker.MonitorSettings", lambda: settings)
    worker = ReviewWorker(
        lambda: store, lambda _: means(), tmp_path / "pages", {}, NotifySettings(), "", 9.0
    )
    ask(store, means(), Order.REFIT, "a1", "ana", "new stock")
    carry_out_orders(settings, store, tmp_path / "pages", means())
    backend.away = 1000
    for _ in range(settings.maximum_attempts + 2):
        time.sleep(0.02)
        with pytest.raises(ServiceUnreachable):
            worker.do_round()
    backend.away = 0
    (run,) = backend.kept["runs"].values()
    run["state"] = "FAILED"
    worker.do_round()
    (refit,) = store.refits()
    assert (refit.state, "failed" in refit.outcome) == (RefitState.FAILED, True)
    assert "given up" not in refit.outcome
