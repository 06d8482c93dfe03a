"""Vectors of known supply, compared by category and one by one."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.faults.feed import Feed, code_cells
from monitoring.faults.known import KnownFeed, vector_columns
from monitoring.frame import Frame, find_vector_length, read_vectors

Floats = NDArray[np.float64]
SAME = 0.99
"""The cosine of two vectors of one picture by one encoder is larger."""
_FEWEST = 3
_ALIKE = 0.99
"""Share of the reference's own vectors that are not unlike it."""


@dataclass(frozen=True)
class VectorPairs:
    """Known listings' vectors, as they were and as they are.

    Attributes:
        before, now: [n, length], of the same listings.
        limit: With a larger share of pairs that differ it is no edit of listings.
        source: Where the vectors of now come from.
    """

    before: Floats
    now: Floats
    limit: float
    source: str

    def __len__(self) -> int:
        return len(self.before)

    @cached_property
    def ratio(self) -> Floats:
        """[n] length now, by length before."""
        return _norms(self.now) / np.maximum(_norms(self.before), 1e-12)

    @cached_property
    def cosine(self) -> Floats:
        """[n] cosines; 0 where a vector is zero."""
        return _cosines(self.before, self.now)

    @cached_property
    def exchanged(self) -> NDArray[np.bool_]:
        """[n] which listings have another known listing's vector."""
        moved = np.flatnonzero((self.cosine < SAME) & (self.ratio > 1e-6))
        found = np.zeros(len(self), dtype=bool)
        looked = moved[:500]
        scaled = self.before / np.maximum(_norms(self.before), 1e-12)[:, None]
        for row in looked:
            own = self.now[row] / max(float(np.linalg.norm(self.now[row])), 1e-12)
            found[row] = (scaled @ own).max() > 0.9999
        if len(looked) and found[looked].mean() > 0.2:
            found[moved] = True
        return found


@dataclass(frozen=True)
class VectorGroups:
    """Mean vectors by category of known supply, in the reference and in the window.

    Attributes:
        before, now: [groups, length] means.
        n0, n: [groups] rows.
        variance0, variance: Trace of the covariance within categories.
    """

    before: Floats
    now: Floats
    n0: Floats
    n: Floats
    variance0: float
    variance: float

    @property
    def per_dimension(self) -> float:
        """Variance within categories of one dimension."""
        return self.variance / self.before.shape[1]

    @cached_property
    def turned(self) -> tuple[float, float]:
        """How much of the mean vectors points elsewhere, and the standard deviation of that.

        The category that turned most is left out: one alone is new supply.
        """
        lengths = np.maximum((self.before**2).sum(axis=1) - self.variance0 / self.n0, 1e-12)
        along = (self.now * self.before).sum(axis=1) / np.sqrt(lengths)
        chance = self.variance / self.n + along**2 * self.variance0 / (self.n0 * lengths)
        across = (self.now**2).sum(axis=1) - along**2 - chance
        ahead = np.maximum(along**2, 0.0)
        least = min(
            (self.n[kept] @ across[kept]) / max(self.n[kept] @ (across + ahead)[kept], 1e-12)
            for kept in (np.arange(len(self.n)) != out for out in range(len(self.n)))
        )
        total = max(float(self.n @ np.maximum(across + ahead, 0.0)), 1e-12)
        noise = self.per_dimension * np.sqrt(2.0 * self.before.shape[1] * len(self.n))
        return float(np.clip(least, 0.0, 1.0)), float(noise / total)

    @cached_property
    def kept(self) -> tuple[float, float, float]:
        """How much of what tells categories apart is left, its deviation, and its size by before.

        The first is 1 where categories keep their means, 0 where vectors do not tell them.
        """
        c0, c1 = (m - self.n @ m / self.n.sum() for m in (self.before, self.now))
        groups = max(len(self.n) - 1, 1)
        square0 = float(self.n @ (c0**2).sum(axis=1))
        square0 -= float((self.n / self.n0).sum()) * self.variance0
        square = float(self.n @ (c1**2).sum(axis=1)) - groups * self.variance
        square0 = max(square0, 1e-12)
        slope = float(self.n @ (c0 * c1).sum(axis=1)) / square0
        return slope, float(np.sqrt(self.per_dimension / square0)), max(square, 0.0) / square0


def list_vector_columns(feed: Feed) -> Iterator[tuple[str, int]]:
    """The feed's vector columns, and the length that their vectors had."""
    for column in vector_columns(feed.known.schema):
        if column in feed.schema.names and column in feed.listings.names:
            length = feed.listings.once(_find_length, column)
            if length:
                yield column, length


def _find_length(rows: Frame, column: str) -> int:
    return find_vector_length(rows.column(column))


