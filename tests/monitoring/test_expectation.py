import numpy as np
import pytest

from monitoring.expectation import Days, Noise, Variogram, compare, fit_variogram

DIMENSION = 8
NOISE = Noise(DIMENSION, DIMENSION)


def make_days(means, n=300.0, at=None, slot=None, age=None):
    count = len(means)
    at = np.arange(count, dtype=float) if at is None else np.asarray(at, dtype=float)
    slot = (at.astype(int) % 7) if slot is None else np.asarray(slot)
    age = np.zeros(count) if age is None else np.asarray(age, dtype=float)
    return Days(np.asarray(means, dtype=float), np.full(count, float(n)), at, slot, age)


def draw(random, at, n, *, day=0.0, weekend=0.0, slope=0.0, shift=0.0):
    """Means of days of n rows each, whose truth differs by day, at weekends and over time."""
    at = np.asarray(at, dtype=float)
    means = random.normal(size=(len(at), DIMENSION)) * np.sqrt(day**2 + 1 / n)
    means[:, 0] += weekend * (at % 7 >= 5) + slope * at + shift
    return make_days(means, n, at)


def p_values(random, trials=200, n=300, **truth):
    found = []
    shift = truth.pop("shift", 0.0)
    for _ in range(trials):
        days = draw(random, np.arange(28), 300, **truth)
        window = draw(random, [28 + random.integers(0, 7)], n, shift=shift, **truth)
        found.append(compare(days, NOISE, fit_variogram(days, NOISE), window).p_value)
    return np.array(found)


@pytest.mark.parametrize(
    "truth",
    [
        {},
        {"day": 0.1},
        {"weekend": 0.5},
        {"slope": 0.02},
        {"day": 0.05, "weekend": 0.3, "slope": 0.01},
    ],
)
@pytest.mark.parametrize("n", [60, 300, 10_000])
def test_false_alarms_stay_below_their_nominal_rate(truth, n):
    found = p_values(np.random.default_rng(0), n=n, **truth)
    # 200 trials at .05: more than 18 has a probability of .008.
    assert (found < 0.05).sum() <= 18


@pytest.mark.parametrize(("n", "power"), [(60, 0.1), (300, 0.75), (2000, 0.99), (50_000, 0.99)])
def test_power_does_not_fall_with_more_rows(n, power):
    found = p_values(np.random.default_rng(1), n=n, shift=0.35)
    assert (found < 0.01).mean() >= power


def test_the_threshold_falls_with_the_rows_to_what_days_differ_by():
    random = np.random.default_rng(2)
    days = draw(random, np.arange(28), 5000, day=0.1)
    variogram = fit_variogram(days, NOISE)
    thresholds = [
        compare(days, NOISE, variogram, draw(random, [28], n)).threshold(0.01)
        for n in (50, 200, 800, 3200, 12_800, 51_200, 1_000_000)
    ]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[-1] > 0.3  # eight dimensions, .1 each


def test_the_variogram_is_net_of_chance():
    days = draw(np.random.default_rng(3), np.arange(400), 300, day=0.2)
    fitted = fit_variogram(days, NOISE)
    assert fitted.day == pytest.approx(DIMENSION * 0.04, rel=0.1)
    assert fitted.weekday < 0.03
    assert fitted.walk * 100 < 0.05


def test_a_weekend_is_compared_with_weekends():
    random = np.random.default_rng(4)
    days = draw(random, np.arange(28), 2000, weekend=1.0)
    variogram = fit_variogram(days, NOISE)
    saturday, monday = draw(random, [33], 2000, weekend=1.0), draw(random, [28], 2000)
    as_monday = make_days(saturday.means, 2000, [28])
    assert compare(days, NOISE, variogram, saturday).p_value > 0.01
    assert compare(days, NOISE, variogram, monday).p_value > 0.01
    assert compare(days, NOISE, variogram, as_monday).p_value < 0.001


def test_the_age_of_the_index_explains_a_change_that_came_with_it_before():
    random = np.random.default_rng(5)
    age = np.tile(np.arange(5.0), 6)
    means = random.normal(size=(30, DIMENSION)) / np.sqrt(1000)
    means[:, 0] += 0.2 * age
    days = make_days(means, 1000, slot=np.zeros(30, int), age=age)
    variogram = fit_variogram(days, NOISE)
    old = np.zeros((1, DIMENSION))
    old[0, 0] = 0.8
    same_age = make_days(old, 1000, [30], [0], [4.0])
    fresh = make_days(old, 1000, [30], [0], [0.0])
    assert compare(days, NOISE, variogram, same_age).p_value > 0.05
    assert (
        compare(days, NOISE, variogram, fresh).p_value
        < compare(days, NOISE, variogram, same_age).p_value
    )


def test_the_value_is_the_distance_without_what_chance_explains():
    days = make_days(np.zeros((20, DIMENSION)), 10_000)
    window = make_days(np.full((1, DIMENSION), 0.5), 10_000, [20])
    found = compare(days, NOISE, Variogram(0.0, 0.0, 0.0, 0.0), window)
    chance = NOISE.trace * (1 / 10_000 + 1 / 200_000)
    assert found.value == pytest.approx(np.sqrt(DIMENSION * 0.25 - chance))
    assert found.expected == pytest.approx(np.zeros(DIMENSION))


def test_a_single_day_is_enough_for_a_cautious_answer():
    one = make_days(np.zeros((1, DIMENSION)), 1000)
    far = make_days(np.full((1, DIMENSION), 3.0), 1000, [1])
    assert compare(one, NOISE, fit_variogram(one, NOISE), far).p_value < 0.01
    near = make_days(np.full((1, DIMENSION), 0.03), 1000, [1])
    assert compare(one, NOISE, fit_variogram(one, NOISE), near).p_value > 0.05
