"""The sequence encoder of the query tower: a small causal transformer over a history.

Events come newest first and padded, as everywhere. Each is the sum of the item's content vector,
its event type, and the gap to the event before it; attention knows how many places lie between two
events. So an event's output depends on it and on older ones alone, not on when it is read: the
output of the newest event is that of a query, and where several queries read the history of one
person, one pass has all of theirs (``Runs``).

Blocks are pre-norm (Xiong et al., ICML 2020). An event attends to itself and to older ones, and
content vectors are multiplied by the root of their length, as in SASRec (Kang & McAuley, ICDM
2018): beside larger inputs the items would be lost.

Only operations that LiteRT has are used.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from refit.contract import INTEREST

NEVER = -1e9
HIDDEN_FACTOR = 2
START = 0.02
"""Standard deviation of the weights at the start: what the blocks add is small at first."""
HOURS = np.arange(0.0, 10.5, 1.0, dtype=np.float32)
"""Centres of the bumps that encode a time, in log(1 + hours): from now to 2.5 years."""
PARTS = 4
"""Of a batch: the half with the shortest histories, half of the rest, and so on."""
SEEDS = 16
"""Distance of the seeds of two dropouts' owners, so that no two of a step are the same."""


class Runs(NamedTuple):
    """Queries of which several read the same history, each up to its own newest event.

    Attributes:
        run: [B] row of the history of each query.
        newer: [B] how many of its newest events came after the query, and are not seen.
        lag_days: [B] how much earlier the query was than that of which the ages are.
    """

    run: tf.Tensor
    newer: tf.Tensor
    lag_days: tf.Tensor

    def see(
        self, history: tf.Tensor, event_types: tf.Tensor, age_days: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The histories [R, L, C], event types and ages [R, L] as each query sees them, [B, ...].

        What is not seen is in its place, with event type 0.
        """
        place = tf.range(tf.shape(event_types)[1])
        is_seen = tf.cast(place >= self.newer[:, None], event_types.dtype)
        return (
            tf.gather(history, self.run),
            tf.gather(event_types, self.run) * is_seen,
            tf.gather(age_days, self.run) - self.lag_days[:, None],
        )

    def newest(self, values: tf.Tensor) -> tf.Tensor:
        """[B, ...] of the newest event that each query sees, from values [R, L, ...]."""
        return tf.gather_nd(values, tf.stack([self.run, self.newer], axis=1))

    def count_outputs(self) -> tf.Tensor:
        """Of how many of the newest events of a history a query needs the output."""
        return tf.reduce_max(tf.concat([self.newer, [0]], axis=0)) + 1


Embed = Callable[[tf.Tensor, tf.Tensor, "Runs | None", tf.Tensor, int], tf.Tensor]


class SequenceEncoder(tf.keras.layers.Layer):
    """From histories [B, L, C] to vectors of their newest events; 0 where there is none.

    Args:
        width: C; the content vectors' length.
        length: The longest history, L at most.
        layers: Number of blocks.
        heads: Attention heads; they divide C.
        dropout: Share of the entries dropped in training: of the events, and of what each part of a
            block adds to them.
    """

    def __init__(self, width: int, length: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__(name="sequence")
        self._scale, self._dropout = width**0.5, dropout
        self._event_types = tf.keras.layers.Embedding(len(INTEREST) + 1, width)
        self._gaps = start_small(width, use_bias=False)
        self._blocks = [_Block(width, length, heads, f"block_{i}") for i in range(layers)]
        self._norm = _Norm(width, "norm")

    def call(
        self,
        history: tf.Tensor,
        event_types: tf.Tensor,
        age_days: tf.Tensor,
        n: int | tf.Tensor = 1,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """[B, n, C] vectors of the ``n`` newest events.

        Args:
            history: [B, L, C] content vectors, newest first.
            event_types: [B, L] indices; 0 is padding.
            age_days: [B, L].
            n: How many events; at most L.
            seed: [2] int32 seed of this step's dropout; None outside of training.
        """
        length = tf.shape(history)[1] if history.shape[1] is None else history.shape[1]
        present = tf.cast(event_types > 0, tf.float32)
        events = self._scale * history + self._event_types(event_types)
        events += self._gaps(_encode_gaps(age_days, present))
        events = drop_out(events, self._dropout, seed, 0)
        place = tf.range(length)
        older = place[None, :] - place[:, None]
        hidden = (1.0 - tf.cast(older >= 0, tf.float32)[None] * present[:, None, :]) * NEVER
        older = tf.maximum(older, 0)
        for i, block in enumerate(self._blocks):
            wanted = n if block is self._blocks[-1] else length
            events = block(
                events, hidden[:, :wanted], older[:wanted], wanted, self._dropout, seed, 1 + 2 * i
            )
        return self._norm(events) * present[:, :n, None]


class _Block(tf.keras.layers.Layer):
    """Attention and a feed-forward part, each added to the events [B, L, C]."""

    def __init__(self, width: int, length: int, heads: int, name: str) -> None:
        super().__init__(name=name)
        self._heads, self._width = heads, width
        self._norms = (_Norm(width, "attention_norm"), _Norm(width, "hidden_norm"))
        self._nearness = self.add_weight("nearness", (heads, length), initializer="zeros")
        self._query = start_small(width)
        self._key_value = start_small(2 * width)
        self._mix = start_small(width)
        self._hidden = start_small(HIDDEN_FACTOR * width, "relu")
        self._out = start_small(width)

    def call(
        self,
        events: tf.Tensor,
        hidden: tf.Tensor,
        older: tf.Tensor,
        n: int | tf.Tensor,
        dropout: float,
        seed: tf.Tensor | None,
        number: int,
    ) -> tf.Tensor:
        """[B, n, C] of the ``n`` newest events.

        Args:
            events: [B, L, C].
            hidden: [B, n, L] added to the scores.
            older: [n, L] by how many places the second event is older; at least 0.
            n: How many events.
            dropout: As of the encoder.
            seed: As of the encoder.
            number: Of the dropout; the next one is used too.
        """
        first = events[:, :n]
        normed = self._norms[0](events)
        scores = hidden[:, None] + tf.gather(self._nearness, older, axis=1)
        mixed = self._mix(self._attend(normed[:, :n], normed, scores))
        first += drop_out(mixed, dropout, seed, number)
        more = self._out(self._hidden(self._norms[1](first)))
        return first + drop_out(more, dropout, seed, number + 1)

    def _attend(self, queries: tf.Tensor, events: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        query = self._split(self._query(queries))
        key, value = (self._split(x) for x in tf.split(self._key_value(events), 2, axis=2))
        products = tf.matmul(query, key, transpose_b=True)
        products *= (self._width // self._heads) ** -0.5
        weights = tf.nn.softmax(products + scores, axis=3)
        together = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        return tf.reshape(together, [tf.shape(together)[0], -1, self._width])

    def _split(self, vectors: tf.Tensor) -> tf.Tensor:
        """[B, L, C] as [B, heads, L, C / heads]."""
        shape = [tf.shape(vectors)[0], -1, self._heads, self._width // self._heads]
        return tf.transpose(tf.reshape(vectors, shape), [0, 2, 1, 3])


class _Norm(tf.keras.layers.Layer):
    """Layer normalisation; Keras's own uses an operation that LiteRT does not have."""

    def __init__(self, width: int, name: str) -> None:
        super().__init__(name=name)
        self._scale = self.add_weight("scale", (width,), initializer="ones")
        self._shift = self.add_weight("shift", (width,), initializer="zeros")

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """Of the same shape, each vector with mean 0 and variance 1 before scale and shift."""
        centred = vectors - tf.reduce_mean(vectors, axis=-1, keepdims=True)
        variance = tf.reduce_mean(centred * centred, axis=-1, keepdims=True)
        return centred * tf.math.rsqrt(variance + 1e-6) * self._scale + self._shift


def embed_by_length(embed: Embed, event_types: tf.Tensor, runs: Runs | None = None) -> tf.Tensor:
    """[B, D] embeddings of a batch of queries, computed without most of the padding.

    The histories are sorted by length and cut into ``PARTS`` parts, each as long as its longest.

    Args:
        embed: From rows of the histories, the queries that read them, their runs of these rows, the
            length to cut the rows to, and the number of the part, to the queries' embeddings.
        event_types: [R, L]; 0 is padding, which comes last.
        runs: Which query reads what; None: each its own row, all of it.
    """
    lengths = tf.reduce_sum(tf.cast(event_types > 0, tf.int32), axis=1)
    order = tf.argsort(lengths, stable=True)
    n = tf.shape(order)[0]
    # A query that sees nothing of its run reads the place after the last event.
    after = 0 if runs is None else 1
    place = None if runs is None else tf.gather(tf.math.invert_permutation(order), runs.run)
    parts, queries = [], []
    for i in range(PARTS):
        start, stop = n - n // 2**i, n if i + 1 == PARTS else n - n // 2 ** (i + 1)
        rows = order[start:stop]
        longest = tf.maximum(tf.reduce_max(tf.concat([tf.gather(lengths, rows), [0]], 0)), 1)
        longest = tf.minimum(longest + after, tf.shape(event_types)[1])
        of_part, part = rows, None
        if runs is not None:
            of_part = tf.cast(tf.where((place >= start) & (place < stop))[:, 0], tf.int32)
            run, newer, lag_days = (
                tf.gather(values, of_part) for values in (place, runs.newer, runs.lag_days)
            )
            part = Runs(run - start, newer, lag_days)
        parts.append(embed(rows, of_part, part, longest, i))
        queries.append(of_part)
    embeddings = tf.concat(parts, axis=0)
    return tf.gather(embeddings, tf.math.invert_permutation(tf.concat(queries, axis=0)))


def mask_history(history: tf.Tensor, share: float, seed: tf.Tensor | None) -> tf.Tensor:
    """[B, L, C] content vectors, in training a random ``share`` of them 0."""
    if seed is None or not share:
        return history
    drawn = tf.random.stateless_uniform(tf.shape(history)[:2], seed + SEEDS)
    return history * tf.cast(drawn >= share, tf.float32)[:, :, None]


def encode_time(days: tf.Tensor) -> tf.Tensor:
    """[..., bumps] of times in days [...]."""
    hours = tf.math.log1p(tf.maximum(days, 0.0) * 24.0)
    return tf.exp(-0.5 * (hours[..., None] - HOURS) ** 2)


def _encode_gaps(age_days: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """[B, L, bumps] of the gap between each event and the one before it; 0 where there is none."""
    before = tf.concat([age_days[:, 1:], age_days[:, -1:]], axis=1)
    has_one = tf.concat([present[:, 1:], tf.zeros_like(present[:, :1])], axis=1)
    return encode_time(before - age_days) * has_one[:, :, None]


def start_small(
    size: int, activation: str | None = None, use_bias: bool = True
) -> tf.keras.layers.Dense:
    """A dense layer whose weights start near 0."""
    start = tf.keras.initializers.RandomNormal(stddev=START)
    return tf.keras.layers.Dense(size, activation, use_bias, kernel_initializer=start)


def drop_out(values: tf.Tensor, share: float, seed: tf.Tensor | None, number: int) -> tf.Tensor:
    """Of the same shape; in training a random ``share`` 0, another one for each ``number``."""
    if seed is None or not share:
        return values
    return tf.nn.experimental.stateless_dropout(values, share, seed + 2 * SEEDS + number)
