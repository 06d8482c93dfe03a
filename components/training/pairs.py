"""Several pairs of towers side by side, as one query tower and one item tower.

The scores of the one pair are the mean of the scores of the several. Their learned parts are put
side by side, each over the square root of their number N, so that unit vectors stay unit vectors.
The item side of the popularity part is that of the first pair, with which the others are trained,
and the query side has the mean of their gates: that is the mean of their scores, in a popularity
part of the same length. An item's content vector is made of those of all pairs, and the query tower
takes it apart again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from components.training.encoders import EVENT_CODES, Tensors
from components.training.towers import ItemTower, QueryTower

if TYPE_CHECKING:
    from components.training.model import TwoTowerModel


def seed_of_pair(seed: int, number: int) -> int:
    """Seed of a pair, 0 for the first, which has that of the training.

    Those of the others are far from it, so that trainings with the seeds 0, 1 and 2 share no pair.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) if number else seed


def share_parts(model: "TwoTowerModel", first: "TwoTowerModel") -> None:
    """Let a model use the encoders and the popularity part of the first pair.

    Args:
        model: Has not been trained. The popularity part is not among what it trains.
        first: Has been trained, with the same vocabulary.
    """
    model.query_tower.encode = first.query_tower.encode
    model.item_tower.encode = first.item_tower.encode
    popularity = first.item_tower.popularity
    if popularity is not None:
        popularity.trainable = False
        model.item_tower.popularity = popularity


class JoinedItemTower(tf.keras.layers.Layer):
    """The item towers of several pairs as one.

    Args:
        towers: N of them, which share their encoder and their popularity part.
    """

    def __init__(self, towers: Sequence[ItemTower]) -> None:
        super().__init__(name="item_towers")
        self.encode = towers[0].encode
        self._towers = list(towers)

    def content(self, codes: Tensors) -> tf.Tensor:
        """Content vectors [B, N C] of encoded items."""
        return tf.concat([tower.content(codes) for tower in self._towers], axis=1)

    def embed(self, content: tf.Tensor, age_days: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """Embeddings [B, D] of items with content [B, N C], ages [B] and counts [B, P]."""
        contents = tf.split(content, len(self._towers), axis=1)
        learned = _side_by_side(
            [tower.embed_content(part) for tower, part in zip(self._towers, contents, strict=True)]
        )
        popularity = self._towers[0].popularity
        if popularity is None:
            return learned
        return tf.concat([learned, popularity(age_days, counts)], axis=1)

    def call(self, inputs: Tensors) -> Tensors:
        """``embedding`` [B, D] and ``content`` [B, N C] of raw inputs."""
        content = self.content(self.encode(inputs))
        embedding = self.embed(content, inputs["item_age_days"], inputs["item_popularity"])
        return {"embedding": embedding, "content": content}


class JoinedQueryTower(tf.keras.layers.Layer):
    """The query towers of several pairs as one.

    Args:
        towers: N of them, which share their encoder.
        learned_size: Length of the learned part of each.
    """

    def __init__(self, towers: Sequence[QueryTower], learned_size: int) -> None:
        super().__init__(name="query_towers")
        self.encode = towers[0].encode
        self._towers = list(towers)
        self._learned_size = learned_size

    def call(self, inputs: Tensors) -> tf.Tensor:
        """Embeddings [B, D] of raw inputs."""
        return self.embed_coded({**inputs, **self.encode.look_up(inputs)})

    def embed_coded(self, coded: Tensors) -> tf.Tensor:
        """Embeddings [B, D] of inputs whose texts were looked up."""
        codes = self.encode.encode(coded)
        contents = tf.split(coded["history_content"], len(self._towers), axis=2)
        event_types, age_days = coded[EVENT_CODES], coded["history_age_days"]
        return self.join(
            [
                tower.embed(codes, part, event_types, age_days)
                for tower, part in zip(self._towers, contents, strict=True)
            ]
        )

    def weigh_repeats(self, event_types: tf.Tensor, age_days: tf.Tensor) -> tf.Tensor | None:
        """[B, L] the mean of what the towers add; see ``QueryTower.weigh_repeats``."""
        weights = [tower.weigh_repeats(event_types, age_days) for tower in self._towers]
        return None if weights[0] is None else tf.add_n(weights) / len(weights)

    def join(self, embeddings: Sequence[tf.Tensor]) -> tf.Tensor:
        """[B, D] from the embeddings of the same queries by each tower."""
        size = self._learned_size
        learned = _side_by_side([each[:, :size] for each in embeddings])
        if embeddings[0].shape[1] == size:
            return learned
        popularity = tf.add_n([each[:, size:] for each in embeddings]) / len(embeddings)
        return tf.concat([learned, popularity], axis=1)


class JoinedTowers:
    """The towers of several trained pairs as one pair.

    Args:
        models: The pairs; all but the first share parts with it, see ``share_parts``.
        learned_size: Length of the learned part of each.
    """

    def __init__(self, models: Sequence["TwoTowerModel"], learned_size: int) -> None:
        self._models = models
        self.item_tower = JoinedItemTower([model.item_tower for model in models])
        self.query_tower = JoinedQueryTower([model.query_tower for model in models], learned_size)

    def embed_queries(
        self, codes: Tensors, history: tf.Tensor, event_types: tf.Tensor, age_days: tf.Tensor
    ) -> tf.Tensor:
        """[B, D] embeddings of encoded queries; see ``TwoTowerModel.embed_queries``."""
        contents = tf.split(history, len(self._models), axis=2)
        return self.query_tower.join(
            [
                model.embed_queries(codes, part, event_types, age_days)
                for model, part in zip(self._models, contents, strict=True)
            ]
        )


def _side_by_side(learned: Sequence[tf.Tensor]) -> tf.Tensor:
    """[B, N L] from N learned parts [B, L]; as long as they are, if they are equally long."""
    return tf.concat(learned, axis=1) * len(learned) ** -0.5
