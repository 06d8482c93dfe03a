"""Spectral vectors of items beside the learned ones: a closed form of who has what.

R is the matrix of users and items, 1 where somebody has an item. U S V' is the truncated singular
value decomposition of R with each entry divided by the square roots of both degrees, how many items
the user has and how many users the item. The score of item j for a history H is

    sum over i in H of  d_i^-1/2 V_i S V_j' d_j^1/2

(the low-pass part of GF-CF, Shen et al., CIKM 2021, as a product of two vectors). So it is a part
of both towers: an item's content vector has V_i S^1/2 d_i^-1/2, which the query tower adds up over
the history, and the item's embedding has V_j S^1/2 d_j^1/2. It is not trained; what it knows are
the examples that the towers are trained on. An item that has none has zeros.

Learned scores and spectral ones have different scales, from person to person. The spectral part of
a query is therefore scaled until its scores vary over the items by ``weight`` times as much as
those of the towers do, for this query; the towers' own scores stay as they are. The weight itself
is on the side of the items.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import tensorflow as tf
from numpy.typing import NDArray
from scipy.linalg import lu

from components.training.encoders import Tensors
from components.training.pairs import JoinedItemTower, JoinedQueryTower
from components.training.towers import ItemTower, QueryTower

if TYPE_CHECKING:
    from components.training.model import TwoTowerModel
    from components.training.pairs import JoinedTowers

Floats = NDArray[np.float32]

LOG_UNIT = 1e-3
"""Unit of the logarithm of an item's degree in its content vector: small, so that it has no share
in how alike two content vectors are."""
ITERATIONS = 6
"""Of the decomposition, which is drawn at random; with more it is closer to the exact one."""
OVERSAMPLED = 10
USERS_AT_ONCE = 1 << 15
MAX_EVENTS = 1 << 25
"""Of more events the latest count; so many take about 1 GB."""
SMALLEST = 1e-12
MAX_SIZE, MIN_SIZE = 512, 32
NUMBERS_IN_INDEX = 1 << 24
"""Of live items and entries of the spectral part together: 64 MB, which a scan reads in
milliseconds."""
NUMBERS_IN_CONTENT = 1 << 28
"""Of all items and those entries together: 1 GB of their content vectors."""
ITEMS_PER_ENTRY = 4
SURE = 1.645
"""A one-sided interval of 95%, in standard errors."""


def choose_size(n_live: int, n_items: int) -> int:
    """Length of the spectral part; 0 for too few or too many items.

    Args:
        n_live: Live items.
        n_items: All items, also those that have ended.
    """
    room = min(NUMBERS_IN_INDEX // max(n_live, 1), NUMBERS_IN_CONTENT // max(n_items, 1))
    size = min(MAX_SIZE, room, n_live // ITEMS_PER_ENTRY)
    return size // MIN_SIZE * MIN_SIZE


def added_to_content(size: int) -> int:
    """Entries that a spectral part of such a length adds to content vectors."""
    return size + 1 if size else 0


def is_surely_better(hits: NDArray[np.bool_], than: NDArray[np.bool_], users: NDArray[Any]) -> bool:
    """Whether more of the same E examples are found, by more than chance would have it.

    The error is between people, since the examples of one are alike.

    Args:
        hits: [E] what is found.
        than: [E] what was found before.
        users: [E] whose example each is.
    """
    gain = hits.astype(np.float64) - than
    _, user = np.unique(users, return_inverse=True)
    of_user = np.bincount(user, gain)
    return bool(gain.sum() > SURE * np.linalg.norm(of_user))


def find_spectral_vectors(
    users: NDArray[Any], items: NDArray[np.integer[Any]], n_items: int, size: int
) -> tuple[Floats, Floats]:
    """Vectors [N, K] and degrees [N] of items, from E events.

    Args:
        users: [E] user of each event, as numbers or hashes, in the order of time.
        items: [E] item of each.
        n_items: N.
        size: K; if there are no more users or items than that, the last entries are 0.

    Returns:
        V S^1/2 d^-1/2, and d, how many users each item has.
    """
    _, user = np.unique(users[-MAX_EVENTS:], return_inverse=True)
    shape = (int(user.max()) + 1, n_items)
    entries = (np.ones(len(user), np.float32), (user, items[-MAX_EVENTS:]))
    owned = sp.csr_matrix(entries, shape)
    owned.data[:] = 1.0  # several events of one user and item were added up
    degree = np.asarray(owned.sum(axis=0)).ravel()
    of_user = np.asarray(owned.sum(axis=1)).ravel()
    scale = (np.maximum(degree, 1.0) ** -0.5).astype(np.float32)
    scaled = sp.diags((of_user**-0.5).astype(np.float32)) @ owned @ sp.diags(scale)
    vectors = np.zeros((n_items, size), np.float32)
    known = min(size, *shape)
    values, right = _decompose(scaled.tocsr(), known)
    vectors[:, :known] = right * np.sqrt(values) * scale[:, None]
    vectors[degree == 0] = 0.0
    return vectors, degree.astype(np.float32)


def _decompose(matrix: sp.csr_matrix, size: int) -> tuple[Floats, Floats]:
    """The K largest singular values [K] and right singular vectors [N, K] of a matrix [U, N].

    By subspace iteration on the items' side from a random start (Halko et al. 2011), with parts of
    the users at a time: nothing of the size U x K is held.
    """
    n_items = matrix.shape[1]
    start = np.random.default_rng(0).normal(size=(n_items, min(size + OVERSAMPLED, n_items)))
    basis = start.astype(np.float32)
    for _ in range(ITERATIONS):
        basis = lu(_times_gram(matrix, basis), permute_l=True, check_finite=False)[0]
    basis = np.linalg.qr(basis)[0]
    inner = basis.T.astype(np.float64) @ _times_gram(matrix, basis)
    values, directions = np.linalg.eigh(inner)
    largest = np.argsort(-values)[:size]
    singular = np.sqrt(np.maximum(values[largest], 0.0)).astype(np.float32)
    return singular, basis @ directions[:, largest].astype(np.float32)


def _times_gram(matrix: sp.csr_matrix, vectors: Floats) -> Floats:
    """M' M X [N, K] of a matrix M [U, N] and X [N, K]."""
    product = np.zeros_like(vectors)
    for first in range(0, matrix.shape[0], USERS_AT_ONCE):
        part = matrix[first : first + USERS_AT_ONCE]
        product += part.T @ (part @ vectors)
    return product


