"""The query tower and the item tower.

Both embeddings are [learned part | popularity part], so that one dot product adds two scores:

- Learned: unit vectors of query and item over a learned temperature. With ``similarity: dot`` the
  item's content vector as it is, and a query's vector in the same space.
- Popularity: naive Bayes, log p(item) + sum over context columns of log p(value | item) / p(value),
  as a dot product. The item part is z = [log popularity, the smoothed log-ratio of every counted
  context value]. The query part selects from it with gates: 1 for the first entry, and for each
  column a learned row of gates, initialised to the one-hot encoding of the query's value, so that
  neighbouring values (sizes, ages) can learn to share counts. Without ``popularity`` in the
  settings there is no such part.

With ``towers: popularity`` the learned part of queries is 0 and the gates stay as they are: the
score is naive Bayes, in towers that are indexed and served as any others.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.training.encoders import EVENT_CODES, ItemEncoder, QueryEncoder, Tensors
from components.training.repeats import RepeatWeights
from components.training.sequence import (
    START,
    Runs,
    SequenceEncoder,
    drop_out,
    encode_time,
    mask_history,
    start_small,
)
from components.training.settings import TrainSettings
from components.training.vocabulary import Vocabulary
from refit.contract import INTEREST
from refit.errors import UsageError
from refit.features import FeaturesManifest

MAX_EMBEDDING_SIZE = 256
CATEGORY_SIZE = 16
HISTORY_HEADS = 2
INITIAL_SMOOTHING = 10.0
POOLED = 50
"""Of the dropouts of a query tower; the others have smaller numbers."""


class PopularityPart(tf.keras.layers.Layer):
    """Item side of the popularity part: from decayed counts [B, P] to log-ratios [B, 1 + values].

    For each half-life and column c: log((n_ic + a pi_c) / (n_i + a)) - log pi_c, with learned
    smoothing a. The half-lives of each column are summed with learned weights.
    """

    def __init__(self, manifest: FeaturesManifest, vocabulary: Vocabulary) -> None:
        super().__init__(name="popularity")
        self._half_lives = len(manifest.spec.popularity_half_lives_days)
        self._shares = [vocabulary.shares[c] for c in manifest.spec.popularity_by]
        self._sizes = [1, *(len(s) for s in self._shares)]
        even = tf.keras.initializers.Constant(1 / self._half_lives)
        shape = (len(self._sizes), self._half_lives)
        self._weights = self.add_weight("weights", shape, initializer=even)
        self._smoothing = self.add_weight(
            "smoothing", shape, initializer=_constant(_initial_log_smoothing(shape))
        )
        self._hidden = tf.keras.layers.Dense(16, "relu")
        self._out = tf.keras.layers.Dense(1, kernel_initializer="zeros", use_bias=False)

    @property
    def size(self) -> int:
        """Length of the popularity part."""
        return sum(self._sizes)

    def call(self, age_days: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """[B, size] from ages [B] and counts [B, P]."""
        counts = tf.reshape(counts, [-1, self._half_lives, self.size])
        overall, *columns = tf.split(counts, self._sizes, axis=2)
        smoothing = tf.exp(self._smoothing)
        logs = tf.math.log(overall[:, :, 0] + smoothing[0])
        parts = [self._prior(logs, age_days)]
        for j, (share, column) in enumerate(zip(self._shares, columns, strict=True), start=1):
            a = smoothing[j][:, None]
            ratio = tf.math.log((column + a * share) / (overall + a)) - np.log(share)
            parts.append(tf.einsum("bhv,h->bv", ratio, self._weights[j]))
        return tf.concat(parts, axis=1)

    def _prior(self, logs: tf.Tensor, age_days: tf.Tensor) -> tf.Tensor:
        known = tf.math.is_finite(age_days)
        age = tf.math.log1p(tf.maximum(tf.where(known, age_days, 0.0), 0.0))
        features = tf.concat([logs / 3, age[:, None] / 3, tf.cast(known, tf.float32)[:, None]], 1)
        linear = tf.linalg.matvec(logs, self._weights[0])[:, None]
        return linear + self._out(self._hidden(features))


class ItemTower(tf.keras.layers.Layer):
    """From items to embeddings, and to the content vectors that represent them in histories."""

    def __init__(
        self, settings: TrainSettings, manifest: FeaturesManifest, vocabulary: Vocabulary
    ) -> None:
        super().__init__(name="item_tower")
        spec = manifest.spec
        self.encode = ItemEncoder(settings, manifest, vocabulary)
        self.popularity = PopularityPart(manifest, vocabulary) if settings.popularity else None
        self._settings = settings
        self._categories = _embeddings(vocabulary, [f"item_{c}" for c in spec.item_categorical])
        self._words = tf.keras.layers.Embedding(settings.text_buckets, settings.text_size)
        self._words.build((None,))
        self._n_texts = len(spec.item_text)
        self._content = tf.keras.layers.Dense(settings.content_size)
        self._is_its_content = settings.similarity == "dot"
        self._has_columns = bool(
            spec.item_categorical or spec.item_numeric or spec.item_text or spec.item_vector
        )
        if not self._is_its_content:
            self._hidden = tf.keras.layers.Dense(settings.hidden_size, "relu")
            self._deeper = tf.keras.layers.Dense(settings.learned_size, use_bias=False)
            self._learned = tf.keras.layers.Dense(settings.learned_size)
        self.ids, self.trains_all_ids = None, False
        if vocabulary.values["item_id"]:
            shape = (len(vocabulary.values["item_id"]) + 1, settings.content_size)
            # A table no larger than the sample of negatives is touched nearly whole by each step,
            # and trained as other weights. Else see ``LazyRows``; rows start at 0 there, since
            # most are seen too seldom to be moved far from where they start.
            self.trains_all_ids = settings.uniform_negatives >= shape[0] - 1
            spread = START if self._is_its_content else 0.05
            start = tf.keras.initializers.RandomNormal(stddev=spread)
            self.ids = self.add_weight(
                "ids",
                shape,
                initializer=start if self.trains_all_ids else "zeros",
                trainable=self.trains_all_ids,
            )

    def id_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """[B, C] id embeddings of known items; 0 for unknown ones. [B, 0] without a table."""
        if self.ids is None:
            return tf.zeros([tf.shape(ids)[0], 0])
        return tf.gather(self.ids, ids) * tf.cast(ids > 0, tf.float32)[:, None]

    def content(self, codes: Tensors, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Content vectors [B, C] of encoded items; independent of age and popularity.

        Args:
            codes: Of the encoder.
            seed: [2] int32 seed of this step's id dropout; None outside of training.
        """
        id_vectors = self.id_vectors(codes["id"])
        if seed is not None:
            kept = tf.random.stateless_uniform([tf.shape(id_vectors)[0], 1], seed)
            id_vectors *= tf.cast(kept >= self._settings.id_dropout, tf.float32)
        parts = [table(codes["categories"][:, j]) for j, table in enumerate(self._categories)]
        for words in tf.split(codes["words"], self._n_texts, axis=1) if self._n_texts else ():
            parts.append(_mean_of_words(self._words.embeddings, words))
        parts += [codes["numbers"], codes["vector"]]
        if not self._is_its_content:
            return self._content(tf.concat([*parts, id_vectors], axis=1))
        content = self._content(tf.concat(parts, axis=1)) if self._has_columns else 0.0
        return content if self.ids is None else content + id_vectors

    def embed(self, content: tf.Tensor, age_days: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """Embeddings [B, D] of items with content [B, C], ages [B] and counts [B, P]."""
        learned = self.embed_content(content)
        if self.popularity is None:
            return learned
        return tf.concat([learned, self.popularity(age_days, counts)], axis=1)

    def embed_content(self, content: tf.Tensor) -> tf.Tensor:
        """The learned part of the embeddings, [B, L], of items with content [B, C]."""
        if self._is_its_content:
            return content
        learned = self._learned(content) + self._deeper(self._hidden(content))
        return tf.math.l2_normalize(learned, axis=1)

    def call(self, inputs: Tensors) -> Tensors:
        """``embedding`` [B, D] and ``content`` [B, C] of raw inputs."""
        content = self.content(self.encode(inputs))
        embedding = self.embed(content, inputs["item_age_days"], inputs["item_popularity"])
        return {"embedding": embedding, "content": content}


class QueryTower(tf.keras.layers.Layer):
    """From queries to embeddings; a new user has an empty history and is embedded by context."""

    def __init__(
        self, settings: TrainSettings, manifest: FeaturesManifest, vocabulary: Vocabulary
    ) -> None:
        super().__init__(name="query_tower")
        spec = manifest.spec
        self.encode = QueryEncoder(manifest, vocabulary)
        self._settings = settings
        self._learns = settings.towers == "learned"
        counted = spec.popularity_by if settings.popularity else ()
        self._categories = _embeddings(
            vocabulary,
            [
                *(f"context_{c}" for c in spec.context_categorical),
                *(f"user_{c}" for c in spec.user_categorical),
            ],
        )
        self._gates = [
            self.add_weight(
                f"gates_{c}",
                (1 + len(manifest.popularity_values[c]), len(manifest.popularity_values[c])),
                initializer=_constant(_initial_gates(manifest, c, settings.gate_init)),
                trainable=self._learns,
            )
            for c in counted
        ]
        self._initial_gates = [_initial_gates(manifest, c, settings.gate_init) for c in counted]
        self._event_bias = tf.keras.layers.Embedding(
            len(INTEREST) + 1, HISTORY_HEADS, embeddings_initializer="zeros"
        )
        self._content_bias = tf.keras.layers.Dense(HISTORY_HEADS, kernel_initializer="zeros")
        self._recency = self.add_weight(
            "recency", (HISTORY_HEADS,), initializer=_constant(np.linspace(0.2, 1.0, HISTORY_HEADS))
        )
        dense = start_small if settings.similarity == "dot" else tf.keras.layers.Dense
        self._hidden = dense(settings.hidden_size, "relu")
        self._learned = dense(settings.learned_size)
        self._history = dense(settings.learned_size, use_bias=False)
        self._repeats = RepeatWeights() if settings.repeats and self._learns else None
        self._sequence, self._ordered = None, None
        if settings.history == "sequence":
            self._sequence = SequenceEncoder(
                settings.content_size,
                spec.history_length,
                settings.sequence_layers,
                settings.sequence_heads,
                settings.dropout,
            )
            if settings.similarity == "cosine":
                self._ordered = tf.keras.layers.Dense(settings.learned_size, use_bias=False)
        self._log_scale = self.add_weight(
            "log_scale",
            (),
            initializer=_constant(np.log(1 / settings.temperature)),
            trainable=settings.similarity == "cosine" and settings.learn_temperature,
        )

    def embed(
        self,
        codes: Tensors,
        history: tf.Tensor,
        event_types: tf.Tensor,
        age_days: tf.Tensor,
        seed: tf.Tensor | None = None,
        runs: Runs | None = None,
    ) -> tf.Tensor:
        """Embeddings [B, D] of encoded queries.

        Args:
            codes: Of the encoder.
            history: [R, L, C] content vectors.
            event_types: [R, L] indices; 0 is padding.
            age_days: [R, L].
            seed: [2] int32 seed of this step's dropout; None outside of training.
            runs: Which query reads what; None: each its own row, all of it.
        """
        history = mask_history(history, self._settings.history_masked, seed)
        seen = history, event_types, age_days
        pooled, amount = self._pool(*(seen if runs is None else runs.see(*seen)))
        if self._sequence is not None:
            pooled = drop_out(pooled, self._settings.dropout, seed, POOLED)
        parts = [table(codes["categories"][:, j]) for j, table in enumerate(self._categories)]
        parts += [codes["numbers"], pooled, amount]
        learned = self._history(pooled)
        if self._sequence is not None:
            ordered, days = _read_in_order(self._sequence, runs, seed, *seen)
            parts += [ordered, encode_time(days) * amount[:, :1]]
            learned += ordered if self._ordered is None else self._ordered(ordered)
        hidden = self._hidden(tf.concat(parts, axis=1))
        if seed is not None:
            hidden = tf.nn.experimental.stateless_dropout(hidden, self._settings.dropout, seed)
        learned += self._learned(hidden)
        if self._settings.similarity == "cosine":
            learned = tf.math.l2_normalize(learned, axis=1)
        learned *= tf.exp(self._log_scale) if self._learns else 0.0
        if not self._settings.popularity:
            return learned
        gates = [tf.gather(table, codes["gates"][:, j]) for j, table in enumerate(self._gates)]
        one = tf.ones([tf.shape(learned)[0], 1])
        return tf.concat([learned, one, *gates], axis=1)

    def call(self, inputs: Tensors) -> tf.Tensor:
        """Embeddings [B, D] of raw inputs."""
        return self.embed_coded({**inputs, **self.encode.look_up(inputs)})

    def embed_coded(self, coded: Tensors) -> tf.Tensor:
        """Embeddings [B, D] of inputs whose texts were looked up; see ``QueryEncoder.lookups``."""
        return self.embed(
            self.encode.encode(coded),
            coded["history_content"],
            coded[EVENT_CODES],
            coded["history_age_days"],
        )

    def weigh_repeats(self, event_types: tf.Tensor, age_days: tf.Tensor) -> tf.Tensor | None:
        """[B, L] what each event adds to the score of its own item; None: nothing.

        Args:
            event_types: [B, L] indices; 0 is padding.
            age_days: [B, L].
        """
        return None if self._repeats is None else self._repeats(event_types, age_days)

    def gate_distance(self) -> tf.Tensor:
        """Sum of squared differences of the gates from their initial values; a scalar."""
        moves = [
            tf.reduce_sum((g - s) ** 2)
            for g, s in zip(self._gates, self._initial_gates, strict=True)
        ]
        return tf.add_n(moves) if moves else tf.constant(0.0)

    def _pool(
        self, history: tf.Tensor, event_types: tf.Tensor, age_days: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attention over the history by content, event type and age: [B, heads * C], [B, 2]."""
        present = event_types > 0
        decay = tf.math.log1p(tf.maximum(age_days, 0.0))[:, :, None] * tf.nn.softplus(self._recency)
        scores = self._content_bias(history) + self._event_bias(event_types) - decay
        shifted = tf.where(present[:, :, None], scores, -1e9)
        weights = tf.nn.softmax(shifted, axis=1) * tf.cast(present, tf.float32)[:, :, None]
        pooled = tf.einsum("blh,blc->bhc", weights, history)
        width = HISTORY_HEADS * history.shape[2]
        events = tf.reduce_sum(tf.cast(present, tf.float32), 1, keepdims=True)
        amount = tf.concat([tf.cast(events > 0, tf.float32), tf.math.log1p(events)], axis=1)
        return tf.reshape(pooled, [-1, width]), amount


def _read_in_order(
    encode: SequenceEncoder,
    runs: Runs | None,
    seed: tf.Tensor | None,
    history: tf.Tensor,
    event_types: tf.Tensor,
    age_days: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The encoder's vectors [B, C], and the ages [B] of the newest events."""
    if runs is None:
        return encode(history, event_types, age_days, 1, seed)[:, 0], age_days[:, 0]
    outputs = encode(history, event_types, age_days, runs.count_outputs(), seed)
    return runs.newest(outputs), runs.newest(age_days) - runs.lag_days


def check_embedding_size(settings: TrainSettings, manifest: FeaturesManifest) -> int:
    """Length D of the embeddings, without the spectral part.

    Raises:
        UsageError: It is more than ``MAX_EMBEDDING_SIZE``.
    """
    values = sum(len(manifest.popularity_values[c]) for c in manifest.spec.popularity_by)
    learned = settings.tower_pairs * settings.learned_size
    size = learned + (1 + values if settings.popularity else 0)
    if size > MAX_EMBEDDING_SIZE:
        raise UsageError(
            f"embeddings would have {size} entries ({learned} learned, {values} counted context "
            f"values), at most {MAX_EMBEDDING_SIZE} are allowed: lower popularity_values or "
            "tower_pairs, or remove columns from popularity_by or bins from popularity_bins"
        )
    return size


def _embeddings(vocabulary: Vocabulary, names: Sequence[str]) -> list[tf.keras.layers.Embedding]:
    return [
        tf.keras.layers.Embedding(len(vocabulary.values[name]) + 2, CATEGORY_SIZE) for name in names
    ]


def _mean_of_words(table: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """[B, E] mean vector of the words [B, W] that are there; 0 where there is none."""
    there = tf.where(words > 0)
    return tf.sparse.segment_mean(
        tf.convert_to_tensor(table),
        tf.gather_nd(words, there),
        tf.cast(there[:, 0], tf.int32),
        num_segments=tf.shape(words)[0],
    )


def _initial_gates(manifest: FeaturesManifest, column: str, own: float) -> NDArray[np.float32]:
    """[1 + n, n] gates of each value: ``own`` for the value itself, 0 for the others.

    The first row is that of values that are not counted.
    """
    n = len(manifest.popularity_values[column])
    return np.concatenate([np.zeros((1, n)), own * np.eye(n)]).astype(np.float32)


def _initial_log_smoothing(shape: tuple[int, int]) -> NDArray[np.float32]:
    """The first row smooths overall counts, in events; the others smooth ratios."""
    initial = np.full(shape, np.log(INITIAL_SMOOTHING), dtype=np.float32)
    initial[0] = np.log(0.3)
    return initial


def _constant(value: NDArray[np.floating] | float) -> tf.keras.initializers.Initializer:
    return lambda shape, dtype=None: tf.constant(value, dtype or tf.float32, shape)
