"""The lazy table against a table of which every step moves every row."""

import numpy as np
import pytest
import tensorflow as tf

from components.training.lazy_rows import EPSILON, RATE, LazyRows, sum_series

LEARNING_RATE, PENALTY = 0.01, 0.002


def make(
    n: int, width: int = 2, penalty: float = PENALTY, momentum: float = 0.0
) -> tuple[tf.Variable, LazyRows]:
    table = tf.Variable(tf.zeros([n, width]), trainable=False)
    return table, LazyRows(table, penalty, momentum)


def step(rows: LazyRows, touched: list[int], gradient: np.ndarray) -> None:
    rows.shrink(tf.constant(touched), tf.constant(LEARNING_RATE))
    slices = tf.IndexedSlices(tf.constant(gradient, tf.float32), tf.constant(touched))
    rows.apply(slices, tf.constant(LEARNING_RATE))


def test_rows_are_what_they_are_when_every_step_moves_every_row() -> None:
    rng = np.random.default_rng(0)
    table, rows = make(6)
    values, squares = np.zeros((6, 2)), np.zeros(6)
    for _ in range(40):
        touched = np.sort(rng.choice(5, 2, replace=False))
        gradient = rng.normal(size=(2, 2))
        step(rows, touched.tolist(), gradient)
        squares[touched] += (gradient**2).mean(axis=1)
        sizes = RATE * LEARNING_RATE / np.sqrt(squares + EPSILON)
        values[touched] -= sizes[touched, None] * gradient
        values *= np.exp(-2 * PENALTY * sizes)[:, None]
    rows.shrink_all(tf.constant(LEARNING_RATE))
    np.testing.assert_allclose(table.numpy(), values, rtol=1e-4, atol=1e-7)
    assert (table.numpy()[5] == 0).all()
    again = table.numpy()
    rows.shrink_all(tf.constant(LEARNING_RATE))
    np.testing.assert_array_equal(table.numpy(), again)


def test_the_first_step_of_a_row_has_the_size_of_the_rate() -> None:
    table, rows = make(3)
    step(rows, [1], np.array([[3.0, -3.0]]))
    size = RATE * LEARNING_RATE
    np.testing.assert_allclose(table.numpy(), [[0, 0], [-size, size], [0, 0]], rtol=1e-5)


def test_a_row_that_is_not_seen_again_shrinks_to_0() -> None:
    table, rows = make(2)
    step(rows, [0], np.full((1, 2), 0.001))
    before = np.abs(table.numpy()[0]).max()
    for _ in range(50):
        step(rows, [1], np.full((1, 2), 0.001))
    assert np.abs(table.numpy()[0]).max() == before
    rows.shrink_all(tf.constant(LEARNING_RATE))
    assert np.abs(table.numpy()[0]).max() < 1e-4 * before


def test_gradients_of_a_row_that_is_there_twice_are_added() -> None:
    once, rows = make(2)
    step(rows, [1], np.array([[3.0, 4.0]]))
    twice, others = make(2)
    step(others, [1, 1], np.array([[1.0, 3.0], [2.0, 1.0]]))
    np.testing.assert_array_equal(once.numpy(), twice.numpy())


@pytest.mark.parametrize("kept", [True, False])
def test_a_checkpoint_has_what_later_steps_need(kept: bool, tmp_path: object) -> None:
    first, rows = make(2)
    step(rows, [0], np.array([[1.0, 2.0]]))
    path = tf.train.Checkpoint(rows=rows).write(f"{tmp_path}/weights")
    step(rows, [0], np.array([[2.0, 1.0]]))
    second, others = make(2)
    if kept:
        tf.train.Checkpoint(rows=others).read(path).assert_consumed()
    step(others, [0], np.array([[2.0, 1.0]]))
    assert np.array_equal(first.numpy(), second.numpy()) == kept


@pytest.mark.parametrize("penalty", [0.0, PENALTY, 1.0])
@pytest.mark.parametrize("momentum", [0.3, 0.9])
def test_the_average_is_what_it_is_when_every_step_takes_in_every_row(
    penalty: float, momentum: float
) -> None:
    rng = np.random.default_rng(0)
    table, rows = make(6, penalty=penalty, momentum=momentum)
    values, squares, weighted, shares = np.zeros((6, 2)), np.zeros(6), np.zeros((6, 2)), 0.0
    for number in range(40):
        touched = np.sort(rng.choice(4, 2, replace=False)) if number else np.array([1, 4])
        gradient = rng.normal(size=(2, 2))
        step(rows, touched.tolist(), gradient)
        squares[touched] += (gradient**2).mean(axis=1)
        sizes = RATE * LEARNING_RATE / np.sqrt(squares + EPSILON)
        values[touched] -= sizes[touched, None] * gradient
        values *= np.exp(-2 * penalty * sizes)[:, None]
        weighted, shares = momentum * weighted + values, momentum * shares + 1
        if number == 20:
            for _ in range(2):  # the second time nothing is left to take in
                rows.shrink_all(tf.constant(LEARNING_RATE))
    rows.shrink_all(tf.constant(LEARNING_RATE))
    own = table.numpy()
    rows.exchange()
    np.testing.assert_allclose(table.numpy(), weighted / shares, rtol=1e-4, atol=1e-7)
    assert (table.numpy()[5] == 0).all()
    rows.exchange()
    np.testing.assert_array_equal(table.numpy(), own)


@pytest.mark.parametrize("fall", [0.0, 0.01, 0.1 - 1e-9, 0.1, 0.1 + 1e-9, 3.0, 1e8])
@pytest.mark.parametrize("steps", [1, 2, 5, 10_000])
def test_the_series_is_summed_without_overflow(fall: float, steps: int) -> None:
    decay = 0.1
    j = np.arange(1, steps + 1)
    expected = np.exp(-decay * (steps - j) - fall * j).sum()
    found = sum_series(*(tf.constant(value, tf.float64) for value in (decay, fall, steps)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-300)


def test_without_momentum_there_is_no_average() -> None:
    table, rows = make(2)
    step(rows, [1], np.array([[3.0, -3.0]]))
    own = table.numpy()
    rows.exchange()
    np.testing.assert_array_equal(table.numpy(), own)
    assert [variable.name for variable in rows.variables if "average" in variable.name] == []
