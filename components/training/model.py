"""The two towers as one TensorFlow Recommenders model, and its loss."""

from collections.abc import Callable

import tensorflow as tf

from components.training.averages import Averages
from components.training.encoders import Tensors
from components.training.lazy_rows import LazyRows
from components.training.recommenders import Model, RetrievalTask
from components.training.repeats import find_repeats
from components.training.sequence import Runs, embed_by_length
from components.training.settings import TrainSettings
from components.training.towers import ItemTower, QueryTower
from components.training.vocabulary import Vocabulary
from refit.features import FeaturesManifest

MASKED = -1e9
SMALLEST = 1.2e-38
"""The smallest normal float32."""
SEEDS_OF_A_PART = 101
"""Distance of the seeds of two parts of a batch; a query tower uses fewer."""


class SampledRetrieval(RetrievalTask):
    """Softmax over the distinct candidates of a batch.

    ``tfrs.tasks.Retrieval`` takes candidate i as the positive of query i: an item that is the
    positive of several queries is a candidate several times, and the positive is corrected for its
    sampling probability although it is always present. Here candidates are distinct, each query has
    the row of its positive, and the positive is not corrected (Khrylchenko et al., RecSys 2025).
    """

    def call(
        self,
        query_embeddings: tf.Tensor,
        candidate_embeddings: tf.Tensor,
        label: tf.Tensor,
        weight: tf.Tensor,
        log_probability: tf.Tensor,
        masked: tf.Tensor,
        repeated: tf.Tensor,
        added: tf.Tensor,
    ) -> tf.Tensor:
        """The mean weighted loss, a scalar.

        Args:
            query_embeddings: [B, D].
            candidate_embeddings: [N, D].
            label: [B] row of each query's positive.
            weight: [B].
            log_probability: [N] log of each candidate's probability to be sampled.
            masked: [K, 2] pairs (query, candidate) that are not used as negatives.
            repeated: [R, 2] pairs of a query and an item of its history.
            added: [R] what is added to their scores.
        """
        # The correction is one more entry of the vectors; what is not corrected, or is masked, is
        # added to single scores. A pass over [B, N] would take as long as the product.
        one = tf.ones([tf.shape(query_embeddings)[0], 1])
        positives = tf.stack([tf.range(tf.shape(label)[0]), label], axis=1)
        uncorrected = tf.gather(log_probability, label)
        losses = _cross_entropy(
            tf.concat([query_embeddings, one], axis=1),
            tf.concat([candidate_embeddings, -log_probability[:, None]], axis=1),
            positives,
            tf.concat([positives, masked, repeated], axis=0),
            tf.concat([uncorrected, tf.fill([tf.shape(masked)[0]], MASKED), added], axis=0),
        )
        return tf.reduce_mean(losses * weight)


