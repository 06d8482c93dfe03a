from datetime import timedelta

import pytest

from monitoring.decide import PolicyState, decide
from monitoring.settings import MeasureSettings, PolicySettings
from refit.alert import Action
from refit.errors import RefitError
from tests.monitoring.alerts import BRAND, DRIFT, NOW, OK, QUERY, SILENT, series

FREE = PolicyState(now=NOW, new_events=5000)


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
        ((SILENT, SILENT, OK), Action.NOTHING),
        ((SILENT, SILENT, SILENT), Action.ALERT),
        ((DRIFT, SILENT, SILENT), Action.NOTHING),
    ],
)
def test_drift_counts_when_it_persists(states, action):
    assert run(series(QUERY, *states)).action is action


@pytest.mark.parametrize(
    ("state", "policy", "reason"),
    [
        ({"active_refit": "r1"}, {}, "r1 is under way"),
        ({"last_refit_at": NOW - timedelta(hours=71)}, {}, "cooling down until 2024-03-10 01:00"),
        ({"new_events": 999}, {}, "999 new events, 1000 are needed"),
        ({"new_events": None}, {}, "not known"),
        ({}, {"enabled": False}, "kill switch"),
    ],
)
def test_what_speaks_against_a_refit_leaves_an_alert_with_the_reason(state, policy, reason):
    decision = run(series(QUERY, OK, DRIFT, DRIFT), FREE.model_copy(update=state), **policy)
    assert decision.action is Action.ALERT
    assert any(reason in line for line in decision.reasons)


def test_every_objection_is_told():
    state = PolicyState(
        now=NOW, active_refit="r1", last_refit_at=NOW - timedelta(hours=1), new_events=0
    )
    decision = run(series(QUERY, OK, DRIFT, DRIFT), state, enabled=False)
    assert sum(line.startswith("no refit:") for line in decision.reasons) == 4


def test_after_the_cooldown_a_refit_is_free_again():
    state = FREE.model_copy(update={"last_refit_at": NOW - timedelta(hours=72)})
    assert run(series(QUERY, OK, DRIFT, DRIFT), state).action is Action.REFIT


def test_a_null_column_alerts_and_never_refits():
    decision = run(series(BRAND, OK, DRIFT, DRIFT))
    assert decision.action is Action.ALERT
    assert any("none of this drift is set to trigger" in line for line in decision.reasons)


def test_a_broken_feed_holds_back_the_refit_that_its_own_damage_would_trigger():
    results = series(QUERY, OK, DRIFT, DRIFT) + series(BRAND, OK, OK, DRIFT)
    decision, concerning = decide(PolicySettings(), results, FREE)
    assert decision.action is Action.ALERT
    assert any("a model trained on broken data is worse" in line for line in decision.reasons)
    assert {r.subject for r in concerning} == {"query-embedding", "input:items.brand"}


def test_a_mended_feed_does_not_hold_anything_back():
    results = series(QUERY, DRIFT, DRIFT, DRIFT) + series(BRAND, DRIFT, DRIFT, OK)
    assert run(results).action is Action.REFIT


def test_a_new_category_may_still_refit():
    values = ("input:items.category_1", "new-values")
    results = series(QUERY, OK, DRIFT, DRIFT) + series(values, OK, DRIFT, DRIFT)
    assert run(results).action is Action.REFIT


def test_dry_run_decides_all_the_same_and_says_so():
    decision = run(series(QUERY, OK, DRIFT, DRIFT), dry_run=True)
    assert decision.action is Action.REFIT
    assert decision.dry_run
    assert "dry run" in decision.reasons[-1]


def test_nothing_measured_is_an_alert():
    decision = run([])
    assert decision.action is Action.ALERT
    assert "nothing was measured" in decision.reasons[0]


def test_silence_can_be_waived_by_name():
    results = series(("live:purchase-rate", "drop"), SILENT, SILENT, SILENT)
    alert = run(results)
    assert alert.action is Action.ALERT
    assert "nothing drifts" in alert.reasons[-1]
    assert run(results, waived=("live:purchase-rate/*",)).action is Action.NOTHING


def test_what_an_unresolved_alert_tells_is_not_told_again():
    results = series(BRAND, DRIFT, DRIFT, DRIFT)
    told = FREE.model_copy(update={"alerted": ("input:items.brand/null-share",)})
    assert run(results, told).action is Action.NOTHING
    more = results + series(("input:items.price", "null-share"), DRIFT, DRIFT, DRIFT)
    assert run(more, told).action is Action.ALERT


def test_a_window_measured_again_counts_once_and_anew():
    results = series(QUERY, OK, DRIFT, DRIFT) + series(QUERY, OK, OK, OK)
    assert run(results).action is Action.NOTHING


def test_a_floor_that_is_set_leaves_the_others_as_they_are():
    settings = MeasureSettings.parse({"floors": {"wasserstein": 0.3}})
    assert settings.floors == {**MeasureSettings().floors, "wasserstein": 0.3}
    with pytest.raises(RefitError, match="wassertsein"):
        MeasureSettings.parse({"floors": {"wassertsein": 0.3}})
