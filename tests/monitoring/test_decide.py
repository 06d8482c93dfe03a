from datetime import timedelta

import pytest

from monitoring.budget import Evidence
from monitoring.decide import PolicyState, decide, find_drift, find_worse, rate_severity
from monitoring.harm import Harm
from monitoring.roll_back import RollBack
from monitoring.settings import PolicySettings
from refit.alert import Action, AlertStatus, Severity
from refit.errors import UsageError
from refit.incident import Cause, Incident
from tests.monitoring.alerts import BRAND, DRIFT, NOW, OK, QUERY, UNMEASURED, alert, series

FAULT = "/".join(BRAND)
FREE = PolicyState(now=NOW, new_events=5000, faults=(FAULT,))


def run(results, state=FREE, **policy):
    settings = PolicySettings(kind="windows", **policy)
    return decide(settings, find_drift(settings, results, state), state)


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
    state = FREE.model_copy(update={"unreadable": (reason,), "alerts": (alert(),)})
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
    policy = PolicySettings(kind="windows")
    findings = find_drift(policy, results, FREE)
    decision = decide(policy, findings, FREE)
    assert decision.action is Action.ALERT
    assert any("a model trained on broken data is worse" in line for line in decision.reasons)
    assert {r.subject for r in findings.concerning} == {"query-embedding", "input:items.brand"}


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
    told = alert().model_copy(update={"results": tuple(series(BRAND, DRIFT))})
    known = FREE.model_copy(update={"alerts": (told,)})
    assert run(results, known).action is Action.NOTHING
    more = results + series(("input:items.price", "null_share"), DRIFT, DRIFT, DRIFT)
    assert run(more, known).action is Action.ALERT
    closed = told.model_copy(update={"status": AlertStatus.RESOLVED})
    assert run(results, FREE.model_copy(update={"alerts": (closed,)})).action is Action.ALERT


def test_a_change_that_got_worse_is_never_swallowed_by_an_unresolved_alert():
    small = [r.model_copy(update={"value": 0.3}) for r in series(BRAND, DRIFT)]
    told = alert().model_copy(update={"results": tuple(small)})
    state = FREE.model_copy(update={"alerts": (told,)})
    results = series(BRAND, DRIFT, DRIFT, DRIFT)
    assert run(results, state).action is Action.ALERT
    policy = PolicySettings(kind="windows")
    worse = find_worse(policy, find_drift(policy, results, state), told)
    assert [result.value for result in worse] == [0.5]


def test_a_window_that_is_measured_again_replaces_its_results():
    results = series(QUERY, OK, DRIFT, DRIFT) + series(QUERY, OK, OK, OK)
    assert run(results).action is Action.NOTHING


def test_the_policy_may_name_the_faults_itself():
    results = series(QUERY, OK, DRIFT, DRIFT) + series(BRAND, OK, OK, DRIFT)
    assert run(results, faults=()).action is Action.REFIT
    assert run(results, faults=("query-embedding/*",)).action is Action.ALERT


NAME = "/".join(QUERY)
PLENTY = Evidence(
    needed=60, total=900, shares={NAME: 900}, results=9, windows=3, alerts_per_month=0.5
)
LITTLE = PLENTY.model_copy(update={"total": 3.0, "shares": {NAME: 3.0}})
DEAR = Harm(purchases=50, is_measured=True, hurts=True, because="50 purchases are lost")
CHEAP = Harm(purchases=1, is_measured=True, hurts=True, because="1 purchase is lost")
DRIFTS = [r.model_copy(update={"p_value": 1e-6}) for r in series(QUERY, OK, DRIFT)]


def weigh(results=DRIFTS, evidence=PLENTY, harm=DEAR, cause=None, state=FREE, **policy):
    settings = PolicySettings(**policy)
    state = state.model_copy(update={"evidence": evidence, "harm": harm})
    incident = Incident(cause=cause, summary="it moved", began=NOW) if cause else None
    return decide(settings, find_drift(settings, results, state), state, incident)


def test_an_alert_needs_the_evidence_that_the_budget_asks_for():
    quiet = weigh(DRIFTS[-1:] * 3, LITTLE)
    assert quiet.action is Action.NOTHING
    assert "0.5 false alerts a month" in quiet.reasons[-1]
    assert weigh().action is Action.REFIT


def test_a_refit_starts_where_waiting_costs_more():
    dear, cheap, unknown = weigh(), weigh(harm=CHEAP), weigh(harm=None)
    assert dear.action is Action.REFIT
    assert "win back 25 purchases and costs 3 purchases" in dear.reasons[-1]
    assert cheap.action is Action.WAIT
    assert "labels will decide" in cheap.reasons[-1]
    assert unknown.action is Action.WAIT
    assert weigh(harm=CHEAP, purchases_per_minute=0.001).action is Action.REFIT


