import pytest

from monitoring.closings import Closing
from monitoring.replay import replay, take_last_days
from monitoring.settings import MeasureSettings, PolicySettings
from refit.alert import Action
from tests.monitoring.alerts import DRIFT, OK, QUERY, series

MEASURE = MeasureSettings()
PURCHASES = ("live:purchase-rate", "drop")


def past():
    """Ten windows; queries drift in the last four, in which purchases are lost."""
    states = [OK] * 6 + [DRIFT] * 4
    queries = [
        r.model_copy(update={"p_value": 1e-8 if r.state is DRIFT else 0.5})
        for r in series(QUERY, *states)
    ]
    bought = [
        r.model_copy(
            update={
                "value": 0.1 if r.state is DRIFT else 0.0,
                "level": 0.1 if r.state is DRIFT else 0.2,
                "interval": (0.09, 0.11) if r.state is DRIFT else (0.19, 0.21),
                "n_current": 1000,
                "p_value": 0.5,
            }
        )
        for r in series(PURCHASES, *states)
    ]
    return queries + bought


def test_policies_are_compared_by_alerts_refits_and_cost():
    early = replay(PolicySettings(), MEASURE, past())
    late = replay(PolicySettings(kind="windows", windows_needed=3), MEASURE, past())
    never = replay(PolicySettings(refit_minutes=1e6), MEASURE, past())
    assert [day.action for day in early.days[:6]] == [Action.NOTHING] * 6
    assert early.days[6].action is Action.REFIT
    assert (early.refits, late.refits, never.refits) == (1, 1, 0)
    assert late.waited == pytest.approx(200), "two windows of a hundred lost purchases"
    assert never.waited == pytest.approx(400)
    assert early.cost < late.cost < never.cost
    assert late.cost == pytest.approx(200 + PolicySettings().refit_cost)


def test_only_the_last_days_are_replayed():
    assert len({r.window for r in take_last_days(past(), 3)}) == 3
    assert take_last_days([], 3) == []


def test_windows_of_planned_closings_are_not_replayed():
    drifted = sorted({r.window.start for r in past() if r.state is DRIFT})
    closing = Closing(first=drifted[0].date(), last=drifted[-1].date())
    settings = MEASURE.model_copy(update={"closings": (closing,)})
    found = replay(PolicySettings(), settings, past())
    assert (len(found.days), found.refits) == (6, 0)
