from datetime import timedelta

from monitoring.review.since import describe_since
from monitoring.store import Refit, RefitState
from refit.drift import DriftState
from tests.monitoring.alerts import NOW, alert
from tests.monitoring.story import quality


def refit(state, outcome=""):
    return Refit(
        key="a1",
        alert_id="a1",
        bundle_id="b1",
        state=state,
        owner="x",
        attempt=1,
        requested_at=NOW,
        outcome=outcome,
    )


def test_a_refit_that_passed_and_quality_that_is_back():
    history = [quality(0.151, NOW, DriftState.DRIFT)]
    later = [quality(0.17, NOW + timedelta(days=1)), quality(0.198, NOW + timedelta(days=2))]
    lines = describe_since(alert(), history, later, [refit(RefitState.SUCCEEDED, "b2")])
    assert lines == [
        "The refit of 10 Mar 00:00 passed its gate: b2.",
        "Click rate: 19.8% in the window of 11 Mar, 15.1% at the alert, 19.8% expected; within its "
        "bounds.",
    ]


def test_quality_that_is_still_low_or_not_measured_is_said():
    later = [quality(0.15, NOW + timedelta(days=1), DriftState.DRIFT)]
    (line,) = describe_since(alert(), [], later, [])
    assert line.endswith("still beyond its threshold.")
    unmeasured = quality(0.15, NOW + timedelta(days=1)).model_copy(update={"level": None})
    assert describe_since(alert(), [], [unmeasured], []) == []
    assert describe_since(alert(), [], [], [refit(RefitState.REFUSED, "not better")]) == [
        "The refit of 10 Mar 00:00 was refused by its gate, the champion stays: not better.",
        "No later window has been measured yet.",
    ]


def test_only_what_people_know_as_quality_is_compared():
    later = [
        quality(0.2, NOW + timedelta(days=1)).model_copy(update={"subject": f"live:{name}"})
        for name in ("outcome-delay", "revenue-rate")
    ]
    (line,) = describe_since(alert(), [], later, [])
    assert line.startswith("Revenue of an answer: 0.2 in the window of 10 Mar, 0.198 expected")
