"""Averages of weights over the steps of a training."""

from collections.abc import Sequence

import tensorflow as tf


class Averages(tf.Module):
    """Exponential averages of weights over the steps (after Polyak and Juditsky 1992).

    After t steps the average is that of the weights after each of them, with shares momentum^(t-i)
    that sum to 1. So it does not depend on where the weights started, as that of Keras (``use_ema``
    of its optimizers) does; that also leaves out what another optimizer trains.

    Args:
        weights: Exist already; their averages take as much memory again.
        momentum: From 0, where the average is the weights themselves, to below 1.
    """

    def __init__(self, weights: Sequence[tf.Variable], momentum: float) -> None:
        super().__init__(name="averages")
        self._momentum = momentum
        self._weights = list(weights)
        self._averages = [tf.Variable(weight, trainable=False) for weight in weights]
        self._steps = tf.Variable(tf.zeros([], tf.int64), trainable=False, name="steps")

    def update(self) -> None:
        """Take in the weights as they are after a step."""
        share = share_of_latest(self._momentum, self._steps.assign_add(1))
        for weight, average in zip(self._weights, self._averages, strict=True):
            average.assign_add(share * (weight - average))

    def exchange(self) -> None:
        """Give the weights the values of their averages, and these those; again: undo that."""
        for weight, average in zip(self._weights, self._averages, strict=True):
            exchange(weight, average)


def share_of_latest(momentum: float, steps: tf.Tensor) -> tf.Tensor:
    """Share of the latest of so many steps in an average of all of them, a scalar."""
    powers = tf.pow(tf.constant(momentum, tf.float64), tf.cast(steps, tf.float64))
    return tf.cast((1 - momentum) / (1 - powers), tf.float32)


def exchange(first: tf.Variable, second: tf.Variable) -> None:
    """Give each variable the value of the other, bit by bit."""
    value = tf.identity(first)
    first.assign(second)
    second.assign(value)
