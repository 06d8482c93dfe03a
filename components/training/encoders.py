"""Encoders of raw tower inputs: look-ups, bins and scales, without trainable weights.

They run once over all data before training, and are the first layer of the exported towers, so that
a SavedModel takes plain strings and encodes them as in training.
"""

import numpy as np
import tensorflow as tf

from components.training.settings import TrainSettings
from components.training.vocabulary import MISSING, Vocabulary
from refit.contract import INTEREST
from refit.features import FeaturesManifest

Tensors = dict[str, tf.Tensor]

EVENT_CODES = "code_history_event_type"
BUMP_WIDTH = 0.5
BUMPS = np.arange(-2.5, 2.51, BUMP_WIDTH, dtype=np.float32)
"""Centres, in standard deviations, of the Gaussian bumps that encode a number, so that the towers
can prefer a middle value of an age, a height or a price."""


def _lookup(values: tuple[str, ...]) -> tf.keras.layers.StringLookup:
    """Index of a string: 0 for unknown or missing, then the known values in order."""
    return tf.keras.layers.StringLookup(vocabulary=list(values) or [MISSING], mask_token=None)


class ItemEncoder(tf.keras.layers.Layer):
    """Encodes item tower inputs, except age and popularity.

    Outputs: id [B], categories [B, #categorical], numbers [B, 13 #numeric] (standardised value,
    missing flag and bumps of each), words [B, #text * words] (0 is padding), vector [B, V].
    """

    def __init__(
        self, settings: TrainSettings, manifest: FeaturesManifest, vocabulary: Vocabulary
    ) -> None:
        super().__init__(name="item_encoder")
        spec = manifest.spec
        self._id = _lookup(vocabulary.values["item_id"])
        self._categorical = {
            c: _lookup(vocabulary.values[f"item_{c}"]) for c in spec.item_categorical
        }
        self._scales = {c: vocabulary.scales[f"item_{c}"] for c in spec.item_numeric}
        self._text = spec.item_text
        self._vector_size = manifest.vector_size
        self._words, self._buckets = settings.text_words, settings.text_buckets

    def call(self, inputs: Tensors) -> Tensors:
        """Encode a batch."""
        ids = inputs["item_id"]
        rows = tf.shape(ids)[0]
        words = [self._hash_words(inputs[f"item_{name}"]) for name in self._text]
        return {
            "id": tf.cast(self._id(ids), tf.int32),
            "categories": _categories(self._categorical, inputs, "item", rows),
            "numbers": _standardise(self._scales, inputs, "item", rows),
            "words": tf.concat([tf.zeros([rows, 0], tf.int32), *words], axis=1),
            "vector": inputs["item_vector"] if self._vector_size else tf.zeros([rows, 0]),
        }

    def _hash_words(self, text: tf.Tensor) -> tf.Tensor:
        clean = tf.strings.regex_replace(tf.strings.lower(text, "utf-8"), r"[\pP\pS\s]+", " ")
        words = tf.strings.split(clean)
        hashed = tf.strings.to_hash_bucket_fast(words.flat_values, self._buckets - 1) + 1
        padded = words.with_flat_values(hashed).to_tensor(shape=[None, self._words])
        return tf.cast(padded, tf.int32)