@pytest.mark.parametrize(
    ("cause", "action"),
    [
        (Cause.UPSTREAM_FAULT, Action.QUARANTINE),
        (Cause.INDEX_AGE, Action.REFRESH),
        (Cause.MODEL, Action.ROLL_BACK),
        (Cause.MARKET, Action.ALERT),
        (Cause.NEW_SUPPLY, Action.REFIT),
        (Cause.TASTE, Action.REFIT),
        (Cause.SEASON, Action.ALERT),
        (Cause.UNKNOWN, Action.WAIT),
    ],
)
def test_the_action_follows_the_cause(cause, action):
    unsure = DEAR.model_copy(update={"hurts": None})
    assert weigh(harm=unsure, cause=cause).action is action


def test_a_first_champion_is_not_rolled_back():
    problem = "there is no champion before b1"
    state = FREE.model_copy(update={"roll_back": RollBack(is_known=True, problem=problem)})
    told = weigh(state=state, cause=Cause.MODEL)
    assert told.action is Action.ALERT
    assert f"No roll back: {problem}" in told.reasons[-1]
    assert "is not known" in weigh(cause=Cause.MODEL).reasons[-2]


def test_what_nothing_carries_out_cannot_be_automatic():
    with pytest.raises(UsageError, match="roll back is never carried out by itself"):
        PolicySettings.parse({"automatic": ["refit", "roll back"]})


def test_what_is_not_automatic_is_for_a_person():
    assert "a person decides" in weigh(cause=Cause.MODEL).reasons[-1]
    assert "a person decides" in weigh(automatic=()).reasons[-1]


def test_a_result_without_a_probability_counts_when_it_persists():
    fallbacks = series(("live:fallback-share", "share"), DRIFT, DRIFT, DRIFT)
    assert weigh(fallbacks, LITTLE, harm=CHEAP).action is Action.WAIT
    assert weigh(fallbacks[:1], LITTLE, harm=CHEAP).action is Action.NOTHING


def test_a_rate_that_cannot_be_judged_yet_is_no_alert_for_two_weeks():
    new = series(("live:purchase-rate", "drop"), *[UNMEASURED] * 14)
    new = [result.model_copy(update={"level": 0.2}) for result in new]
    assert weigh(new[:13], LITTLE).action is Action.NOTHING
    assert weigh(new, LITTLE).action is Action.ALERT
    clicks = series(("live:click-rate", "drop"), *[OK] * 14)
    assert weigh(new + clicks, LITTLE).action is Action.NOTHING, "clicks show whether it hurts"


def test_a_named_fault_needs_no_further_evidence_and_prevents_every_refit():
    fault = series(("feed:items.price", "scale"), OK, DRIFT)
    decision = weigh([*DRIFTS, *fault], cause=Cause.NEW_SUPPLY)
    assert decision.action is Action.QUARANTINE
    assert weigh(fault, LITTLE).action is Action.QUARANTINE


def test_a_feed_that_was_not_checked_prevents_a_refit():
    unchecked = series(("feed:items.price", "scale"), UNMEASURED, UNMEASURED, UNMEASURED)
    decision = weigh([*DRIFTS, *unchecked])
    assert decision.action is Action.ALERT
    assert any("so a feed may be broken" in line for line in decision.reasons)


def test_without_a_known_cause_a_fall_must_be_sure():
    """A refit mends some causes; of an unknown one that is not known."""
    assert weigh(harm=DEAR).action is Action.REFIT
    unsure = DEAR.model_copy(update={"hurts": None})
    waits = weigh(harm=unsure)
    assert waits.action is Action.WAIT
    assert "the cause is unknown, and it is not sure that people buy less" in waits.reasons[-1]
    assert weigh(harm=unsure, cause=Cause.TASTE).action is Action.REFIT
    assumed = unsure.model_copy(update={"is_measured": False})
    assert weigh(harm=assumed).action is Action.REFIT, "purchases are not measured here"


def test_a_refused_refit_is_not_tried_again_on_the_same_evidence():
    refused = alert().model_copy(update={"created_at": NOW - timedelta(days=3)})
    state = FREE.model_copy(update={"refused": (refused,)})
    again = weigh(state=state)
    assert again.action is Action.ALERT
    assert any("the gate refused one on this evidence" in line for line in again.reasons)
    other = series(("scores", "quantile_shares"), OK, DRIFT)
    more = PLENTY.model_copy(update={"shares": {NAME: 600, "scores/quantile_shares": 300}})
    assert weigh([*DRIFTS, *other], more, state=state).action is Action.REFIT
    long_ago = refused.model_copy(update={"created_at": NOW - timedelta(days=15)})
    late = FREE.model_copy(update={"refused": (long_ago,)})
    assert weigh(state=late).action is Action.REFIT


@pytest.mark.parametrize(
    ("results", "severity"),
    [
        (series(("live:purchase-rate", "drop"), OK, DRIFT), Severity.PAGE),
        (series(("feed:items", "away"), OK, DRIFT), Severity.WARN),
        (series(QUERY, UNMEASURED, UNMEASURED, UNMEASURED), Severity.WARN),
        (DRIFTS, Severity.INFO),
        ([], Severity.PAGE),
    ],
)
def test_severity_says_how_soon_a_person_must_look(results, severity):
    name = results[0].name if results else NAME
    state = FREE.model_copy(
        update={"evidence": PLENTY.model_copy(update={"shares": {name: 900.0}})}
    )
    assert rate_severity(find_drift(PolicySettings(), results, state), state) is severity
