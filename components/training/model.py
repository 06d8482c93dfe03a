"""The two towers as one TensorFlow Recommenders model, and its loss."""

import tensorflow as tf

from components.training.encoders import Tensors
from components.training.recommenders import Model, RetrievalTask
from components.training.settings import TrainSettings
from components.training.towers import ItemTower, QueryTower
from components.training.vocabulary import Vocabulary
from refit.features import FeaturesManifest

MASKED = -1e9


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

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Loss of one batch from ``components.training.batches``; a scalar."""
        seed = inputs["seed"] if training else None
        codes = {name[5:]: inputs[name] for name in inputs if name.startswith("item/")}
        content = self.item_tower.content(codes, seed)
        n_candidates = tf.shape(inputs["age_days"])[0]
        candidates = self.item_tower.embed(
            content[:n_candidates], inputs["age_days"], inputs["popularity"]
        )
        row = inputs["history_row"]
        present = tf.cast(row >= 0, tf.float32)[:, :, None]
        queries = self.query_tower.embed(
            {name[6:]: inputs[name] for name in inputs if name.startswith("query/")},
            tf.gather(content, tf.maximum(row, 0)) * present,
            inputs["history_event_type"],
            inputs["history_age_days"],
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
