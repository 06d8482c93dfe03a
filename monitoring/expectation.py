"""Expectation: what earlier days lead to expect of a window's mean features.

Days differ from each other though nothing drifts: by chance, which shrinks with their rows, by
weekday, because the market moves slowly, because the index ages, and for reasons of their own. How
much each adds is estimated from the squared distances between the means of all pairs of earlier
days, less what chance explains of them (a *variogram*, Matheron, 1963). A window is predicted from
these days with the weights of ordinary kriging (Cressie, 1993), and its distance from the
prediction is compared with the variance of that prediction.

So a threshold falls with the rows of a window to what days differ by, and no further; a slow trend
is followed, and a weekday is compared with its like.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import fdtrc, fdtri

from monitoring.frame import Array

Floats = NDArray[np.float64]
DAYS_OF_WEEK = 7
_PRIOR_DAYS = 2.0
"""How many days the prior of the day-to-day variance counts as."""
_DOUBT_DAYS = 1.0
"""How many days speak against each part of the variogram that would explain it."""
_CHOSEN_AT = 0.001
"""The rate at which the bound of a window is chosen."""
_PRIOR_DEVIATION = 0.02
"""Of a day's mean, before any day was seen, as a share of the rows' standard deviation."""


@dataclass(frozen=True)
class Days:
    """Means of earlier blocks of rows, a day each unless windows have another length.

    Attributes:
        means: [B, p] mean features, in the units in which distances are taken.
        n: [B] rows.
        at: [B] time, in days.
        slot: [B] place in the week; only equal slots are alike.
        age: [B] age of the index that answered, in days; 0 where there is none.
    """

    means: Floats
    n: Floats
    at: Floats
    slot: NDArray[np.int64]
    age: Floats

    def __len__(self) -> int:
        return len(self.n)

    def replace_means(self, means: Floats) -> "Days":
        """The same days with other means."""
        return Days(means, self.n, self.at, self.slot, self.age)

    def take(self, rows: Array) -> "Days":
        """Some of the days."""
        return Days(self.means[rows], self.n[rows], self.at[rows], self.slot[rows], self.age[rows])

    def joined_with(self, other: "Days") -> "Days":
        """These days and others."""
        return Days(
            np.concatenate([self.means, other.means]),
            np.concatenate([self.n, other.n]),
            np.concatenate([self.at, other.at]),
            np.concatenate([self.slot, other.slot]),
            np.concatenate([self.age, other.age]),
        )


@dataclass(frozen=True)
class Noise:
    """How rows vary within a day: trace of their covariance, and of its square."""

    trace: float
    trace_of_square: float

    def times(self, factor: float) -> "Noise":
        """The noise of rows that vary by a factor more."""
        return Noise(self.trace * factor, self.trace_of_square * factor**2)

    @property
    def dimensions(self) -> float:
        """Effective number of dimensions in which rows vary."""
        return self.trace**2 / max(self.trace_of_square, 1e-300)


@dataclass(frozen=True)
class Variogram:
    """Half the expected squared distance between two days, by its parts.

    Attributes:
        day: What each day adds for reasons of its own.
        weekday: Added between different slots of the week.
        walk: Added for each day of time between them.
        age: Added for each day that the ages of their indexes differ by.
    """

    day: float
    weekday: float
    walk: float
    age: float

    def between(self, one: Days, other: Days) -> Floats:
        """[B, C] without what each day adds of its own."""
        apart = np.abs(one.at[:, None] - other.at[None, :])
        older = np.abs(one.age[:, None] - other.age[None, :])
        unlike = one.slot[:, None] != other.slot[None, :]
        parts: Floats = self.weekday * unlike + self.walk * apart + self.age * older
        return parts


@dataclass(frozen=True)
class _Bound:
    """The distribution of a squared distance where nothing drifts."""

    chance: float
    scale: float
    above: float
    below: float

    @classmethod
    def of(
        cls, days: Days, noise: Noise, chance: float, spread: float, dimensions: float
    ) -> "_Bound":
        """From the variance that is due to chance, and that beyond it in some dimensions."""
        rows, blocks = noise.dimensions, noise.trace * float((1 / days.n).mean())
        scale, known = chance + spread, blocks + spread
        above, total = (
            (part + spread) ** 2
            / (part**2 / rows + spread**2 / dimensions + 2 * part * spread / rows)
            for part in (chance, blocks)
        )
        seen = max(len(days) - 2, 0) + _PRIOR_DAYS
        return cls(chance, scale, above, max(total * seen * (scale / known) ** 2, 2.0))

    def in_units_of(self, ratio: float, periods: float) -> "_Bound":
        """The bound, where earlier distances were so many times as large as expected."""
        below = 1 / (1 / self.below + 1 / (self.above * periods))
        return _Bound(self.chance, self.scale * ratio, self.above, below)

    def beyond_chance(self, rate: float) -> float:
        """The squared distance less chance that is exceeded with probability ``rate``."""
        return self.scale * float(fdtri(self.above, self.below, 1 - rate)) - self.chance

    def probability(self, beyond_chance: float) -> float:
        """The probability of at least this squared distance less chance."""
        distance = max(beyond_chance + self.chance, 0.0)
        return float(fdtrc(self.above, self.below, distance / max(self.scale, 1e-300)))


@dataclass(frozen=True)
class Comparison:
    """A window against its prediction.

    Attributes:
        value: Distance from the prediction, less the distance that chance explains.
        p_value: Probability of at least this distance where nothing drifts.
        ratio: The squared distance over its expectation where nothing drifts.
        expected: [p] the prediction.
        window: The window, as one or several days.
        bound: How the distance varies where nothing drifts.
    """

    value: float
    p_value: float
    ratio: float
    expected: Floats
    window: Days
    bound: _Bound

    def in_units_of(self, ratio: float, periods: float) -> "Comparison":
        """The comparison as earlier ones of the same kind tell.

        Args:
            ratio: Mean ``ratio`` of earlier comparisons.
            periods: How many of them were independent of each other.
        """
        beyond_chance = self.ratio * self.bound.scale - self.bound.chance
        bound = self.bound.in_units_of(ratio, periods)
        p_value = bound.probability(beyond_chance)
        return replace(self, bound=bound, p_value=p_value, ratio=self.ratio / ratio)

    def threshold(self, rate: float) -> float:
        """The value that is exceeded with probability ``rate`` where nothing drifts."""
        return float(np.sqrt(max(self.bound.beyond_chance(rate), 0.0)))


def fit_variogram(days: Days, noise: Noise, prior_deviation: float = _PRIOR_DEVIATION) -> Variogram:
    """Estimate from all pairs of days how much they differ beyond chance, and by what.

    Non-negative least squares; a weak prior stands for the day-to-day variance while there are few
    days. A part that the days cannot show (one weekday only, one age only) is 0.

    Args:
        days: Earlier days.
        noise: How rows vary within a day.
        prior_deviation: What days are thought to differ by before any was seen, in standard
            deviations of rows.
    """
    prior = noise.trace * prior_deviation**2
    if len(days) < 2:
        return Variogram(prior, 0.0, 0.0, 0.0)
    i, j = np.triu_indices(len(days), 1)
    chance = noise.trace * (1 / days.n[i] + 1 / days.n[j])
    half = (np.square(days.means[i] - days.means[j]).sum(axis=1) - chance) / 2
    design = np.stack(
        [
            np.ones(len(i)),
            days.slot[i] != days.slot[j],
            np.abs(days.at[i] - days.at[j]),
            np.abs(days.age[i] - days.age[j]),
        ],
        axis=1,
    ).astype(np.float64)
    # Pairs are weighted by how well their distance is known; there are B(B-1)/2 pairs of B days.
    weight = 1 / (chance + prior + np.median(np.abs(half)))
    weight *= len(days) / weight.sum()
    root = np.sqrt(weight)
    typical = design.mean(axis=0)
    # The prior is about the whole difference of two days; that it has a cause must be shown.
    assumed = np.diag(typical)[1:] * np.sqrt(_DOUBT_DAYS)
    rows = np.concatenate([design * root[:, None], [typical * np.sqrt(_PRIOR_DAYS)], assumed])
    target = np.concatenate([half * root, [prior * np.sqrt(_PRIOR_DAYS)], np.zeros(len(assumed))])
    parts = nnls(rows, target)[0]
    return Variogram(*map(float, parts))


def compare(days: Days, noise: Noise, variogram: Variogram, window: Days) -> Comparison:
    """Compare a window, one or several days in ``window``, with what earlier days lead to expect.

    Several days are compared as one, each being expected to be like its own weekday and time.

    The squared distance, over its expectation, has approximately an F distribution, whose degrees
    of freedom follow from how many dimensions vary and from how many days that is known (Box,
    1954). Where the days are much smaller than the window, how much days differ is known so badly
    that the threshold would rise with the window's rows: then the window counts as a smaller one.
    """
    weights, spread = _krige(days, noise, variogram, window)
    expected: Floats = weights @ days.means
    rows = float(window.n.sum())
    distance = float(np.square(window.n @ window.means / rows - expected).sum())
    of_days = noise.trace * float((weights**2 / days.n).sum())
    chance = noise.trace / rows + of_days
    dimensions = _count_dimensions(days, noise)
    sizes = rows / 2.0 ** np.arange(12)
    bounds = [
        _Bound.of(days, noise, noise.trace / float(n) + of_days, spread, dimensions)
        for n in sizes[(sizes >= np.median(days.n)) | (sizes == rows)]
    ]
    bound = min(bounds, key=lambda each: each.beyond_chance(_CHOSEN_AT))
    return Comparison(
        value=float(np.sqrt(max(distance - chance, 0.0))),
        p_value=bound.probability(distance - chance),
        ratio=(distance - chance + bound.chance) / max(bound.scale, 1e-300),
        expected=expected,
        window=window,
        bound=bound,
    )


def _krige(days: Days, noise: Noise, variogram: Variogram, window: Days) -> tuple[Floats, float]:
    """[B] weights that sum to 1, and the variance of the prediction beyond chance."""
    count, share = len(days), window.n / window.n.sum()
    between, to_window = variogram.between(days, days), variogram.between(days, window) @ share
    own = variogram.day + noise.trace / days.n
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = np.diag(own) - between
    system[count, count] = 0.0
    target = np.append(-to_window, 1.0)
    weights = np.linalg.lstsq(system, target, rcond=None)[0][:count]
    spread = variogram.day * float(share @ share + weights @ weights)
    spread += float(2 * weights @ to_window - weights @ between @ weights)
    spread -= float(share @ variogram.between(window, window) @ share)
    return weights, max(spread, 0.0)


def _count_dimensions(days: Days, noise: Noise) -> float:
    """Effective number of dimensions in which days differ beyond chance."""
    rows = noise.dimensions
    if len(days) < 6:
        return min(rows, 2.0)
    order = np.argsort(days.at)
    steps = np.diff(days.means[order], axis=0) / np.sqrt(2)
    sizes = days.n[order]
    chance = noise.trace * float((1 / sizes[1:] + 1 / sizes[:-1]).mean()) / 2
    products = np.square(steps @ steps.T)
    apart = np.abs(np.subtract.outer(np.arange(len(steps)), np.arange(len(steps)))) >= 2
    beyond = float(np.square(steps).sum(axis=1).mean()) - chance
    if beyond <= 0:
        return rows
    square = float(products[apart].mean()) - chance**2 / rows - 2 * beyond * chance / rows
    return float(np.clip(beyond**2 / max(square, beyond**2 / rows), 1.0, rows))
