import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from monitoring.alerts import mute, resolve
from monitoring.metrics import StoreCollector
from monitoring.orders import Means
from monitoring.review.app import ReviewPlace, make_app
from monitoring.review.settings import ReviewSettings, SignInSettings
from monitoring.review.sign_in import Gatekeeper
from monitoring.store import DECISIONS, SCHEMA, SCHEMA_VERSION, RefitState, SqlStore
from refit.alert import AlertStatus, Severity
from refit.database import Database
from tests.monitoring.alerts import (
    BRAND,
    DRIFT,
    LONG_AGO,
    NOW,
    OK,
    QUERY,
    UNMEASURED,
    alert,
    series,
)

UNREADABLE = {("store_readable",): 0}
BUNDLE = "20240309T101112500Z-0a1b2c3d"


@pytest.fixture
def metrics(tmp_path, place):
    """What the review application says to whoever scrapes it, without asking who that is."""
    gatekeeper = Gatekeeper(SignInSettings(), (), "127.0.0.1", no_auth=True)
    where = ReviewPlace(place, tmp_path / "pages", lambda store: Means())
    client = TestClient(make_app(where, ReviewSettings(), gatekeeper))

    def read():
        return {
            (sample.name.removeprefix("refit_monitor_"), *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(client.get("/metrics").text)
            for sample in family.samples
        }

    return read


def test_the_store_as_metrics(place, metrics):
    store = SqlStore(place)
    store.add_results(series(QUERY, UNMEASURED, OK, DRIFT) + series(BRAND, OK, OK, UNMEASURED))
    for day in (2, 1):
        decision = alert().decision.model_copy(update={"at": NOW - timedelta(days=day)})
        store.add_decision(BUNDLE, decision)
    unmeasured = alert("a2").model_copy(update={"results": tuple(series(BRAND, UNMEASURED))})
    urgent = alert("a3").model_copy(update={"severity": Severity.PAGE})
    for each in (alert(), urgent, unmeasured):
        store.add_alert(each)
    store.update_alert("a3", tuple(AlertStatus), status=AlertStatus.ACKNOWLEDGED)
    refit = store.claim_refit("a1", alert(), NOW, LONG_AGO, 30.0)
    store.set_refit(refit, RefitState.FAILED, "no memory")

    built = datetime(2024, 3, 9, 10, 11, 12, 500_000, tzinfo=UTC).timestamp()
    states = dict.fromkeys((str(state) for state in RefitState), 0)
    assert metrics() == {
        ("store_readable",): 1,
        ("decided_timestamp_seconds",): (NOW - timedelta(days=1)).timestamp(),
        ("bundle_timestamp_seconds", BUNDLE): built,
        ("drift_results", "ok"): 0,
        ("drift_results", "drift"): 1,
        ("drift_results", "insufficient data"): 1,
        ("drift_results", "not checked"): 0,
        **dict.fromkeys(
            (
                ("unresolved_alerts", about, str(severity))
                for about in ("drift", "insufficient data")
                for severity in Severity
            ),
            0,
        ),
        ("unresolved_alerts", "drift", "warn"): 1,
        ("unresolved_alerts", "drift", "page"): 1,
        ("unresolved_alerts", "insufficient data", "warn"): 1,
        ("last_refit_timestamp_seconds",): NOW.timestamp(),
        **{("last_refit", state): value for state, value in (states | {"failed": 1}).items()},
    }

    resolve(store, "a2", "on call", "the feed is back")
    assert metrics()["unresolved_alerts", "insufficient data", "warn"] == 0
    mute(store, "a3", datetime.now(UTC) + timedelta(days=1), "on call", "it can wait")
    assert metrics()["unresolved_alerts", "drift", "page"] == 0


def test_an_empty_store_has_no_times(place, metrics):
    SqlStore(place)
    assert not any("timestamp" in name for name, *_ in metrics())


def test_a_store_that_does_not_exist_is_not_readable_and_not_created(place, metrics, tmp_path):
    assert metrics() == UNREADABLE
    assert not list(tmp_path.iterdir())


def test_a_store_with_a_row_that_is_not_json_is_not_readable(place, metrics):
    SqlStore(place)
    with Database(place).writing() as db:
        db.execute(DECISIONS.insert().values(bundle_id="b", body="{"))
    assert metrics() == UNREADABLE


def test_a_store_of_another_version_is_not_readable(place, metrics):
    SqlStore(place)
    with Database(place).writing() as db:
        db.execute(SCHEMA.update().values(version=SCHEMA_VERSION + 1))
    assert metrics() == UNREADABLE


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_a_file_that_is_no_database_is_not_readable(place, metrics):
    Path(place).write_text("nothing of ours")
    assert metrics() == UNREADABLE


def test_with_a_wrong_password_the_store_is_not_readable(postgres, monkeypatch, caplog, tmp_path):
    place = postgres.empty()
    SqlStore(place)
    collector = StoreCollector(place)
    monkeypatch.setenv("PGPASSWORD", "hush")
    with caplog.at_level(logging.INFO, "refit"):
        (readable,) = collector.collect()
    assert readable.samples[0].value == 0
    assert "PGPASSWORD holds the user's password" in caplog.text
    assert "hush" not in caplog.text
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    assert next(iter(collector.collect())).samples[0].value == 1
