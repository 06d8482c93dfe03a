from datetime import UTC, datetime

import numpy as np
import pytest

from monitoring.pooled import compare_pooled, has_enough_days
from monitoring.settings import MeasureSettings

SETTINGS = MeasureSettings(choice_windows=3)
START = datetime(2026, 5, 4, tzinfo=UTC)
DIMENSION = 12


def draw(random, *, days=28, n=80, stays=1, spread=0.0, shift=0.0):
    """Rows of ``days`` earlier days and of three since; what days differ by stays for some."""
    own = random.normal(size=(days + 3 + stays, DIMENSION)) * spread
    day = np.repeat(np.arange(-days, 3), n)
    truth = np.stack([own[at : at + stays].mean(axis=0) for at in range(days + 3)])
    rows = random.normal(size=(len(day), DIMENSION)) + truth[day + days]
    rows[day >= 0, 0] += shift
    return rows.astype(np.float32), day


def p_values(trials=150, **truth):
    random = np.random.default_rng(0)
    return np.array(
        [compare_pooled(SETTINGS, *draw(random, **truth), START).p_value for _ in range(trials)]
    )


@pytest.mark.parametrize(
    "truth",
    [{}, {"spread": 0.15}, {"stays": 3, "spread": 0.2}, {"stays": 6, "spread": 0.3}, {"n": 30}],
)
def test_false_alarms_stay_near_their_nominal_rate_where_days_resemble_their_neighbours(truth):
    found = p_values(**truth)
    # 150 trials at .05: more than 14 has a probability of .012.
    assert (found < 0.05).sum() <= 14
    assert found.min() > 1e-4


def test_a_shift_is_found():
    assert (p_values(trials=40, stays=3, spread=0.1, shift=0.8) < 0.01).mean() > 0.9


def test_days_without_an_earlier_period_to_judge_by_are_not_enough():
    for days, enough in ((28, True), (12, True), (9, False), (2, False)):
        day = np.repeat(np.arange(-days, 0), 60)
        assert has_enough_days(SETTINGS, day) is enough
    assert not has_enough_days(SETTINGS, np.repeat(np.arange(-28, 0), 5))


def test_a_single_window_is_compared_with_days_of_its_kind():
    random, settings = np.random.default_rng(1), MeasureSettings(choice_windows=1)
    rows, day = draw(random, spread=0.0)
    weekend = (day + START.weekday()) % 7 >= 5
    rows[weekend, 0] += 2.0
    kept = day < 1
    monday = compare_pooled(settings, rows[kept], day[kept], START)
    rows[day == 0, 0] += 2.0
    as_weekend = compare_pooled(settings, rows[kept], day[kept], START)
    assert monday.p_value > 0.01 > as_weekend.p_value
    assert monday.periods > 10