def find_axes(vectors: Floats) -> tuple[Floats, Floats]:
    """Directions [D, D], as columns, in which vectors [N, D] vary apart, and by how much [D].

    The length of x A times the deviations is the standard deviation of x over the vectors.
    """
    covariance = np.cov(vectors.astype(np.float64), rowvar=False, bias=True)
    values, directions = np.linalg.eigh(np.atleast_2d(covariance))
    return directions.astype(np.float32), np.sqrt(np.maximum(values, 0.0)).astype(np.float32)


class SpectralItemTower(tf.keras.layers.Layer):
    """An item tower with the spectral part before its embedding and behind its content.

    Args:
        tower: The item tower.
        vectors: [V + 1, K] of each code of an item id; 0 of an unknown one.
        degree: [V + 1].
    """

    def __init__(self, tower: ItemTower | JoinedItemTower, vectors: Floats, degree: Floats) -> None:
        super().__init__(name="spectral_item_tower")
        self.encode = tower.encode
        self._tower = tower
        self.size = vectors.shape[1]
        log_degree = LOG_UNIT * np.log(np.maximum(degree, 1.0))
        self._table = _fixed(self, "table", np.concatenate([vectors, log_degree[:, None]], axis=1))
        self.scale = _fixed(self, "scale", 1.0)

    def content(self, codes: Tensors) -> tf.Tensor:
        """Content vectors [B, C + K + 1] of encoded items."""
        return tf.concat([self._tower.content(codes), tf.gather(self._table, codes["id"])], axis=1)

    def embed(self, content: tf.Tensor, age_days: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """Embeddings [B, K + D] of items with such content, ages [B] and counts [B, P]."""
        spectral = self.spectral(content)
        own = self._tower.embed(content[:, : -self.size - 1], age_days, counts)
        return tf.concat([spectral, own], axis=1)

    def spectral(self, content: tf.Tensor) -> tf.Tensor:
        """[B, K] the spectral part of embeddings."""
        vectors, log_degree = content[:, -self.size - 1 : -1], content[:, -1:]
        return vectors * tf.exp(log_degree / LOG_UNIT) * self.scale

    def call(self, inputs: Tensors) -> Tensors:
        """``embedding`` [B, K + D] and ``content`` [B, C + K + 1] of raw inputs."""
        content = self.content(self.encode(inputs))
        embedding = self.embed(content, inputs["item_age_days"], inputs["item_popularity"])
        return {"embedding": embedding, "content": content}


class SpectralQueryTower(tf.keras.layers.Layer):
    """A query tower with the spectral part before its embedding.

    Args:
        tower: The query tower.
        deviations: [K] how much the entries of the spectral parts of items vary, at weight 1; they
            vary apart from each other.
        root: [D, D] of their other embeddings: the axes of ``find_axes``, times how much they vary.
    """

    def __init__(
        self, tower: QueryTower | JoinedQueryTower, deviations: Floats, root: Floats
    ) -> None:
        super().__init__(name="spectral_query_tower")
        self.encode = tower.encode
        self._tower = tower
        self._size = len(deviations)
        self._deviations = _fixed(self, "deviations", deviations)
        self._root = _fixed(self, "root", root)

    def call(self, inputs: Tensors) -> tf.Tensor:
        """Embeddings [B, K + D] of raw inputs."""
        return self.embed_coded({**inputs, **self.encode.look_up(inputs)})

    def embed_coded(self, coded: Tensors) -> tf.Tensor:
        """Embeddings [B, K + D] of inputs whose texts were looked up."""
        history = coded["history_content"]
        own = {**coded, "history_content": history[:, :, : -self._size - 1]}
        return self.join(history, self._tower.embed_coded(own))

    def weigh_repeats(self, event_types: tf.Tensor, age_days: tf.Tensor) -> tf.Tensor | None:
        """[B, L] or None; see ``QueryTower.weigh_repeats``."""
        return self._tower.weigh_repeats(event_types, age_days)

    def join(self, history: tf.Tensor, embedding: tf.Tensor) -> tf.Tensor:
        """[B, K + D] from content vectors [B, L, C + K + 1], 0 where padded, and [B, D]."""
        spectral = tf.reduce_sum(history[:, :, -self._size - 1 : -1], axis=1)
        varies = tf.norm(spectral * self._deviations, axis=1, keepdims=True)
        wanted = tf.norm(tf.matmul(embedding, self._root), axis=1, keepdims=True)
        factor = wanted / tf.maximum(varies, SMALLEST)
        return tf.concat([spectral * factor, embedding], axis=1)


class SpectralTowers:
    """Trained towers with a spectral part, as one pair.

    Args:
        model: The towers, one pair or several.
        vectors: [V + 1, K] of each code of an item id; 0 of an unknown one.
        degree: [V + 1].
        codes: Of the live items that scores vary over.
        age_days: [N] their ages.
        counts: [N, P] their popularity.
    """

    def __init__(
        self,
        model: "TwoTowerModel | JoinedTowers",
        vectors: Floats,
        degree: Floats,
        codes: Tensors,
        age_days: Floats,
        counts: Floats,
    ) -> None:
        self._model = model
        code = codes["id"].numpy()
        axes, deviations = find_axes(vectors[code] * degree[code][:, None])
        # A rotation changes no product, and lets queries do with a vector instead of a matrix.
        self.item_tower = SpectralItemTower(model.item_tower, vectors @ axes, degree)
        embeddings = _embed_in_parts(self.item_tower, codes, age_days, counts)
        own_axes, own_deviations = find_axes(embeddings[:, vectors.shape[1] :])
        # Both parts of the items vary alike, so that those of queries are of one size, too.
        varies = float(np.linalg.norm(deviations))
        self._scale = float(np.linalg.norm(own_deviations)) / varies if varies else 1.0
        self.query_tower = SpectralQueryTower(
            model.query_tower, deviations * self._scale, own_axes * own_deviations
        )

    def set_weight(self, weight: float) -> None:
        """Let spectral scores vary by so many times as much as the towers' own."""
        self.item_tower.scale.assign(weight * self._scale)

    def embed_queries(
        self, codes: Tensors, history: tf.Tensor, event_types: tf.Tensor, age_days: tf.Tensor
    ) -> tf.Tensor:
        """[B, K + D] embeddings of encoded queries; see ``TwoTowerModel.embed_queries``."""
        own = history[:, :, : -self.item_tower.size - 1]
        embedding = self._model.embed_queries(codes, own, event_types, age_days)
        return self.query_tower.join(history, embedding)


def _embed_in_parts(
    tower: SpectralItemTower, codes: Tensors, age_days: Floats, counts: Floats, at_once: int = 8192
) -> Floats:
    parts = []
    for start in range(0, len(age_days), at_once):
        part = slice(start, start + at_once)
        content = tower.content({name: values[part] for name, values in codes.items()})
        parts.append(tower.embed(content, age_days[part], counts[part]).numpy())
    return np.concatenate(parts)


def _fixed(layer: tf.keras.layers.Layer, name: str, value: Any) -> tf.Variable:
    """A weight of a layer that is not trained."""
    array = np.asarray(value, np.float32)
    weight = layer.add_weight(name, array.shape, initializer="zeros", trainable=False)
    weight.assign(array)
    return weight