class TwoTowerModel(Model):
    """Query tower and item tower, trained together."""

    def __init__(
        self, settings: TrainSettings, manifest: FeaturesManifest, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        self.query_tower = QueryTower(settings, manifest, vocabulary)
        self.item_tower = ItemTower(settings, manifest, vocabulary)
        self._task = SampledRetrieval()
        self._id_l2, self._gate_l2 = settings.id_l2, settings.gate_l2
        self._is_ordered = settings.history == "sequence"
        ids, are_few = self.item_tower.ids, self.item_tower.trains_all_ids
        self._momentum = settings.weight_averaging
        self.averages: Averages | None = None
        self.lazy_ids = (
            None if ids is None or are_few else LazyRows(ids, settings.id_l2, self._momentum)
        )

    def build_averages(self) -> None:
        """Keep averages of the weights from now on, if the settings say so."""
        if self._momentum:
            self.averages = Averages(self.trainable_variables, self._momentum)

    def train_step(self, inputs: Tensors) -> Tensors:
        """Take one step; ``loss`` of the batch."""
        rate = self.optimizer.learning_rate
        if self.lazy_ids:
            self.lazy_ids.shrink(inputs["item/id"], rate)
        tables = [self.lazy_ids.table] if self.lazy_ids else []
        with tf.GradientTape() as tape:
            for table in tables:
                tape.watch(table)
            loss = self.compute_loss(inputs, training=True)
        weights = self.trainable_variables
        gradients, of_tables = tape.gradient(loss, (weights, tables))
        if self.lazy_ids:
            self.lazy_ids.apply(of_tables[0], rate)
        self.optimizer.apply_gradients(zip(map(_dense, gradients), weights, strict=True))
        if self.averages:
            self.averages.update()
        return {"loss": loss}

    def start_epoch(self) -> None:
        """Take back the weights that steps go on from."""
        self._exchange()

    def finish_epoch(self) -> None:
        """Bring what the steps left for later up to date, and take the averages of the weights.

        So what is measured, kept and exported between epochs are the averages. What steps go on
        from is kept in their place, in checkpoints too.
        """
        if self.lazy_ids:
            self.lazy_ids.shrink_all(self.optimizer.learning_rate)
        self._exchange()

    def _exchange(self) -> None:
        if self.lazy_ids:
            self.lazy_ids.exchange()
        if self.averages:
            self.averages.exchange()

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Loss of one batch from ``components.training.batches``; a scalar."""
        seed = inputs["seed"] if training else None
        codes = {name[5:]: inputs[name] for name in inputs if name.startswith("item/")}
        content = self.item_tower.content(codes, seed)
        n_candidates = tf.shape(inputs["age_days"])[0]
        candidates = self.item_tower.embed(
            content[:n_candidates], inputs["age_days"], inputs["popularity"]
        )
        padding = tf.shape(content)[0]
        padded = tf.concat([content, tf.zeros([1, content.shape[1]])], axis=0)
        row, event_types, age_days = (
            inputs[f"history_{name}"] for name in ("row", "event_type", "age_days")
        )
        runs = Runs(*(inputs[name] for name in Runs._fields)) if self._is_ordered else None
        queries = self.embed_queries(
            {name[6:]: inputs[name] for name in inputs if name.startswith("query/")},
            row,
            event_types,
            age_days,
            lambda rows: tf.gather(padded, tf.where(rows < 0, padding, rows)),
            None if seed is None else seed + 1,
            runs,
        )
        seen = row, event_types, age_days
        loss = self._task(
            queries,
            candidates,
            inputs["label"],
            inputs["weight"],
            inputs["log_probability"],
            inputs["masked"],
            *self._find_repeats(*(seen if runs is None else runs.see(*seen)), n_candidates),
        )
        if self.item_tower.trains_all_ids:
            loss += self._id_l2 * tf.nn.l2_loss(self.item_tower.ids) * 2
        return loss + self._gate_l2 * self.query_tower.gate_distance()

    def _find_repeats(
        self, row: tf.Tensor, event_types: tf.Tensor, age_days: tf.Tensor, n_candidates: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """[R, 2] the scores of items of the histories, and [R] what is added to each."""
        weights = self.query_tower.weigh_repeats(event_types, age_days)
        if weights is None:
            return tf.zeros([0, 2], tf.int32), tf.zeros([0])
        repeated, events = find_repeats(tf.where(event_types > 0, row, -1), n_candidates)
        return repeated, tf.gather_nd(weights, events)

    def embed_queries(
        self,
        codes: Tensors,
        history: tf.Tensor,
        event_types: tf.Tensor,
        age_days: tf.Tensor,
        read: Callable[[tf.Tensor], tf.Tensor] = lambda vectors: vectors,
        seed: tf.Tensor | None = None,
        runs: Runs | None = None,
    ) -> tf.Tensor:
        """[B, D] embeddings of encoded queries; the same as the query tower's, faster for many.

        Args:
            codes: Of the query encoder.
            history: [R, L, ...] what ``read`` turns into content vectors [R, L, C].
            event_types: [R, L] indices; 0 is padding.
            age_days: [R, L].
            read: Of a part of ``history``, which may be shorter than L.
            seed: [2] int32 seed of this step's dropout; None outside of training.
            runs: Which query reads what; None: each its own row, all of it.
        """
        embed = self.query_tower.embed
        if not self._is_ordered:
            return embed(codes, read(history), event_types, age_days, seed)

        def embed_part(
            rows: tf.Tensor,
            of_part: tf.Tensor,
            part: Runs | None,
            longest: tf.Tensor,
            number: int,
        ) -> tf.Tensor:
            kinds, ages = (
                tf.gather(values, rows)[:, :longest] for values in (event_types, age_days)
            )
            return embed(
                {name: tf.gather(values, of_part) for name, values in codes.items()},
                read(tf.gather(history, rows)[:, :longest]),
                kinds,
                ages,
                None if seed is None else seed + SEEDS_OF_A_PART * number,
                part,
            )

        return embed_by_length(embed_part, event_types, runs)


@tf.custom_gradient
def _cross_entropy(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    positives: tf.Tensor,
    changed: tf.Tensor,
    changes: tf.Tensor,
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor | None, ...]]]:
    """[B] cross-entropies of a softmax over the dot products of queries and candidates.

    ``tf.nn.sparse_softmax_cross_entropy_with_logits`` has a deterministic form that takes several
    times as long. A loss above 87 is given as 87; its gradient is not affected.

    Args:
        queries: [B, D].
        candidates: [N, D].
        positives: [B, 2] places of the positives among the scores [B, N].
        changed: [K, 2] places to which something is added.
        changes: [K] what is added.
    """
    products = tf.matmul(queries, candidates, transpose_b=True)
    probabilities = tf.nn.softmax(tf.tensor_scatter_nd_add(products, changed, changes))
    positive = tf.gather_nd(probabilities, positives)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        ones = tf.ones_like(upstream)
        surplus = tf.tensor_scatter_nd_sub(probabilities, positives, ones)
        of_queries = upstream[:, None] * tf.matmul(surplus, candidates)
        of_candidates = tf.matmul(surplus, upstream[:, None] * queries, transpose_a=True)
        of_changes = tf.gather(upstream, changed[:, 0]) * tf.gather_nd(surplus, changed)
        return of_queries, of_candidates, None, None, of_changes

    # Not a maximum, which may take NaN for the smaller one and hide it.
    return -tf.math.log(tf.where(positive < SMALLEST, SMALLEST, positive)), gradient


def _dense(gradient: tf.Tensor | tf.IndexedSlices | None) -> tf.Tensor | None:
    """A gradient of all rows of a table, at once.

    Optimizers add up equal rows of a sparse gradient first and then move all rows nevertheless.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    values = tf.reshape(gradient.values, [-1, gradient.values.shape[-1]])
    return tf.raw_ops.SparseSegmentSumGrad(
        grad=values,
        indices=tf.reshape(gradient.indices, [-1]),
        segment_ids=tf.range(tf.shape(values)[0]),
        output_dim0=gradient.dense_shape[0],
    )
