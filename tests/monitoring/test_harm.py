from datetime import timedelta

import pytest

from monitoring.harm import estimate_harm, find_begin
from monitoring.settings import PolicySettings
from tests.monitoring.alerts import DRIFT, NOW, OK, QUERY, UNMEASURED, series

POLICY = PolicySettings(horizon_days=7)
STATES = [OK] * 10 + [DRIFT] * 5
BEGIN = NOW - timedelta(days=5)


def rates(before, since, half=0.005, n=1000):
    levels = [before] * 10 + [since] * 5
    return [
        result.model_copy(
            update={"level": level, "interval": (level - half, level + half), "n_current": n}
        )
        for result, level in zip(
            series(("live:purchase-rate", "drop"), *[OK] * 15), levels, strict=True
        )
    ]


def test_a_change_begins_with_the_unbroken_run_of_windows_that_drift():
    assert find_begin(series(QUERY, *STATES)) == BEGIN
    assert find_begin(series(QUERY, DRIFT, OK, OK)) is None
    gap = series(QUERY, OK, DRIFT, DRIFT, OK, DRIFT, OK)
    assert find_begin(gap) == NOW - timedelta(days=5), "a single quiet window does not end it"
    assert find_begin(rates(0.2, 0.1)) is None, "live rates are what the change is judged by"


def test_all_answers_since_the_change_are_compared_with_those_before():
    harm = estimate_harm(POLICY, series(QUERY, *STATES) + rates(0.2, 0.15), 1)
    assert (harm.is_measured, harm.hurts) == (True, True)
    assert harm.purchases == pytest.approx(0.05 * 1000 * 7, rel=0.04)
    assert "15.00% of the answers lead to a purchase since it began, 20.00% on such" in harm.because


def test_one_result_that_has_always_drifted_does_not_hide_a_later_change():
    always = series(("scores", "quantile_shares"), *[DRIFT] * 15)
    other = series(("mix:brand", "value_shares"), *STATES)
    drifts = series(QUERY, *STATES) + other + always
    assert find_begin(drifts) == BEGIN
    harm = estimate_harm(POLICY, drifts + rates(0.2, 0.15), 1)
    assert (harm.is_measured, harm.hurts) == (True, True)
    assert find_begin(series(QUERY, *STATES) + always) == NOW - timedelta(days=15), "no two agree"
    alone = estimate_harm(POLICY, always + rates(0.2, 0.15), 1)
    assert (alone.is_measured, alone.purchases) == (False, 0.0)
    assert "none from before" in alone.because


def test_the_same_kinds_of_days_are_compared():
    """People buy less on weekends; a change that begins on a Friday is not blamed for it."""
    every = rates(0.2, 0.2, n=3000)
    weekly = [
        r.model_copy(update={"level": 0.14, "interval": (0.135, 0.145)})
        if r.window.start.weekday() >= 5
        else r
        for r in every
    ]
    last = weekly[-1].window
    assert last.start.weekday() == 5  # of the last windows one or two are on a weekend
    drifts = series(QUERY, *[OK] * 14, DRIFT)
    harm = estimate_harm(POLICY, drifts + weekly, 1)
    assert (harm.purchases, harm.hurts) == (pytest.approx(0, abs=1e-6), None)


def test_days_that_differ_make_a_fall_less_sure():
    same, wild = (
        [
            r.model_copy(update={"level": level, "interval": (level - 0.005, level + 0.005)})
            for r, level in zip(rates(0.2, 0.17), levels, strict=True)
        ]
        for levels in ([0.2] * 10 + [0.17] * 5, [0.15, 0.25] * 5 + [0.17] * 5)
    )
    drifts = series(QUERY, *STATES)
    sure, unsure = (estimate_harm(POLICY, drifts + each, 1) for each in (same, wild))
    assert (sure.hurts, unsure.hurts) == (True, None)
    assert unsure.purchases < sure.purchases / 2


def test_a_fall_that_no_single_window_shows_is_seen_in_all_of_them():
    # A single window of 150 answers is sure to .06 only.
    few = estimate_harm(POLICY, series(QUERY, *STATES) + rates(0.2, 0.13, 0.064, 150), 1)
    assert few.hurts is True
    assert few.purchases > 20


def test_an_unsure_fall_costs_less_and_none_or_a_rise_nothing():
    drifts = series(QUERY, *STATES)
    # Its standard error is about .02, as large as the usual fall of 10% of .2.
    half = 0.02 * 1.96 / (1 / 5 + 1 / 10) ** 0.5
    unsure = estimate_harm(POLICY, drifts + rates(0.2, 0.15, half), 1)
    assert unsure.purchases == pytest.approx(0.025 * 7000, rel=0.04)
    for since in (0.2, 0.25):
        calm = estimate_harm(POLICY, drifts + rates(0.2, since, 0.001), 1)
        assert (calm.purchases, calm.hurts) == (0, False)
    assert estimate_harm(POLICY, drifts + rates(0.2, 0.2, 0.1), 1).hurts is None


def test_the_window_in_which_it_began_is_neither_before_nor_since():
    """Rates are known hours late: half of that window's answers are of the time before."""
    levels = [0.2] * 9 + [0.11] + [0.1] * 5
    mixed = [
        r.model_copy(update={"level": level, "interval": (level - 0.005, level + 0.005)})
        for r, level in zip(rates(0.2, 0.1), levels, strict=True)
    ]
    drifts = series(QUERY, *[OK] * 9, *[DRIFT] * 6)
    harm = estimate_harm(POLICY, drifts + mixed, 1, timedelta(hours=12))
    assert "10.00% of the answers" in harm.because
    assert "20.00% on such days" in harm.because


def test_a_low_day_after_the_drift_has_ended_is_no_harm():
    """Looked at alone, one day in a hundred is low enough."""
    days = [r.model_copy(update={"state": OK}) for r in rates(0.2, 0.2)]
    days[-1] = days[-1].model_copy(update={"level": 0.1, "interval": (0.095, 0.105)})
    ended = estimate_harm(POLICY, series(QUERY, *[OK] * 10, DRIFT, DRIFT, OK, OK, OK) + days, 1)
    assert (ended.purchases, ended.hurts) == (0, None)
    assert "nothing drifts" in ended.because
    fell = [*days[:-1], days[-1].model_copy(update={"state": DRIFT})]
    alone = estimate_harm(POLICY, series(QUERY, *[OK] * 15) + fell, 1)
    assert alone.hurts is True
    assert alone.purchases > 100


def test_before_answers_have_matured_nothing_is_known():
    late = estimate_harm(POLICY, series(QUERY, *STATES) + rates(0.2, 0.1), 1, timedelta(days=6))
    assert (late.purchases, late.is_measured, late.hurts) == (0, False, None)
    assert "no answers since it began have matured" in late.because


def test_where_purchases_are_not_measured_the_unseen_is_assumed_to_lose_some():
    (far,) = series(("query-embedding", "new_region"), DRIFT)
    (scores,) = series(("scores", "quantile_shares"), OK)
    (unmeasured,) = series(("live:purchase-rate", "drop"), UNMEASURED)
    results = [far.model_copy(update={"value": 0.4}), unmeasured]
    results.append(scores.model_copy(update={"n_current": 1000}))
    harm = estimate_harm(POLICY, results, 1)
    assert not harm.is_measured
    assert harm.purchases == pytest.approx(0.02 * 0.3 * 0.4 * 7000)
    assert estimate_harm(POLICY, results[1:], 1).purchases == 0
    assert estimate_harm(POLICY, [], 1).purchases == 0
