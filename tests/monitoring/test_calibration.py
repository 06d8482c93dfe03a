from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from monitoring.calibration import CalibratedMetric, calibrate, find_repetition, find_slot
from monitoring.drift_metrics import load_metric
from monitoring.expectation import Days, compare, fit_variogram
from monitoring.frame import Frame, mean_features
from monitoring.settings import MeasureSettings
from monitoring.subjects import Subject
from refit.errors import DataValidationError, RefitError

SETTINGS = MeasureSettings()
QUERY = Subject("query-embedding", "answers", "v", "embedding")
MEAN_SHIFT = load_metric("mean_shift")


def as_frame(vectors, days, **columns):
    table = pa.table({"v": pa.array(list(vectors)), **columns})
    return Frame(table, np.asarray(days, dtype=float))


def calibrated(n=3000, days=10, **columns):
    vectors = np.random.default_rng(0).normal([5, -1], [1, 10], size=(n, 2))
    frame = as_frame(vectors, np.arange(n) % days + 0.5, **columns)
    return calibrate(QUERY, MEAN_SHIFT, frame, SETTINGS), vectors


def test_distances_are_in_standard_deviations_of_each_direction():
    metric, vectors = calibrated()
    moved = metric.place(vectors.mean(axis=0) + np.array([1, 0]))
    assert np.linalg.norm(moved) == pytest.approx(1 / np.sqrt(1 + 0.05 * 50.5), rel=0.05)
    assert metric.noise.trace == pytest.approx(2, rel=0.4)


def test_days_are_summarised_each_with_its_rows_and_weekday():
    metric, vectors = calibrated()
    days = metric.reference
    assert days.n.tolist() == [300] * 10
    assert days.at.tolist() == list(range(10))
    assert days.slot.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]
    assert days.means[3] == pytest.approx(metric.place(vectors[3::10].mean(axis=0)), abs=1e-5)


def test_a_stock_that_turns_over_is_no_change_of_concentration():
    random = np.random.default_rng(0)
    # Each day has 30 sellers of its own.
    day = np.repeat(np.arange(15), 300)
    sold = [[f"{d}-{seller}" for seller in random.integers(30, size=5)] for d in day]
    users = [f"user-{row}" for row in range(len(day))]
    table = pa.table({"user_id": pa.array(users), "seller_id": pa.array(sold)})
    seen = day < 14
    reference = Frame(table.filter(pa.array(seen)), day[seen] + 0.5)
    subject = Subject("mix:seller_id", "answers", "seller_id", "concentration")
    metric = calibrate(subject, load_metric("concentration"), reference, SETTINGS)
    assert metric.centre == pytest.approx(np.log(1 / 30), abs=0.05)
    window = metric.encode(Frame(table.filter(pa.array(~seen)), day[~seen] + 0.5))[0]
    assert metric.place(window.mean(axis=0)) == pytest.approx(0, abs=0.05)


def test_small_days_are_joined_and_rows_without_a_day_are_one_block():
    vectors = np.random.default_rng(0).normal(size=(100, 2))
    joined = calibrate(QUERY, MEAN_SHIFT, as_frame(vectors, np.arange(100) // 30), SETTINGS)
    assert joined.reference.n.tolist() == [60, 40] or joined.reference.n.tolist() == [100]
    unknown = calibrate(QUERY, MEAN_SHIFT, as_frame(vectors, np.full(100, np.nan)), SETTINGS)
    assert unknown.reference.n.tolist() == [100]


def test_what_the_age_of_an_index_explains_is_no_drift():
    def answers(n, ages, seed):
        """Scores fall as the index ages, and the best listings with it."""
        random = np.random.default_rng(seed)
        return pa.table({"score": random.normal(1 - 0.03 * ages, 0.1, n), "index_age": ages})

    day = np.arange(6000) % 20
    seen = np.array([0.5, 4.5, 1.5, 8.5, 2.5])[day % 5]
    subject = Subject("scores", "answers", "score", "score")
    frame = Frame(answers(6000, seen, 0), day + 0.5)
    metric = calibrate(subject, load_metric("quantile_shares"), frame, SETTINGS)
    days = metric.reference
    assert days.age.tolist() == [0.5, 4.5, 1.5, 8.5, 2.5] * 4
    window = Frame(answers(300, np.full(300, 6.5), 1), np.full(300, 20.5))
    rows, _ = metric.encode(window)
    variogram = fit_variogram(days, metric.noise)

    def find_chance(age):
        mean = metric.place(mean_features(rows))[None]
        here = Days(mean, np.array([300.0]), np.array([20.0]), np.array([6]), np.array([age]))
        return compare(days, metric.noise, variogram, here).p_value

    assert find_chance(6.5) > 0.05
    assert find_chance(0.5) < 1e-3


def test_rows_of_one_person_count_less():
    alone, _ = calibrated(user_id=[f"u{i}" for i in range(3000)])
    random = np.random.default_rng(1)
    people = random.integers(0, 100, 3000)
    vectors = random.normal(size=(100, 2))[people] + 0.1 * random.normal(size=(3000, 2))
    frame = as_frame(vectors, np.arange(3000) % 10, user_id=[f"u{i}" for i in people])
    crowded = calibrate(QUERY, MEAN_SHIFT, frame, SETTINGS)
    assert alone.noise.trace == pytest.approx(1.5, abs=0.4)
    assert crowded.noise.trace > 2 * alone.noise.trace


def test_a_reference_is_written_and_read_again(tmp_path):
    metric, _ = calibrated()
    metric = replace(metric, entry=metric.entry.model_copy(update={"file": "0.npz"}))
    metric.write(tmp_path / "0.npz")
    again = CalibratedMetric.read(metric.entry, tmp_path)
    assert again.parameters["length"] == 2
    assert (again.reference.means == metric.reference.means).all()
    assert again.noise == metric.noise


def test_a_reference_with_too_few_rows_gives_no_metric():
    with pytest.raises(DataValidationError, match="40 usable rows, 50 are needed"):
        calibrated(n=40, days=4)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda *_: (np.full(60, np.nan), np.arange(60)), "'mean_shift' returned a feature"),
        (lambda *_: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_metric_that_fails_while_calibrating_is_an_error(encode, message):
    frame = as_frame(np.ones((100, 2)), np.repeat(np.arange(10), 10))
    broken = replace(MEAN_SHIFT, encode_rows=encode)
    with pytest.raises(RefitError, match=f"on query-embedding failed with .*{message}"):
        calibrate(QUERY, broken, frame, SETTINGS)


def test_repetition_is_the_chance_that_two_slots_show_the_same_item():
    lists = pa.array([["a", "b"], ["a", "a"], ["x", "y"]])
    frame = Frame(pa.table({"item_ids": lists}), np.zeros(3))
    assert find_repetition(frame, np.array([0, 1])) == pytest.approx((3 / 4) ** 2 + (1 / 4) ** 2)


def test_slots_are_places_in_the_week():
    assert find_slot(0.0, SETTINGS) == find_slot(7.0, SETTINGS) == 0
    half = MeasureSettings(window_days=0.5)
    assert [find_slot(at, half) for at in (0.0, 0.5, 1.0, 7.5)] == [0, 1, 2, 1]