def read_window(feed: Feed, column: str, length: int) -> NDArray[np.float32]:
    """[m, length] a sample of the window's vectors that are not zero."""
    if column not in feed.vectors.names:
        return np.empty((0, length), dtype=np.float32)
    rows = read_vectors(feed.vectors.column(column), length)[0]
    return rows[_norms(rows) > 0]


def compare_pairs(feed: Feed, column: str, length: int) -> list[VectorPairs]:
    """Pairs of known listings, from those encoded again and from those that came again.

    Only the newest window has them: they show the feed as it is now.
    """
    return feed.once(_compare_pairs, column, length)


def _compare_pairs(feed: Feed, column: str, length: int) -> list[VectorPairs]:
    found: list[VectorPairs] = []
    if not feed.is_last:
        return found
    sources = [(0.2, "the feed", feed.found_again)]
    if feed.data.reencoded is not None:
        again = feed.encoded_again(feed.data.reencoded)
        sources.insert(0, (0.02, "a second encoding", again))
    for limit, source, (before, now) in sources:
        if column not in now.names:
            continue
        rows0, place0 = read_vectors(before.column(column), length)
        rows, place = read_vectors(now.column(column), length)
        both, a, b = np.intersect1d(place0, place, return_indices=True)
        if len(both) >= feed.settings.minimum_pairs:
            found.append(
                VectorPairs(rows0[a].astype(np.float64), rows[b].astype(np.float64), limit, source)
            )
    return found


def compare_groups(feed: Feed, column: str, length: int) -> VectorGroups | None:
    """Means by category of known supply; None where there are too few rows."""
    return feed.once(_compare_groups, column, length)


def _compare_groups(feed: Feed, column: str, length: int) -> VectorGroups | None:
    if column not in feed.vectors.names:
        return None
    x0, g0 = feed.listings.once(_read_grouped, feed.known, column, length)
    x1, g1 = _read_grouped(feed.vectors, feed.known, column, length)
    size = 1 + int(max(g0.max(initial=0), g1.max(initial=0)))
    n0, n1 = (np.bincount(g, minlength=size).astype(np.float64) for g in (g0, g1))
    known = (n0 >= _FEWEST) & (n1 >= _FEWEST)
    if known.sum() < 3 or n1[known].sum() < feed.settings.minimum_rows:
        return None
    m0, v0 = _describe(x0, g0, n0, known)
    m1, v1 = _describe(x1, g1, n1, known)
    return VectorGroups(m0, m1, n0[known], n1[known], v0, v1)


def find_outliers(feed: Feed, column: str, length: int) -> tuple[float, int] | None:
    """Share of known sellers' listings whose vectors are unlike all of the reference, and rows.

    Unlike is a larger Mahalanobis distance than that of nearly all listings of the reference which
    it was not fitted on. The category with the most of them is left out, and so are new sellers and
    new categories: they may bring other pictures. None where there is too little to compare.
    """
    return feed.once(_find_outliers, column, length)


def _find_outliers(feed: Feed, column: str, length: int) -> tuple[float, int] | None:
    x, group = feed.once(_read_known_supply, column, length)
    usual = feed.listings.once(_fit_usual, feed.known, column, length)
    if len(x) < feed.settings.minimum_rows or usual is None:
        return None
    x = x * (usual.norm / float(np.median(_norms(x))))
    out = _norms((x - usual.mean) @ usual.root) > usual.limit
    rows, hits = np.bincount(group), np.bincount(group, out)
    most = int((hits - rows * out.mean()).argmax())
    left = rows.sum() - rows[most]
    if left < feed.settings.minimum_rows:
        return None
    return float((out.sum() - hits[most]) / left), int(left)


def _read_known_supply(feed: Feed, column: str, length: int) -> tuple[Floats, NDArray[np.int64]]:
    """The window's vectors of known sellers and categories, and their categories."""
    if column not in feed.vectors.names or "seller_id" not in feed.vectors.names:
        return np.empty((0, length)), np.empty(0, dtype=np.int64)
    sellers = feed.known.rows.once(list_sellers)
    kept = pc.is_in(feed.vectors.column("seller_id"), value_set=sellers)
    known = feed.vectors.take(np.flatnonzero(kept.to_numpy(zero_copy_only=False)))
    return _read_grouped(known, feed.known, column, length)


@dataclass(frozen=True)
class VectorSpread:
    """How long the vectors of known supply are, and how far they lie from their category's mean.

    Attributes:
        now, before: [n], [n0] logarithms of the lengths.
        noise: Mean squared distance to the category's mean, by that of the reference; the category
            in which it changed most is left out.
        deviation: Standard deviation of ``noise`` by chance.
    """

    now: Floats
    before: Floats
    noise: float
    deviation: float


