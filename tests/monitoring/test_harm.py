import pytest

from monitoring.harm import estimate_harm
from monitoring.settings import PolicySettings
from tests.monitoring.alerts import DRIFT, OK, UNMEASURED, series

POLICY = PolicySettings(horizon_days=7)


def quality(state, **changes):
    (result,) = series(("live:purchase-rate", "drop"), state)
    return result.model_copy(update=changes)


def test_a_measured_fall_costs_what_is_lost_over_the_horizon():
    fell = quality(DRIFT, value=0.05, level=0.15, interval=(0.149, 0.151), n_current=1000)
    harm = estimate_harm(POLICY, [fell], window_days=1)
    assert harm.is_measured
    assert harm.purchases == pytest.approx(0.05 * 1000 * 7, rel=0.01)
    assert harm.a_day == pytest.approx(200)
    assert "15.00% of the answers lead to a purchase, 20.00% are expected" in harm.because


def test_an_unsure_fall_costs_less_and_none_or_a_rise_nothing():
    unsure = quality(DRIFT, value=0.05, level=0.15, interval=(0.1108, 0.1892), n_current=1000)
    # Its standard error is .02, as large as the usual fall of 10% of .2: half of it is believed.
    assert estimate_harm(POLICY, [unsure], 1).purchases == pytest.approx(0.025 * 7000, rel=0.01)
    for value in (0.0, -0.05):
        calm = quality(OK, value=value, level=0.2, interval=(0.19, 0.21), n_current=1000)
        assert estimate_harm(POLICY, [calm], 1).purchases == 0


def test_unknown_quality_is_assumed_to_fall_where_the_model_meets_the_unseen():
    unknown = quality(UNMEASURED, level=0.2, n_current=1000)
    (far,) = series(("query-embedding", "new_region"), DRIFT)
    harm = estimate_harm(POLICY, [unknown, far.model_copy(update={"value": 0.4})], 1)
    assert not harm.is_measured
    assert harm.purchases == pytest.approx(0.2 * 0.3 * 0.4 * 7000)
    assert estimate_harm(POLICY, [unknown], 1).purchases == 0


def test_without_purchases_nobody_knows_what_it_costs():
    harm = estimate_harm(POLICY, [], 1)
    assert (harm.purchases, harm.a_day) == (0, None)
    assert "not known" in harm.because
