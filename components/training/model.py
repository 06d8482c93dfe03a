"""The two towers as one TFRS model, and its loss."""

import tensorflow as tf
import tensorflow_recommenders as tfrs

from components.training.encoders import Tensors
from components.training.settings import TrainSettings
from components.training.towers import ItemTower, QueryTower
from components.training.vocabulary import Vocabulary
from refit.features import FeaturesManifest

MASKED = -1e9


class SampledRetrieval(tfrs.tasks.Retrieval):
    """Softmax over the distinct candidates of a batch.

    ``tfrs.tasks.Retrieval`` takes candidate i to be query i's positive, so an item that several
    queries chose stands there several times, and it corrects the positive for having been sampled
    although it is always there. Here candidates are distinct, each query names its positive's row,
    and the positive is left uncorrected (Khrylchenko et al., RecSys 2025).
    """

    def call(
        self,
        query_embeddings: tf.Tensor,
        candidate_embeddings: tf.Tensor,
        label: tf.Tensor,
        weight: tf.Tensor,
        log_chance: tf.Tensor,
        masked: tf.Tensor,
    ) -> tf.Tensor:
        """The mean weighted loss, a scalar.

        Args:
            query_embeddings: [B, D].
            candidate_embeddings: [N, D].
            label: [B] row of each query's positive.
            weight: [B].
            log_chance: [N] log of each candidate's chance to be among the negatives.
            masked: [K, 2] pairs (query, candidate) that are no negatives.
        """
        scores = tf.matmul(query_embeddings, candidate_embeddings, transpose_b=True)
        rows = tf.range(tf.shape(scores)[0])
        positives = tf.stack([rows, label], axis=1)
        chosen = tf.gather_nd(scores, positives)
        scores = tf.tensor_scatter_nd_update(
            scores - log_chance,
            tf.concat([positives, masked], axis=0),
            tf.concat([chosen, tf.fill([tf.shape(masked)[0]], MASKED)], axis=0),
        )
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(label, scores)
        return tf.reduce_mean(losses * weight)


class TwoTowerModel(tfrs.Model):
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
        """Loss of one batch, as ``components.training.batches`` makes them."""
        seed = inputs["seed"] if training else None
        codes = {name[5:]: inputs[name] for name in inputs if name.startswith("item/")}
        content = self.item_tower.content(codes, seed)
        n_candidates = tf.shape(inputs["age_days"])[0]
        candidates = self.item_tower.embed(
            content[:n_candidates], inputs["age_days"], inputs["popularity"]
        )
        row = inputs["history_row"]
        there = tf.cast(row >= 0, tf.float32)[:, :, None]
        queries = self.query_tower.embed(
            {name[6:]: inputs[name] for name in inputs if name.startswith("query/")},
            tf.gather(content, tf.maximum(row, 0)) * there,
            inputs["history_event_type"],
            inputs["history_age_days"],
            None if seed is None else seed + 1,
        )
        loss = self._task(
            queries,
            candidates,
            inputs["label"],
            inputs["weight"],
            inputs["log_chance"],
            inputs["masked"],
        )
        decay = self._id_l2 * self.item_tower.id_energy()
        return loss + decay + self._gate_l2 * self.query_tower.gate_distance()
