"""Stand-in towers: a linear two-tower model with a closed form, fitted without TensorFlow.

They stand in for Refit's towers where a bench needs hundreds of them. What a user did before and
asks for now, and what the next item is, are whitened and correlated (canonical correlation
analysis); the leading directions are the query tower and the item tower.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from refit.files import fingerprint

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ITEM_COLUMNS = ("category_2", "brand", "size", "condition", "colour")
CONTEXT_COLUMNS = ("wanted_category", "wanted_size")
USER_COLUMNS = ("department", "size", "shoe_size")
EVENT_WEIGHTS = {"view": 0.2, "like": 0.5, "cart": 0.8, "offer": 0.9, "purchase": 1.0}
TARGETS = ("like", "cart", "offer", "purchase")
BATCH, TEMPERATURE, LEARNING_RATE = 512, 0.1, 0.02
KEPT_PER_EVENT = 0.9
"""Each further event of a user leaves this share of the weight of the earlier ones."""


@dataclass(frozen=True)
class Vocabulary:
    """Known values of one column; a value of none of them is a row of zeros."""

    values: tuple[str, ...]

    @classmethod
    def of(cls, column: pa.ChunkedArray, most: int = 200) -> "Vocabulary":
        """The most frequent values of a column."""
        counts = pc.value_counts(column.drop_null()).to_pylist()
        ordered = sorted(counts, key=lambda c: (-c["counts"], c["values"]))
        return cls(tuple(c["values"] for c in ordered[:most]))

    def one_hot(self, column: pa.ChunkedArray) -> Floats:
        """[N, values] one for the row's value."""
        codes = pc.fill_null(pc.index_in(column, pa.array(self.values, pa.string())), -1)
        return one_hot(np.asarray(codes, dtype=np.int64), len(self.values))


def one_hot(codes: Ints, width: int) -> Floats:
    """[N, width] one at each code; a row of zeros for -1."""
    rows = np.zeros((len(codes), width), dtype=np.float32)
    known = np.flatnonzero(codes >= 0)
    rows[known, codes[known]] = 1.0
    return rows


@dataclass(frozen=True)
class Encoding:
    """Which columns become which numbers, as known when the towers were fitted."""

    item: Mapping[str, Vocabulary]
    context: Mapping[str, Vocabulary]
    user: Mapping[str, Vocabulary]
    log_price: tuple[float, float]
    vector_size: int

    @classmethod
    def of(cls, items: pa.Table, events: pa.Table, users: pa.Table) -> "Encoding":
        """Learn the vocabularies and the scale of prices."""
        price = _log_price(items)
        price = price[np.isfinite(price)]
        vectors = pc.list_value_length(items["image_embedding"]).drop_null()
        return cls(
            item={name: Vocabulary.of(items[name]) for name in ITEM_COLUMNS},
            context={name: Vocabulary.of(events[name]) for name in CONTEXT_COLUMNS},
            user={name: Vocabulary.of(users[name]) for name in USER_COLUMNS},
            log_price=(float(price.mean()), float(price.std()) or 1.0),
            vector_size=int(pc.max(vectors).as_py()),
        )

    def items(self, items: pa.Table) -> Floats:
        """[N, F] features of items: image vector, price and the categories."""
        mean, scale = self.log_price
        price = np.nan_to_num((_log_price(items) - mean) / scale, posinf=0.0, neginf=0.0)
        parts = [read_vectors(items["image_embedding"], self.vector_size), price[:, None]]
        parts += [self.item[name].one_hot(items[name]) for name in ITEM_COLUMNS]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def contexts(self, contexts: Mapping[str, pa.ChunkedArray]) -> Floats:
        """[N, C] features of the contexts of requests."""
        return np.concatenate(
            [known.one_hot(contexts[name]) for name, known in self.context.items()], axis=1
        )

    def users(self, users: pa.Table) -> Floats:
        """[U, G] features of users."""
        return np.concatenate(
            [known.one_hot(users[name]) for name, known in self.user.items()], axis=1
        )


def read_vectors(column: pa.ChunkedArray, size: int) -> Floats:
    """[N, size] a column of vectors; zeros where there is none of that size."""
    lists = column.combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    fits = np.asarray(pc.fill_null(pc.equal(pc.list_value_length(lists), size), False))
    rows = np.zeros((len(lists), size), dtype=np.float32)
    kept = lists if fits.all() else lists.filter(pa.array(fits))
    rows[fits] = np.nan_to_num(np.asarray(kept.flatten(), dtype=np.float32)).reshape(-1, size)
    return rows


