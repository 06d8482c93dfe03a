from dataclasses import replace

import numpy as np
import pytest

from monitoring.calibration import calibrate, day_blocks, half_splits
from monitoring.drift_metrics import load_metric
from monitoring.frame import Frame
from monitoring.settings import MeasureSettings
from monitoring.subjects import Subject
from refit.errors import DataValidationError, RefitError

DIMENSION = 16
SETTINGS = MeasureSettings(trials=99, false_alarm_rate=0.05)
QUERY = Subject("query-embedding", "answers", "v", "embedding")
FRECHET = load_metric("frechet")


def sample(random, n, weights=None, centres=None):
    if centres is None:
        centres = np.random.default_rng(5).normal(size=(8, DIMENSION))
    x = centres[random.choice(len(centres), n, p=weights)] + random.normal(size=(n, DIMENSION))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def as_frame(vectors, days):
    cells = np.empty(len(vectors), dtype=object)
    for i, vector in enumerate(vectors):
        cells[i] = vector
    return Frame({"v": cells}, days)


def calibrated(random, n=3000, days=10, weights=lambda: None, settings=SETTINGS):
    each = n // days
    vectors = np.vstack([sample(random, each, weights()) for _ in range(days)])
    reference = as_frame(vectors, np.repeat(np.arange(days), each))
    blocks = day_blocks(reference, settings)
    return calibrate(QUERY, FRECHET, reference, settings, blocks), vectors


def test_false_alarms_stay_near_their_nominal_rate():
    random = np.random.default_rng(0)
    alarms = trials = 0
    for _ in range(3):
        metric, reference = calibrated(random)
        for n in (80, 300):
            threshold = metric.threshold_at(n)
            values = [FRECHET.measure(reference, sample(random, n)) for _ in range(40)]
            alarms += sum(value > threshold for value in values)
            trials += len(values)
    # 240 trials at .05: more than 22 has a probability of .003.
    assert alarms <= 22, f"{alarms} false alarms in {trials} trials"


def test_days_that_differ_from_each_other_raise_no_alarms():
    random = np.random.default_rng(1)

    def weights():
        w = np.exp(0.4 * random.normal(size=8))
        return w / w.sum()

    alarms, by_chance = [], []
    for _ in range(3):
        metric, reference = calibrated(random, weights=weights)
        at_300 = metric.threshold_at(300)
        chance = np.interp(
            300,
            [t.n for t in metric.thresholds],
            [t.bootstrap_bound for t in metric.thresholds],
        )
        for _ in range(40):
            value = FRECHET.measure(reference, sample(random, 300, weights()))
            alarms.append(value > at_300)
            by_chance.append(value > chance)
    assert np.mean(alarms) <= 0.1
    assert np.mean(by_chance) > 0.5, "the bootstrap alone would take the days for drift"


def test_a_clear_shift_is_found():
    random = np.random.default_rng(2)
    metric, reference = calibrated(random)
    skewed = np.array([4, 4, 1, 1, 1, 1, 1, 1]) / 14
    found = [
        FRECHET.measure(reference, sample(random, 300, skewed)) > metric.threshold_at(300)
        for _ in range(10)
    ]
    assert all(found)


def test_a_new_cluster_of_five_percent_is_found_in_2000_rows():
    random = np.random.default_rng(3)
    settings = MeasureSettings(trials=99)
    metric, reference = calibrated(random, n=10_000, days=5, settings=settings)
    new = np.random.default_rng(9).normal(size=(1, DIMENSION)) * 2
    found = []
    for _ in range(10):
        current = sample(random, 2000)
        current[:100] = sample(random, 100, centres=new)
        found.append(FRECHET.measure(reference, current) > metric.threshold_at(2000))
    assert all(found)


def test_thresholds_fall_with_n_and_are_exact_at_the_calibrated_sizes():
    metric, _ = calibrated(np.random.default_rng(4))
    values = [threshold.value for threshold in metric.thresholds]
    assert values == sorted(values, reverse=True)
    assert metric.needs_n == SETTINGS.minimum_rows
    assert metric.largest_n == SETTINGS.sample_size
    for threshold in metric.thresholds:
        assert metric.threshold_at(threshold.n) == pytest.approx(threshold.value)
    middle = metric.threshold_at(65)
    assert values[0] > middle > values[1]


def test_a_reference_with_too_few_rows_gives_no_metric():
    with pytest.raises(DataValidationError, match="40 usable rows, 50 are needed"):
        calibrated(np.random.default_rng(5), n=40, days=4)


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        (lambda reference, current: float("nan"), "'frechet' returned nan"),
        (lambda reference, current: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_metric_that_fails_while_calibrating_is_an_error(compare, message):
    reference = as_frame(sample(np.random.default_rng(0), 100), np.repeat(np.arange(10), 10))
    broken = replace(FRECHET, compare=compare)
    with pytest.raises(RefitError, match=f"on query-embedding failed with .*{message}"):
        calibrate(QUERY, broken, reference, SETTINGS, [])


def test_too_few_days_give_no_between_day_bound():
    metric, _ = calibrated(np.random.default_rng(6), n=900, days=3)
    assert metric.blocks == 0
    assert all(threshold.between_day_bound is None for threshold in metric.thresholds)


def test_listing_days_are_assigned_to_two_halves():
    days = np.repeat(np.arange(6), 10)
    splits = half_splits(as_frame(np.zeros((60, DIMENSION)), days), SETTINGS)
    for one, other in splits:
        assert len(one) == len(other) == 30
        assert not set(days[one]) & set(days[other])
