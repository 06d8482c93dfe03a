from datetime import timedelta

import pytest

from monitoring.decide import PolicyState, decide
from monitoring.settings import PolicySettings
from refit.alert import Action
from tests.monitoring.alerts import BRAND, DRIFT, NOW, OK, QUERY, UNMEASURED, series

FAULT = "/".join(BRAND)
FREE = PolicyState(now=NOW, new_events=5000, faults=(FAULT,))


def run(results, state=FREE, **policy):
    return decide(PolicySettings(**policy), results, state)[0]


@pytest.mark.parametrize(
    ("states", "action"),
    [
        ((OK, OK, OK), Action.NOTHING),
        ((OK, OK, DRIFT), Action.NOTHING),
        ((DRIFT, OK, DRIFT), Action.REFIT),
        ((OK, DRIFT, DRIFT), Action.REFIT),
        ((DRIFT, DRIFT, OK, OK), Action.NOTHING),
        ((UNMEASURED, UNMEASURED, OK), Action.NOTHING),
        ((UNMEASURED, UNMEASURED, UNMEASURED), Action.ALERT),
        ((DRIFT, UNMEASURED, UNMEASURED), Action.NOTHING),
    ],
)
def test_drift_counts_when_it_persists(states, action):
    assert run(series(QUERY, *states)).action is action


@pytest.mark.parametrize("states", [(OK, OK, OK), (OK, DRIFT, DRIFT)])
def test_a_feed_that_cannot_be_read_is_an_alert_and_never_a_refit(states):
    reason = "the events cannot be read: naive times"
    state = FREE.model_copy(update={"unreadable": (reason,), "alerted": ("/".join(QUERY),)})
    decision = run(series(QUERY, *states), state)
    assert (decision.action, decision.reasons[-1]) == (Action.ALERT, reason)
    assert run((), state).reasons[-1] == reason


@pytest.mark.parametrize(
    ("state", "policy", "reason"),
    [
        ({"active_refit": "r1"}, {}, "r1 is running"),
        ({"last_refit_at": NOW - timedelta(hours=71)}, {}, "cooldown until 2024-03-10 01:00"),
        ({"new_events": 999}, {}, "999 new events, 1000 are needed"),
        ({"new_events": None}, {}, "is unknown"),
        ({}, {"enabled": False}, "kill switch"),
    ],
)
def test_what_prevents_a_refit_leaves_an_alert_with_the_reason(state, policy, reason):
    decision = run(series(QUERY, OK, DRIFT, DRIFT), FREE.model_copy(update=state), **policy)
    assert decision.action is Action.ALERT
    assert any(reason in line for line in decision.reasons)


def test_every_objection_is_named():
    state = PolicyState(
        now=NOW, active_refit="r1", last_refit_at=NOW - timedelta(hours=1), new_events=0
    )
    decision = run(series(QUERY, OK, DRIFT, DRIFT), state, enabled=False)
    assert sum(line.startswith("no refit:") for line in decision.reasons) == 4


def test_after_the_cooldown_a_refit_may_start():
    state = FREE.model_copy(update={"last_refit_at": NOW - timedelta(hours=72)})
    assert run(series(QUERY, OK, DRIFT, DRIFT), state).action is Action.REFIT


def test_a_null_column_alerts_and_never_refits():
    decision = run(series(BRAND, OK, DRIFT, DRIFT))
    assert decision.action is Action.ALERT
    assert any("the policy starts none for this drift" in line for line in decision.reasons)


def test_a_broken_feed_prevents_the_refit_that_its_own_damage_would_start():
    results = series(QUERY, OK, DRIFT, DRIFT) + series(BRAND, OK, OK, DRIFT)
    decision, concerning = decide(PolicySettings(), results, FREE)
    assert decision.action is Action.ALERT
    assert any("a model trained on broken data is worse" in line for line in decision.reasons)
    assert {r.subject for r in concerning} == {"query-embedding", "input:items.brand"}


def test_a_feed_that_was_fixed_prevents_nothing():
    results = series(QUERY, DRIFT, DRIFT, DRIFT) + series(BRAND, DRIFT, DRIFT, OK)
    assert run(results).action is Action.REFIT


def test_a_new_category_does_not_prevent_a_refit():
    values = ("input:items.category_1", "new_values")
    results = series(QUERY, OK, DRIFT, DRIFT) + series(values, OK, DRIFT, DRIFT)
    assert run(results).action is Action.REFIT


def test_a_dry_run_decides_the_same_and_names_it():
    decision = run(series(QUERY, OK, DRIFT, DRIFT), dry_run=True)
    assert decision.action is Action.REFIT
    assert decision.dry_run
    assert "dry run" in decision.reasons[-1]


def test_nothing_measured_is_an_alert():
    decision = run([])
    assert decision.action is Action.ALERT
    assert "nothing was measured" in decision.reasons[0]


def test_insufficient_data_can_be_waived_by_name():
    results = series(("live:purchase-rate", "drop"), UNMEASURED, UNMEASURED, UNMEASURED)
    alert = run(results)
    assert alert.action is Action.ALERT
    assert "nothing drifts" in alert.reasons[-1]
    assert run(results, waived=("live:purchase-rate/*",)).action is Action.NOTHING


def test_what_an_unresolved_alert_reports_is_not_reported_again():
    results = series(BRAND, DRIFT, DRIFT, DRIFT)
    alerted = FREE.model_copy(update={"alerted": ("input:items.brand/null_share",)})
    assert run(results, alerted).action is Action.NOTHING
    more = results + series(("input:items.price", "null_share"), DRIFT, DRIFT, DRIFT)
    assert run(more, alerted).action is Action.ALERT


def test_a_window_that_is_measured_again_replaces_its_results():
    results = series(QUERY, OK, DRIFT, DRIFT) + series(QUERY, OK, OK, OK)
    assert run(results).action is Action.NOTHING


def test_the_policy_may_name_the_faults_itself():
    results = series(QUERY, OK, DRIFT, DRIFT) + series(BRAND, OK, OK, DRIFT)
    assert run(results, faults=()).action is Action.REFIT
    assert run(results, faults=("query-embedding/*",)).action is Action.ALERT
