"""The two towers as one TensorFlow Recommenders model, and its loss."""

from collections.abc import Callable

import tensorflow as tf

from components.training.encoders import Tensors
from components.training.recommenders import Model, RetrievalTask
from components.training.sequence import embed_by_length
from components.training.settings import TrainSettings
from components.training.towers import ItemTower, QueryTower
from components.training.vocabulary import Vocabulary
from refit.features import FeaturesManifest

MASKED = -1e9
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
    ) -> tf.Tensor:
        """The mean weighted loss, a scalar.

        Args:
            query_embeddings: [B, D].
            candidate_embeddings: [N, D].
            label: [B] row of each query's positive.
            weight: [B].
            log_probability: [N] log of each candidate's probability to be sampled.
            masked: [K, 2] pairs (query, candidate) that are not used as negatives.
        """
        scores = tf.matmul(query_embeddings, candidate_embeddings, transpose_b=True)
        rows = tf.range(tf.shape(scores)[0])
        positives = tf.stack([rows, label], axis=1)
        positive_scores = tf.gather_nd(scores, positives)
        scores = tf.tensor_scatter_nd_update(
            scores - log_probability,
            tf.concat([positives, masked], axis=0),
            tf.concat([positive_scores, tf.fill([tf.shape(masked)[0]], MASKED)], axis=0),
        )
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(label, scores)
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

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Loss of one batch from ``components.training.batches``; a scalar."""
        seed = inputs["seed"] if training else None
        codes = {name[5:]: inputs[name] for name in inputs if name.startswith("item/")}
        content = self.item_tower.content(codes, seed)
        n_candidates = tf.shape(inputs["age_days"])[0]
        candidates = self.item_tower.embed(
            content[:n_candidates], inputs["age_days"], inputs["popularity"]
        )
        row, event_types, age_days = (
            inputs[f"history_{name}"] for name in ("row", "event_type", "age_days")
        )
        queries = self.embed_queries(
            {name[6:]: inputs[name] for name in inputs if name.startswith("query/")},
            row,
            event_types,
            age_days,
            lambda rows: (
                tf.gather(content, tf.maximum(rows, 0)) * tf.cast(rows >= 0, tf.float32)[:, :, None]
            ),
            None if seed is None else seed + 1,
        )
        loss = self._task(
            queries,
            candidates,
            inputs["label"],
            inputs["weight"],
            inputs["log_probability"],
            inputs["masked"],
        )
        id_penalty = self._id_l2 * self.item_tower.id_squared_norm()
        return loss + id_penalty + self._gate_l2 * self.query_tower.gate_distance()

    def embed_queries(
        self,
        codes: Tensors,
        history: tf.Tensor,
        event_types: tf.Tensor,
        age_days: tf.Tensor,
        read: Callable[[tf.Tensor], tf.Tensor] = lambda vectors: vectors,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """[B, D] embeddings of encoded queries; the same as the query tower's, faster for many.

        Args:
            codes: Of the query encoder.
            history: [B, L, ...] what ``read`` turns into content vectors [B, L, C].
            event_types: [B, L] indices; 0 is padding.
            age_days: [B, L].
            read: Of a part of ``history``, which may be shorter than L.
            seed: [2] int32 seed of this step's dropout; None outside of training.
        """
        embed = self.query_tower.embed
        if not self._is_ordered:
            return embed(codes, read(history), event_types, age_days, seed)

        def embed_part(rows: tf.Tensor, longest: tf.Tensor, number: int) -> tf.Tensor:
            past = (tf.gather(values, rows)[:, :longest] for values in (event_types, age_days))
            return embed(
                {name: tf.gather(values, rows) for name, values in codes.items()},
                read(tf.gather(history, rows)[:, :longest]),
                *past,
                None if seed is None else seed + SEEDS_OF_A_PART * number,
            )

        return embed_by_length(embed_part, event_types)
