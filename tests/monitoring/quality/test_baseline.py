from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from monitoring.quality.baseline import RateSeries, judge_series
from monitoring.quality.intervals import PersonSums
from monitoring.quality.settings import QualitySettings
from refit.drift import Window

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SETTINGS = QualitySettings()


def series(shares, answers=2000):
    """Windows with exactly these shares, everyone answered once."""
    windows = [
        Window(start=MONDAY + i * DAY, end=MONDAY + (i + 1) * DAY) for i in range(len(shares))
    ]
    sums = []
    for i, share in enumerate(shares):
        hits = np.zeros(answers)
        hits[: round(share * answers)] = 1
        sums.append(PersonSums.of(np.arange(answers) + i * answers, hits))
    return RateSeries(windows, sums, [""] * len(shares))


def judge(shares, answers=2000, settings=SETTINGS):
    return judge_series(settings, series(shares, answers), 50)


def test_the_first_window_has_nothing_to_be_compared_with():
    first, second = judge([0.2, 0.2])
    assert first.expected is None
    assert "no earlier level" in first.why
    assert second.expected == pytest.approx(0.2)
    assert (second.earlier, second.n_earlier) == (1, 2000)


def test_the_expected_rate_is_the_level_of_the_windows_before():
    last = judge([0.2] * 14 + [0.15])[-1]
    assert last.expected == pytest.approx(0.2, abs=1e-6)
    assert last.drop == pytest.approx(0.05, abs=1e-6)
    assert last.relative_drop == pytest.approx(0.25, abs=1e-4)
    assert last.fell


def test_the_threshold_falls_with_traffic_and_with_days():
    def threshold(days, answers):
        return judge([0.2] * days, answers)[-1].threshold

    assert threshold(28, 500) > threshold(28, 2000) > threshold(28, 20_000)
    assert threshold(4, 20_000) > 1.5 * threshold(5 * 7 - 2, 20_000)
    # Chance alone at one in a hundred: 2.326 standard errors of a share of .2 in 500 answers.
    assert threshold(28, 500) > 2.326 * (0.2 * 0.8 / 500) ** 0.5


def test_weekends_that_are_lower_are_expected_to_be():
    week = [0.2] * 5 + [0.16] * 2
    judged = judge(week * 4)
    assert not any(one.fell for one in judged)
    assert judged[-1].expected == pytest.approx(0.16, abs=0.005)
    assert judge(week * 4 + [0.2])[-1].expected == pytest.approx(0.2, abs=0.005)
    assert judge(week * 4 + [0.16])[-1].fell, "on a Monday it is a fall"


def test_days_that_differ_much_widen_the_threshold():
    random = np.random.default_rng(0)
    calm = judge([0.2] * 28, 20_000)[-1]
    restless = judge([*(0.2 * np.exp(0.15 * random.normal(size=28)))], 20_000)[-1]
    assert restless.threshold > 3 * calm.threshold


def test_windows_that_fell_are_no_baseline_but_one_that_fell_alone_is():
    judged = judge([0.2] * 14 + [0.1] * 4)
    assert [one.fell for one in judged[-4:]] == [True] * 4
    assert judged[-1].expected == pytest.approx(0.2, abs=1e-6)
    alone = judge([0.2] * 14 + [0.1] + [0.2] * 3)
    assert [one.fell for one in alone[-4:]] == [True, False, False, False]
    assert alone[-1].earlier == 17


def test_what_a_leader_leaves_out_is_left_out():
    leader = judge([0.2] * 14 + [0.1] * 4)
    weak = judge_series(SETTINGS, series([0.2] * 14 + [0.16] * 4, 60), 50, leader)
    assert weak[-1].expected == pytest.approx(12 / 60, abs=1e-6)


def test_too_little_data_is_no_judgement():
    few = judge([0.2] * 3, 40)
    assert all(one.expected is None and "50 are needed" in one.why for one in few)
    silent = judge([0.0] * 3)
    assert "no event names a request_id" in silent[-1].why
    rare = judge([0.005] * 3, 200)[-1]
    assert "even a fall" in rare.why


def test_windows_of_another_length_are_judged_too():
    for hours in (6, 24 * 7):
        step = timedelta(hours=hours)
        daily = series([0.2] * 12 + [0.05])
        windows = [Window(start=MONDAY + i * step, end=MONDAY + (i + 1) * step) for i in range(13)]
        assert judge_series(SETTINGS, RateSeries(windows, daily.sums, daily.reasons), 50)[-1].fell
