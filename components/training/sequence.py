"""The sequence encoder of the query tower: a small causal transformer over a history.

Events come newest first and padded, as everywhere. Each is the sum of the item's content vector,
its place, event type and age, and the gap to the next event; the output is the newest event's.
Blocks are pre-norm (Xiong et al., ICML 2020). An event attends to itself and to older ones, as in
SASRec (Kang & McAuley, ICDM 2018). Of the last block only the newest event's output is computed.

Only operations that LiteRT has are used.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from refit.contract import INTEREST

NEVER = -1e9
HIDDEN_FACTOR = 2
HOURS = np.arange(0.0, 10.5, 1.0, dtype=np.float32)
"""Centres of the bumps that encode a time, in log(1 + hours): from now to 2.5 years."""
PARTS = 4
"""Of a batch: the half with the shortest histories, half of the rest, and so on."""
SEEDS = 16
"""Distance of the seeds of two dropouts' owners, so that no two of a step are the same."""

Embed = Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]


class SequenceEncoder(tf.keras.layers.Layer):
    """From histories [B, L, C] to vectors [B, C]; 0 where a history is empty.

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
        self._dropout = dropout
        self._places = self.add_weight(
            "places", (length, width), initializer=tf.keras.initializers.RandomNormal(stddev=0.02)
        )
        self._event_types = tf.keras.layers.Embedding(len(INTEREST) + 1, width)
        self._times = tf.keras.layers.Dense(width, use_bias=False)
        self._blocks = [_Block(width, heads, f"block_{i}") for i in range(layers)]
        self._norm = _Norm(width, "norm")

    def call(
        self,
        history: tf.Tensor,
        event_types: tf.Tensor,
        age_days: tf.Tensor,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """[B, C] vectors.

        Args:
            history: [B, L, C] content vectors, newest first.
            event_types: [B, L] indices; 0 is padding.
            age_days: [B, L].
            seed: [2] int32 seed of this step's dropout; None outside of training.
        """
        length = tf.shape(history)[1] if history.shape[1] is None else history.shape[1]
        present = tf.cast(event_types > 0, tf.float32)
        events = history + self._places[:length] + self._event_types(event_types)
        events += self._times(_encode_times(age_days))
        events = drop_out(events, self._dropout, seed, 0)
        place = tf.range(length)
        is_older = tf.cast(place[None, :] >= place[:, None], tf.float32)
        hidden = (1.0 - is_older[None] * present[:, None, :]) * NEVER
        for i, block in enumerate(self._blocks):
            n = 1 if block is self._blocks[-1] else length
            events = block(events, hidden[:, :n], n, self._dropout, seed, 1 + 2 * i)
        return self._norm(events)[:, 0] * present[:, :1]


class _Block(tf.keras.layers.Layer):
    """Attention and a feed-forward part, each added to the events [B, L, C]."""

    def __init__(self, width: int, heads: int, name: str) -> None:
        super().__init__(name=name)
        self._heads, self._width = heads, width
        self._norms = (_Norm(width, "attention_norm"), _Norm(width, "hidden_norm"))
        self._query = tf.keras.layers.Dense(width)
        self._key_value = tf.keras.layers.Dense(2 * width)
        self._mix = tf.keras.layers.Dense(width)
        self._hidden = tf.keras.layers.Dense(HIDDEN_FACTOR * width, "relu")
        self._out = tf.keras.layers.Dense(width)

    def call(
        self,
        events: tf.Tensor,
        hidden: tf.Tensor,
        n: int | tf.Tensor,
        dropout: float,
        seed: tf.Tensor | None,
        number: int,
    ) -> tf.Tensor:
        """[B, n, C] of the ``n`` newest events; ``hidden`` [B, n, L] is added to the scores."""
        first = events[:, :n]
        normed = self._norms[0](events)
        mixed = self._mix(self._attend(normed[:, :n], normed, hidden))
        first += drop_out(mixed, dropout, seed, number)
        more = self._out(self._hidden(self._norms[1](first)))
        return first + drop_out(more, dropout, seed, number + 1)

    def _attend(self, queries: tf.Tensor, events: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
        query = self._split(self._query(queries))
        key, value = (self._split(x) for x in tf.split(self._key_value(events), 2, axis=2))
        scores = tf.matmul(query, key, transpose_b=True)
        scores *= (self._width // self._heads) ** -0.5
        weights = tf.nn.softmax(scores + hidden[:, None], axis=3)
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


def embed_by_length(embed: Embed, event_types: tf.Tensor) -> tf.Tensor:
    """[B, D] embeddings of a training batch, computed without most of the padding.

    The queries are sorted by the length of their histories and cut into ``PARTS`` parts, each as
    long as its longest history.

    Args:
        embed: From rows [b] of the batch, the length of their longest history, and the number of
            the part, to their embeddings [b, D].
        event_types: [B, L]; 0 is padding, which comes last.
    """
    lengths = tf.reduce_sum(tf.cast(event_types > 0, tf.int32), axis=1)
    order = tf.argsort(lengths, stable=True)
    n = tf.shape(order)[0]
    parts = []
    for i in range(PARTS):
        rows = order[n - n // 2**i : n if i + 1 == PARTS else n - n // 2 ** (i + 1)]
        longest = tf.maximum(tf.reduce_max(tf.concat([tf.gather(lengths, rows), [1]], 0)), 1)
        parts.append(embed(rows, longest, i))
    return tf.gather(tf.concat(parts, axis=0), tf.math.invert_permutation(order))


def mask_history(history: tf.Tensor, share: float, seed: tf.Tensor | None) -> tf.Tensor:
    """[B, L, C] content vectors, in training a random ``share`` of them 0."""
    if seed is None or not share:
        return history
    drawn = tf.random.stateless_uniform(tf.shape(history)[:2], seed + SEEDS)
    return history * tf.cast(drawn >= share, tf.float32)[:, :, None]


def _encode_times(age_days: tf.Tensor) -> tf.Tensor:
    """[B, L, 2 bumps] from ages [B, L]: of the age, and of the gap to the next, newer event."""
    newer = tf.concat([tf.zeros_like(age_days[:, :1]), age_days[:, :-1]], axis=1)
    both = tf.stack([age_days, age_days - newer], axis=2)
    hours = tf.math.log1p(tf.maximum(both, 0.0) * 24.0)
    bumps = tf.exp(-0.5 * (hours[:, :, :, None] - HOURS) ** 2)
    return tf.reshape(bumps, [tf.shape(bumps)[0], -1, 2 * len(HOURS)])


def drop_out(values: tf.Tensor, share: float, seed: tf.Tensor | None, number: int) -> tf.Tensor:
    """Of the same shape; in training a random ``share`` 0, another one for each ``number``."""
    if seed is None or not share:
        return values
    return tf.nn.experimental.stateless_dropout(values, share, seed + 2 * SEEDS + number)
