import subprocess
import sys
from datetime import timedelta

import pytest

from monitoring.alerts import acknowledge, list_alerts, resolve, show_alert
from monitoring.store import ClaimLost, RefitState, SqliteStore
from refit.alert import AlertStatus
from refit.errors import UsageError
from tests.monitoring.alerts import BRAND, DRIFT, LONG_AGO, NOW, OK, QUERY, alert, series


@pytest.fixture
def store(tmp_path):
    return SqliteStore(tmp_path / "store.sqlite")


def test_what_is_kept_comes_back(store):
    readings = series(QUERY, OK, DRIFT, OK) + series(BRAND, OK, OK, OK)
    store.add_readings(readings)
    store.add_readings(readings)
    assert len(store.readings("t1", 10)) == 6
    assert {r.window.end for r in store.readings("t1", 2)} == {NOW, NOW - timedelta(days=1)}
    assert store.readings("t2", 10) == []
    assert sorted(store.readings("t1", 10), key=str) == sorted(readings, key=str)

    store.add_decision("b1", alert().decision)
    assert store.decisions("b1") == store.decisions() == [alert().decision]
    assert store.add_alert(alert())
    assert not store.add_alert(alert())
    assert store.alert("a1") == alert()


def test_alerts_go_from_open_to_acknowledged_to_resolved(store):
    store.add_alert(alert())
    assert acknowledge(store, "a1", "on call").status is AlertStatus.ACKNOWLEDGED
    with pytest.raises(UsageError, match="a1 is acknowledged"):
        acknowledge(store, "a1", "on call")
    done = resolve(store, "a1", "on call", "a season")
    assert (done.status, done.resolved_by, done.note) == ("resolved", "on call", "a season")
    for again in (
        lambda: acknowledge(store, "a1", "on call"),
        lambda: resolve(store, "a1", "on call", "again"),
    ):
        with pytest.raises(UsageError, match="a1 is resolved"):
            again()
    assert list_alerts(store, AlertStatus.OPEN) == []
    assert list_alerts(store) == [show_alert(store, "a1")]


@pytest.mark.parametrize(("by", "note"), [("", "note"), ("on call", " ")])
def test_resolving_needs_a_name_and_a_note(store, by, note):
    store.add_alert(alert())
    with pytest.raises(UsageError, match="say who"):
        resolve(store, "a1", by, note)


def test_an_unknown_alert_is_a_usage_error(store):
    for ask in (lambda: show_alert(store, "x"), lambda: acknowledge(store, "x", "me")):
        with pytest.raises(UsageError, match="no alert 'x'"):
            ask()


def test_a_refit_is_claimed_once_and_one_at_a_time(store):
    first = store.claim_refit("k1", alert(), NOW, LONG_AGO, 60)
    assert first.state is RefitState.REQUESTED
    assert store.claim_refit("k1", alert(), NOW, LONG_AGO, 60) is None
    assert store.claim_refit("k2", alert("a2"), NOW, LONG_AGO, 60) is None
    store.set_refit(first, RefitState.SUCCEEDED, "b2")
    assert store.claim_refit("k1", alert(), NOW, LONG_AGO, 60) is None
    within_cooldown = NOW - timedelta(hours=1)
    assert store.claim_refit("k2", alert("a2"), NOW, within_cooldown, 60) is None
    assert store.claim_refit("k2", alert("a2"), NOW, NOW, 60) is not None


def test_a_silent_claim_is_taken_up_and_its_first_owner_is_fenced_off(store):
    first = store.claim_refit("k1", alert(), NOW, LONG_AGO, 60)
    assert store.take_up_refit(60) is None
    store.renew_refit(first, -1)
    second = store.take_up_refit(60)
    assert (second.key, second.attempt) == ("k1", 2)
    assert store.take_up_refit(60) is None
    for late in (
        lambda: store.renew_refit(first, 60),
        lambda: store.set_refit(first, RefitState.SUCCEEDED, "b2"),
    ):
        with pytest.raises(ClaimLost):
            late()
    store.set_refit(second, RefitState.FAILED, "no")
    assert [(r.state, r.outcome) for r in store.refits()] == [("failed", "no")]
    with pytest.raises(ClaimLost):
        store.set_refit(second, RefitState.SUCCEEDED)


RACE = """
import sys
from pathlib import Path
from monitoring.store import SqliteStore
from tests.monitoring.alerts import LONG_AGO, NOW, alert
store = SqliteStore(Path(sys.argv[1]))
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
claims = [store.claim_refit(f"k{i % 3}", alert(), NOW, LONG_AGO, 60) for i in range(20)]
raised = store.add_alert(alert())
sys.stdout.write(f"{sum(c is not None for c in claims)} {int(raised)}\\n")
"""


def test_of_many_processes_exactly_one_claims(tmp_path):
    path = tmp_path / "store.sqlite"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    told = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert all(racer.returncode == 0 for racer in racers)
    assert sum(int(claims) for claims, _ in told) == 1
    assert sum(int(raised) for _, raised in told) == 1