def _log_price(items: pa.Table) -> NDArray[np.float64]:
    price = np.asarray(pc.cast(items["price"], pa.float64()).to_numpy(), dtype=np.float64)
    return np.log(np.where(price > 0, price, np.nan))


def running_means(user: Ints, item: Ints, weight: Floats, features: Floats, asked: Ints) -> Floats:
    """[A, F] weighted recency means of the items of a user before some events.

    Args:
        user, item, weight: [E] events in order of time; a row of ``features``, -1 for unknown.
        features: [N, F] of all items.
        asked: [A] positions of events; the mean is over the user's events before them.
    """
    order = np.argsort(user, kind="stable")
    starts = np.flatnonzero(np.diff(user[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(rank.max(initial=-1) + 2))
    sums = np.zeros((int(user.max(initial=-1)) + 1, features.shape[1]), dtype=np.float32)
    totals = np.zeros(len(sums), dtype=np.float32)
    wanted = np.full(len(user), -1)
    wanted[asked] = np.arange(len(asked))
    out = np.zeros((len(asked), features.shape[1]), dtype=np.float32)
    for low, high in pairwise(bounds):
        events = order[by_rank[low:high]]
        who = user[events]
        here = wanted[events] >= 0
        out[wanted[events[here]]] = sums[who[here]] / np.maximum(totals[who[here], None], 1e-6)
        w = np.where(item[events] >= 0, weight[events], 0.0).astype(np.float32)
        sums[who] = KEPT_PER_EVENT * sums[who] + w[:, None] * features[item[events]]
        totals[who] = KEPT_PER_EVENT * totals[who] + w
    return out


@dataclass(frozen=True)
class StandInTowers:
    """A linear query tower and a linear item tower; both vectors have unit length.

    Attributes:
        encoding: How columns become numbers; None where the caller knows it.
        query_mean, query_matrix: [Q], [Q, D] the query tower.
        item_mean, item_matrix: [F], [F, D] the item tower.
    """

    encoding: Encoding | None
    query_mean: Floats
    query_matrix: Floats
    item_mean: Floats
    item_matrix: Floats

    @property
    def embedding_version(self) -> str:
        """Checksum over both towers."""
        arrays = (self.query_mean, self.query_matrix, self.item_mean, self.item_matrix)
        return fingerprint([array.tobytes().hex() for array in arrays])[:16]

    def with_noise(self, noise: float) -> "StandInTowers":
        """Worse towers: noise on the weights, in their standard deviation."""
        if not noise:
            return self
        rng = np.random.default_rng(0)
        query, item = (
            (m + noise * m.std() * rng.normal(size=m.shape)).astype(np.float32)
            for m in (self.query_matrix, self.item_matrix)
        )
        return replace(self, query_matrix=query, item_matrix=item)

    def item_vectors(self, features: Floats) -> Floats:
        """[N, D] unit vectors of item features [N, F]."""
        return _unit((features - self.item_mean) @ self.item_matrix)

    def query_vectors(self, histories: Floats, contexts: Floats, users: Floats) -> Floats:
        """[N, D] unit vectors of histories [N, F], contexts [N, C] and users [N, G]."""
        query = np.concatenate([histories, contexts, users], axis=1)
        return _unit((query - self.query_mean) @ self.query_matrix)


def fit_towers(
    encoding: Encoding | None,
    queries: Floats,
    positives: Floats,
    weights: Floats,
    stock: Floats,
    dimension: int,
    steps: int = 250,
    ridge: float = 0.02,
    negatives: int = 0,
) -> StandInTowers:
    """Fit both towers to what users wanted: a closed form, then steps of a softmax over a batch.

    Args:
        encoding: How columns became these numbers.
        queries: [N, Q] histories, contexts and users, side by side.
        positives: [N, F] features of the item that each query led to.
        weights: [N] of the pairs.
        stock: [M, F] features of the items that could have been wanted.
        dimension: D, the length of the vectors.
        steps: Steps after the closed form.
        ridge: Share of the mean variance that is added to every variance.
        negatives: So many rows of ``stock``, drawn at each step, are what a query did not want; 0
            takes what the others of the batch wanted, which leaves popularity out.
    """
    share = weights[:, None] / weights.sum()
    query_mean, item_mean = (share * queries).sum(axis=0), stock.mean(axis=0)
    query_mean[np.ptp(queries, axis=0) == 0] = 0.0
    q, x, s = queries - query_mean, positives - item_mean, stock - item_mean
    query_root = _inverse_root((share * q).T @ q, ridge)
    item_root = _inverse_root(s.T @ s / len(s), ridge)
    left, values, right = np.linalg.svd(query_root @ ((share * q).T @ x) @ item_root)
    d = min(dimension, len(values))
    strength = np.sqrt(values[:d])
    query_matrix = (query_root @ left[:, :d] * strength).astype(np.float32)
    item_matrix = (item_root @ right[:d].T * strength).astype(np.float32)
    drawn = (s, negatives) if negatives else None
    query_matrix, item_matrix = _descend(q, x, weights, query_matrix, item_matrix, steps, drawn)
    return StandInTowers(
        encoding=encoding,
        query_mean=query_mean.astype(np.float32),
        query_matrix=query_matrix,
        item_mean=item_mean.astype(np.float32),
        item_matrix=item_matrix,
    )


def _descend(
    queries: Floats,
    positives: Floats,
    weights: Floats,
    query_matrix: Floats,
    item_matrix: Floats,
    steps: int,
    drawn: tuple[Floats, int] | None,
) -> tuple[Floats, Floats]:
    """Lower the softmax loss of both matrices with Adam. Source: Kingma and Ba, 2015.

    ``drawn`` is where negatives are drawn from, and how many; without it they are in-batch.
    """
    rng = np.random.default_rng(0)
    matrices = [query_matrix.copy(), item_matrix.copy()]
    moments = [(np.zeros_like(m), np.zeros_like(m)) for m in matrices]
    size = min(BATCH, len(queries))
    own = np.eye(size, dtype=np.bool_)
    for step in range(1, steps + 1):
        rows = rng.integers(0, len(queries), size)
        inputs = [queries[rows], positives[rows]]
        if drawn is not None:
            others = drawn[0][rng.permutation(len(drawn[0]))[: drawn[1]]]
            inputs[1] = np.concatenate([inputs[1], others])
        raw = [x @ m for x, m in zip(inputs, matrices, strict=True)]
        length = [np.maximum(np.linalg.norm(r, axis=1, keepdims=True), 1e-6) for r in raw]
        u, v = (r / n for r, n in zip(raw, length, strict=True))
        logits = u @ v.T / TEMPERATURE
        if drawn is not None:
            logits[:, :size][~own] = -np.inf
        logits -= logits.max(axis=1, keepdims=True)
        chance = np.exp(logits)
        chance /= chance.sum(axis=1, keepdims=True)
        chance[:, :size][own] -= 1.0
        chance *= weights[rows][:, None] / (size * TEMPERATURE)
        rate = LEARNING_RATE * (1 - step / (steps + 1))
        for i, (unit, gradient) in enumerate(((u, chance @ v), (v, chance.T @ u))):
            gradient -= (gradient * unit).sum(axis=1, keepdims=True) * unit
            slope = inputs[i].T @ (gradient / length[i]) + 1e-5 * matrices[i]
            mean, square = moments[i]
            mean += 0.1 * (slope - mean)
            square += 0.01 * (slope * slope - square)
            matrices[i] -= (
                rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
            )
    return matrices[0], matrices[1]


def _inverse_root(covariance: NDArray[np.floating], ridge: float) -> NDArray[np.float64]:
    covariance = np.asarray(covariance, dtype=np.float64)
    covariance = covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(
        len(covariance)
    )
    values, vectors = np.linalg.eigh(covariance)
    return (vectors / np.sqrt(values)) @ vectors.T


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9), dtype=np.float32)


def top_lists(scores: Floats, k: int) -> tuple[Ints, Floats]:
    """[N, k] the rows of the highest scores, best first, and the scores; -inf is never listed."""
    k = min(k, scores.shape[1])
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    found = np.take_along_axis(scores, top, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    top, found = np.take_along_axis(top, order, axis=1), np.take_along_axis(found, order, axis=1)
    return np.where(np.isfinite(found), top, -1), found


def event_weights(types: pa.ChunkedArray) -> Floats:
    """[E] the weight of each event in a history."""
    names: Sequence[str] = list(EVENT_WEIGHTS)
    codes = pc.fill_null(pc.index_in(types, pa.array(names)), -1)
    weights = np.array([*EVENT_WEIGHTS.values(), 0.0], dtype=np.float32)
    return np.asarray(weights[np.asarray(codes, dtype=np.int64)])