class QueryEncoder(tf.keras.layers.Layer):
    """Encodes query tower inputs, except the history's content and ages.

    It looks texts up first, which needs TensorFlow's tables, and encodes the codes then, which does
    not. Outputs: gates [B, #popularity_by] (index of the counted value, 0 for others), categories
    [B, #categorical], numbers [B, 13 #numeric] (standardised value, missing flag and bumps).
    """

    def __init__(self, manifest: FeaturesManifest, vocabulary: Vocabulary) -> None:
        super().__init__(name="query_encoder")
        spec = manifest.spec
        self._columns = spec.popularity_by
        self._gates = {
            c: _lookup(manifest.popularity_values[c])
            for c in spec.popularity_by
            if c not in spec.popularity_bins
        }
        self._edges = {c: spec.popularity_bins.get(c) for c in spec.popularity_by}
        self._sides = {
            side: (
                {c: _lookup(vocabulary.values[f"{side}_{c}"]) for c in categorical},
                {c: vocabulary.scales[f"{side}_{c}"] for c in numeric},
            )
            for side, categorical, numeric in (
                ("context", spec.context_categorical, spec.context_numeric),
                ("user", spec.user_categorical, spec.user_numeric),
            )
        }
        self._event_type = _lookup(INTEREST)

    @property
    def lookups(self) -> dict[str, tuple[str, tf.keras.layers.StringLookup]]:
        """By name of a code: the input with its text, and the look-up."""
        gates = {f"gate_{c}": (f"context_{c}", look) for c, look in self._gates.items()}
        categories = {
            f"code_{side}_{c}": (f"{side}_{c}", look)
            for side, (texts, _) in self._sides.items()
            for c, look in texts.items()
        }
        return {**gates, **categories, EVENT_CODES: ("history_event_type", self._event_type)}

    def call(self, inputs: Tensors) -> Tensors:
        """Encode a batch."""
        return self.encode({**inputs, **self.look_up(inputs)})

    def look_up(self, inputs: Tensors) -> Tensors:
        """Codes, int32 of the shape of their inputs, of the texts that are there."""
        return {
            code: tf.cast(look(inputs[name]), tf.int32)
            for code, (name, look) in self.lookups.items()
            if name in inputs
        }

    def encode(self, coded: Tensors) -> Tensors:
        """Encode a batch whose texts were looked up."""
        rows = tf.shape(next(iter(coded.values())))[0]
        gates = [self._gate(column, coded) for column in self._columns]
        codes = [
            coded[f"code_{side}_{c}"] for side, (texts, _) in self._sides.items() for c in texts
        ]
        return {
            "gates": tf.stack(gates, 1) if gates else tf.zeros([rows, 0], tf.int32),
            "categories": tf.stack(codes, 1) if codes else tf.zeros([rows, 0], tf.int32),
            "numbers": tf.concat(
                [_standardise(n, coded, side, rows) for side, (_, n) in self._sides.items()], 1
            ),
        }

    def event_types(self, names: tf.Tensor) -> tf.Tensor:
        """Index of each event type, int32; 0 is padding."""
        return tf.cast(self._event_type(names), tf.int32)

    def _gate(self, column: str, coded: Tensors) -> tf.Tensor:
        edges = self._edges[column]
        if edges is None:
            return coded[f"gate_{column}"]
        values = coded[f"context_{column}"]
        # As tf.searchsorted to the right of equal edges, which LiteRT does not have.
        reached = values[:, None] >= tf.constant(edges, tf.float32)
        bins = tf.reduce_sum(tf.cast(reached, tf.int32), 1) + 1
        return tf.where(tf.math.is_nan(values), 0, bins)


def _categories(
    lookups: dict[str, tf.keras.layers.StringLookup], inputs: Tensors, side: str, rows: tf.Tensor
) -> tf.Tensor:
    columns = [tf.cast(look(inputs[f"{side}_{c}"]), tf.int32) for c, look in lookups.items()]
    return tf.stack(columns, 1) if columns else tf.zeros([rows, 0], tf.int32)


def _standardise(
    scales: dict[str, tuple[float, float]], inputs: Tensors, side: str, rows: tf.Tensor
) -> tf.Tensor:
    if not scales:
        return tf.zeros([rows, 0])
    mean, deviation = np.array(list(scales.values()), dtype=np.float32).T
    values = (tf.stack([inputs[f"{side}_{c}"] for c in scales], 1) - mean) / deviation
    missing = tf.math.is_nan(values)
    values = tf.where(missing, 0.0, tf.clip_by_value(values, -4.0, 4.0))
    bumps = tf.exp(-0.5 * ((values[:, :, None] - BUMPS) / BUMP_WIDTH) ** 2)
    bumps = tf.where(missing[:, :, None], 0.0, bumps)
    return tf.concat(
        [values, tf.cast(missing, tf.float32), tf.reshape(bumps, [-1, len(scales) * len(BUMPS)])],
        axis=1,
    )
