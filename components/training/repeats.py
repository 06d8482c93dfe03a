"""How much more likely the items of a history are than the towers' product says."""

import tensorflow as tf

from refit.contract import INTEREST

FASTER = 10.0
"""How much faster than other weights these few are trained, by their scale."""


class RepeatWeights(tf.keras.layers.Layer):
    """What each event of a history adds to the score of its own item, [B, L].

    No dot product of short vectors tells an item from all others; this is added to the scores of
    single items. It depends on event type, age and the number of events, starts at 0, and may
    become negative: what somebody has is then ranked behind. Several events of an item add up.
    """

    def __init__(self) -> None:
        super().__init__(name="repeats")
        shape = (len(INTEREST) + 1, 1)
        self._event_types = self.add_weight("event_types", shape, initializer="zeros")
        self._recency = self.add_weight("recency", (), initializer="zeros")
        self._growth = self.add_weight("growth", (), initializer="zeros")

    def call(self, event_types: tf.Tensor, age_days: tf.Tensor) -> tf.Tensor:
        """[B, L] from event types [B, L], 0 where padded, and ages [B, L]."""
        there = tf.cast(event_types > 0, tf.float32)
        age = tf.math.log1p(tf.maximum(age_days, 0.0))
        amount = tf.math.log1p(tf.reduce_sum(there, axis=1, keepdims=True))
        share = tf.sigmoid(FASTER * (self._growth * amount - self._recency * age))
        return 2 * FASTER * tf.gather(self._event_types, event_types)[:, :, 0] * share * there


def find_repeats(places: tf.Tensor, n_items: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the scores [B, N] of history items are, and which events they belong to.

    Args:
        places: [B, L] column of each event's item among the scores; others are none of them.
        n_items: N.

    Returns:
        [R, 2] places of scores, and [R, 2] places of their events in [B, L].
    """
    events = tf.cast(tf.where((places >= 0) & (places < n_items)), tf.int32)
    return tf.stack([events[:, 0], tf.gather_nd(places, events)], axis=1), events
