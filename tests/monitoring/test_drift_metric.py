import numpy as np
import pytest

from monitoring.drift_metric import DriftMetric, calibrate, day_blocks, half_splits
from monitoring.settings import MeasureSettings
from monitoring.statistics import Frame

DIMENSION = 16
SETTINGS = MeasureSettings(trials=99, false_alarm_rate=0.05)


def sample(random, n, weights=None, centres=None):
    if centres is None:
        centres = np.random.default_rng(5).normal(size=(8, DIMENSION))
    x = centres[random.choice(len(centres), n, p=weights)] + random.normal(size=(n, DIMENSION))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def as_frame(vectors, days):
    cells = np.empty(len(vectors), dtype=object)
    for place, vector in enumerate(vectors):
        cells[place] = vector
    return Frame({"v": cells}, days)


def calibrated(random, n=3000, days=10, weights=lambda: None, settings=SETTINGS):
    each = n // days
    vectors = np.vstack([sample(random, each, weights()) for _ in range(days)])
    reference = as_frame(vectors, np.repeat(np.arange(days), each))
    plain = DriftMetric(
        subject="query-embedding",
        statistic="frechet",
        table="answers",
        column="v",
        values=(str(DIMENSION),),
    )
    return calibrate(plain, reference, settings, day_blocks(reference, settings)), vectors


def test_false_alarms_stay_near_their_nominal_rate():
    random = np.random.default_rng(0)
    alarms = trials = 0
    for _ in range(3):
        metric, reference = calibrated(random)
        for n in (80, 300):
            threshold = metric.threshold_at(n)
            values = [metric.measure.distance(reference, sample(random, n)) for _ in range(40)]
            alarms += sum(value > threshold for value in values)
            trials += len(values)
    # 240 trials at .05: more than 22 has a probability of .003.
    assert alarms <= 22, f"{alarms} false alarms in {trials} trials"


def test_days_that_differ_among_themselves_raise_no_alarms_either():
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
            [t.resampling for t in metric.thresholds],
        )
        for _ in range(40):
            value = metric.measure.distance(reference, sample(random, 300, weights()))
            alarms.append(value > at_300)
            by_chance.append(value > chance)
    assert np.mean(alarms) <= 0.1
    assert np.mean(by_chance) > 0.5, "resampling alone would not have told days from drift"


def test_a_clear_shift_is_found():
    random = np.random.default_rng(2)
    metric, reference = calibrated(random)
    skewed = np.array([4, 4, 1, 1, 1, 1, 1, 1]) / 14
    found = [
        metric.measure.distance(reference, sample(random, 300, skewed)) > metric.threshold_at(300)
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
        found.append(metric.measure.distance(reference, current) > metric.threshold_at(2000))
    assert all(found)


def test_thresholds_fall_with_n_and_are_met_at_the_calibrated_sizes():
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
    metric, _ = calibrated(np.random.default_rng(5), n=40, days=4)
    assert metric is None


def test_too_few_days_leave_the_natural_bound_open():
    metric, _ = calibrated(np.random.default_rng(6), n=900, days=3)
    assert metric.blocks == 0
    assert all(threshold.natural is None for threshold in metric.thresholds)


def test_listing_days_are_dealt_to_two_sides():
    days = np.repeat(np.arange(6), 10)
    splits = half_splits(as_frame(np.zeros((60, DIMENSION)), days), SETTINGS)
    for one, other in splits:
        assert len(one) == len(other) == 30
        assert not set(days[one]) & set(days[other])
