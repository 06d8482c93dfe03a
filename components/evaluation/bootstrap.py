"""95% intervals by bootstrap over users: the queries of a user are resampled together."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from components.evaluation.data import Ints
from components.evaluation.results import Interval

Values = NDArray[np.float64]
LOW, HIGH = 2.5, 97.5
CELLS = 4_000_000
"""Weights drawn at once; limits the memory."""


class Replicates:
    """Sums over queries, and the same sums in every bootstrap replicate.

    Poisson bootstrap (Hanley & MacGibbon 2006): each replicate gives every user a Poisson(1)
    weight, which resamples users with replacement without building the resampled tables. All
    columns share the weights, so that differences between them are paired.

    Args:
        user: [n] user number of each query.
        columns: By name, [n] values.
        replicates: Number R of replicates.
        seed: Seed of the weights.

    Attributes:
        n_users: Number of users.
        totals: By column, its sum.
        drawn: By column, its [R] sums.
    """

    def __init__(
        self, user: Ints, columns: Mapping[str, Values], replicates: int, seed: int
    ) -> None:
        _, user_number = np.unique(user, return_inverse=True)
        self.n_users = int(user_number.max()) + 1 if len(user) else 0
        sums = np.stack(
            [np.bincount(user_number, column, self.n_users) for column in columns.values()], axis=1
        )
        random = np.random.default_rng(seed)
        step = max(1, CELLS // max(1, self.n_users))
        drawn = [
            random.poisson(1.0, (min(step, replicates - start), self.n_users)).astype(np.float64)
            @ sums
            for start in range(0, replicates, step)
        ]
        self.totals = dict(zip(columns, sums.sum(axis=0), strict=True))
        self.drawn = dict(zip(columns, np.concatenate(drawn).T, strict=True))

    def mean(self, value: str, count: str) -> Interval:
        """Mean of a column over queries, ``value`` / ``count``; None without queries."""
        return _interval(*self._mean(value, count))

    def difference(self, value: str, other: str, count: str) -> Interval:
        """Paired difference of two columns' means: ``value`` minus ``other``."""
        left, right = self._mean(value, count), self._mean(other, count)
        return _interval(left[0] - right[0], left[1] - right[1])

    def _mean(self, value: str, count: str) -> tuple[float, Values]:
        with np.errstate(invalid="ignore", divide="ignore"):
            point = np.float64(self.totals[value]) / np.float64(self.totals[count])
            return float(point), self.drawn[value] / self.drawn[count]


def _interval(point: float, drawn: Values) -> Interval:
    finite = drawn[np.isfinite(drawn)]
    if not np.isfinite(point) or not len(finite):
        return Interval()
    low, high = np.percentile(finite, [LOW, HIGH])
    error = float(finite.std(ddof=1)) if len(finite) > 1 else None
    return Interval(value=point, low=float(low), high=float(high), se=error)