def compare_spread(feed: Feed, column: str, length: int) -> VectorSpread | None:
    """Lengths and distances of known supply; None where there are too few rows."""
    return feed.once(_compare_spread, column, length)


def _compare_spread(feed: Feed, column: str, length: int) -> VectorSpread | None:
    x0, g0 = feed.listings.once(_read_grouped, feed.known, column, length)
    x1, g1 = feed.once(_read_known_supply, column, length)
    size = 1 + int(max(g0.max(initial=0), g1.max(initial=0)))
    n0 = np.bincount(g0, minlength=size)
    kept = n0[g1] >= 2 * _FEWEST
    x1, g1 = x1[kept], g1[kept]
    if len(x1) < feed.settings.minimum_rows:
        return None
    sums = np.stack([np.bincount(g0, axis, size) for axis in x0.T], axis=1)
    means = sums / np.maximum(n0, 1)[:, None]
    # A listing is nearer to a mean that it belongs to itself.
    own = (n0 / np.maximum(n0 - 1, 1))[g0]
    far0, far = ((x0 - means[g0]) ** 2).sum(axis=1) * own, ((x1 - means[g1]) ** 2).sum(axis=1)
    usual = np.bincount(g0, far0, size) / np.maximum(n0, 1)
    expected = usual[g1]
    beyond = np.abs(np.bincount(g1, far - expected, size))
    rest = g1 != int(beyond.argmax())
    if not rest.any() or not expected[rest].all():
        return None
    noise = float(far[rest].sum() / expected[rest].sum())
    apart = np.var(far0 / np.maximum(usual[g0], 1e-12))
    deviation = float(np.sqrt(apart / rest.sum()))
    logs = [np.log(np.maximum(_norms(x), 1e-12)) for x in (x1, x0)]
    return VectorSpread(logs[0], logs[1], noise, deviation)


def list_sellers(known: Frame) -> pa.Array:
    """The sellers of the reference's rows."""
    return pc.unique(known.column("seller_id"))


@dataclass(frozen=True)
class _UsualVectors:
    """What the reference's vectors are like.

    Attributes:
        norm: Their median length.
        mean: [length] their mean.
        root: [length, length] root of the inverse covariance.
        limit: A distance that hardly one exceeds of those that it was not fitted on.
    """

    norm: float
    mean: Floats
    root: Floats
    limit: float


def _fit_usual(listings: Frame, known: KnownFeed, column: str, length: int) -> _UsualVectors | None:
    """None where there are too few."""
    x, _ = listings.once(_read_grouped, known, column, length)
    half = len(x) // 2
    if half < max(2 * length, 100):
        return None
    order = np.random.default_rng(0).permutation(len(x))
    fitted, tried = x[order[:half]], x[order[half:]]
    mean, covariance = fitted.mean(axis=0), np.cov(fitted, rowvar=False)
    covariance += 0.01 * np.trace(covariance) / length * np.eye(length)
    root = np.linalg.cholesky(np.linalg.inv(covariance))
    limit = float(np.quantile(_norms((tried - mean) @ root), _ALIKE))
    return _UsualVectors(float(np.median(_norms(x))), mean, root, limit)


def _read_grouped(
    rows: Frame, known: KnownFeed, column: str, length: int
) -> tuple[Floats, NDArray[np.int64]]:
    group = known.group
    vectors, positions = read_vectors(rows.column(column), length)
    code = np.zeros(len(positions), dtype=np.int64)
    if group:
        cells = rows.column(group).take(pa.array(positions))
        code = code_cells(cells, np.array(list(known.vocabulary(group))))
    kept = (code >= 0) & (_norms(vectors) > 0)
    x, code = vectors[kept].astype(np.float64), code[kept]
    first = np.unique(np.round(x[:, :8], 5), axis=0, return_index=True)[1]
    return x[first], code[first]  # rows that come twice tell nothing new


def _describe(
    x: Floats, group: NDArray[np.int64], n: Floats, known: NDArray[np.bool_]
) -> tuple[Floats, float]:
    """[groups, length] means of the known groups, and the variance within them."""
    sums = np.stack([np.bincount(group, axis, len(n)) for axis in x.T], axis=1)
    means = sums / np.maximum(n, 1)[:, None]
    own = known[group]
    within = ((x[own] - means[group[own]]) ** 2).sum()
    return means[known], float(within) / max(int(own.sum()) - int(known.sum()), 1)


def _norms(rows: NDArray[np.floating]) -> Floats:
    return np.asarray(np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1)))


def _cosines(one: Floats, other: Floats) -> Floats:
    return np.asarray((one * other).sum(axis=1) / np.maximum(_norms(one) * _norms(other), 1e-12))
