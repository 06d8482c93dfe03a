"""Validation recall with full ranking, computed outside of Keras metrics."""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.training.batches import Batch, EncodedExamples
from components.training.encoders import Tensors
from components.training.model import TwoTowerModel
from components.training.pairs import JoinedTowers
from components.training.repeats import find_repeats
from components.training.snapshots import Snapshots
from components.training.spectral import SpectralTowers
from refit.contract import INTEREST, EventType
from refit.errors import DataValidationError

QUERIES_AT_ONCE = 1024
CELLS_AT_ONCE = 1 << 25
"""Entries of the histories' content vectors that are read at once, 128 MB."""
ITEMS_AT_ONCE = 8192
PURCHASE = 1 + INTEREST.index(EventType.PURCHASE)
"""Index of purchases among the event types of a history, in which 0 is padding."""


class RecallMeter:
    """Measures a model's recall@K on a fixed sample of examples, ranking all live items.

    As in the evaluation, what a user has bought is left out where the market hides it. It would
    else take the first places, and what is ranked behind it would not count.

    Args:
        model: Measured in its current state, each time.
        examples: The validation examples.
        snapshots: Live items by snapshot.
        catalogue: The encoded catalogue.
        limit: At most this many examples, drawn at random.
        seed: Of that draw.
        hides_bought: Whether purchases in a history are left out of what is ranked.

    Raises:
        DataValidationError: No example has an item of its snapshot.
    """

    def __init__(
        self,
        model: TwoTowerModel | JoinedTowers | SpectralTowers,
        examples: EncodedExamples,
        snapshots: Snapshots,
        catalogue: Tensors,
        limit: int,
        seed: int,
        hides_bought: bool,
    ) -> None:
        self._model = model
        self._hides_bought = hides_bought
        self._examples = examples
        self._snapshots = snapshots
        self._catalogue = catalogue
        rows = np.flatnonzero(_live(examples, snapshots))
        if not len(rows):
            raise DataValidationError(
                "no validation example has an item of its snapshot; widen the validation window"
            )
        if len(rows) > limit:
            rows = np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
        self._rows = rows
        self._content = tf.function(
            model.item_tower.content, reduce_retracing=True, autograph=False
        )
        self._items = tf.function(model.item_tower.embed, reduce_retracing=True, autograph=False)
        self._rank = tf.function(self._rank_block, reduce_retracing=True, autograph=False)

    @property
    def users(self) -> NDArray[Any]:
        """[E] whose example each is, as hashes."""
        return self._examples.user[self._rows]

    def ranks(self) -> NDArray[np.int64]:
        """[E] number of other live items that score at least as high as the positive."""
        content = self._catalogue_content()
        cells = content.shape[1] * self._examples.history.shape[1]
        at_once = max(1, min(QUERIES_AT_ONCE, CELLS_AT_ONCE // cells))
        snapshot_of = self._examples.snapshot[self._rows]
        ranks = np.empty(len(self._rows), dtype=np.int64)
        for number in np.unique(snapshot_of):
            snapshot = self._snapshots[int(number)]
            rows_of_items = snapshot.content_rows(snapshot.item)
            embeddings = self._embed(content, rows_of_items, snapshot.age_days, snapshot.popularity)
            at = np.flatnonzero(snapshot_of == number)
            for part in np.array_split(at, -(-len(at) // at_once)):
                rows = self._rows[part]
                label = snapshot.rows_of(self._examples.item[rows])
                history = snapshot.content_rows(self._examples.history[rows])
                queries = self._queries(rows, history, content)
                places = snapshot.rows_of(self._examples.history[rows]).astype(np.int32)
                ranks[part] = self._rank(*queries, embeddings, label, places).numpy()
        return ranks

    def recall_at(self, k: int) -> float:
        """Share of examples whose positive is among the first ``k``; ties count against it."""
        return float(np.mean(self.ranks() < k))

    def _rank_block(
        self,
        codes: dict[str, tf.Tensor],
        history: tf.Tensor,
        event_types: tf.Tensor,
        age_days: tf.Tensor,
        embeddings: tf.Tensor,
        label: tf.Tensor,
        places: tf.Tensor,
    ) -> tf.Tensor:
        queries = self._model.embed_queries(codes, history, event_types, age_days)
        scores = tf.matmul(queries, embeddings, transpose_b=True)
        weights = self._model.query_tower.weigh_repeats(event_types, age_days)
        if weights is not None:
            repeated, events = find_repeats(places, tf.shape(scores)[1])
            added = tf.gather_nd(weights, events)
            scores = tf.tensor_scatter_nd_add(scores, repeated, added)
        if self._hides_bought:
            others = (event_types == PURCHASE) & (places != tf.cast(label[:, None], places.dtype))
            bought, _ = find_repeats(tf.where(others, places, -1), tf.shape(scores)[1])
            last = tf.fill([tf.shape(bought)[0]], -np.inf)
            scores = tf.tensor_scatter_nd_update(scores, bought, last)
        positive = tf.gather(scores, label, axis=1, batch_dims=1)
        # Counts what is not below, so that a NaN ranks last instead of first.
        below = tf.reduce_sum(tf.cast(scores < positive[:, None], tf.int64), axis=1)
        return tf.shape(scores, tf.int64)[1] - 1 - below

    def _queries(
        self, rows: NDArray[np.int64], history: NDArray[Any], content: NDArray[np.float32]
    ) -> tuple[Batch, NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
        examples = self._examples
        vectors = content[np.maximum(history, 0)] * (history >= 0)[:, :, None]
        return (
            {name: codes[rows] for name, codes in examples.codes.items()},
            vectors.astype(np.float32),
            examples.history_event_type[rows].astype(np.int32),
            examples.history_age_days[rows],
        )

    def _catalogue_content(self) -> NDArray[np.float32]:
        n = len(self._catalogue["id"])
        blocks = [slice(i, i + ITEMS_AT_ONCE) for i in range(0, n, ITEMS_AT_ONCE)]
        return np.concatenate(
            [
                self._content({k: v[block] for k, v in self._catalogue.items()}).numpy()
                for block in blocks
            ]
        )

    def _embed(
        self,
        content: NDArray[np.float32],
        items: NDArray[Any],
        age_days: NDArray[np.float32],
        popularity: NDArray[np.float32],
    ) -> tf.Tensor:
        blocks = [slice(i, i + ITEMS_AT_ONCE) for i in range(0, len(items), ITEMS_AT_ONCE)]
        return tf.concat(
            [self._items(content[items[b]], age_days[b], popularity[b]) for b in blocks], axis=0
        )


def _live(examples: EncodedExamples, snapshots: Snapshots) -> NDArray[np.bool_]:
    live = np.zeros(len(examples), dtype=np.bool_)
    for number in np.unique(examples.snapshot):
        at = np.flatnonzero(examples.snapshot == number)
        live[at] = snapshots.live(int(number), examples.item[at])
    return live
