"""Several windows compared as one with the days before them.

People and listings stay for days, so that neighbouring days are more alike than days far apart,
and pooled days vary more than independent ones would. By how much is not modelled but seen: the
same comparison is made for every earlier period, with the days before that one alone, and the
distance now is judged in units of the earlier ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from monitoring import tables
from monitoring.calibration import find_slot
from monitoring.expectation import Comparison, Days, Noise, compare, fit_variogram
from monitoring.settings import MeasureSettings

FEWEST_BLOCKS = 3
"""Blocks before a period, without which it is compared with nothing."""
_ROWS_PER_FEATURE = 4
"""Earlier rows that each feature needs, so that how features vary together can be known."""
_RIDGE = 0.05
_PRIOR_PERIODS = 2.0
"""As how many earlier periods counts what chance explains, before any was seen."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PooledComparison:
    """A period against its prediction.

    Attributes:
        value: Distance from the prediction less what chance explains, in standard deviations of
            rows.
        threshold: The value that is exceeded with the rate of a single result.
        p_value: Probability of at least this distance where nothing drifts.
        periods: How many earlier periods it was judged by; neighbours share rows.
    """

    value: float
    threshold: float
    p_value: float
    periods: int


def count_needed(features: int) -> int:
    """Earlier rows that a comparison of so many features needs."""
    return _ROWS_PER_FEATURE * features


def has_enough_days(settings: MeasureSettings, day: Ints) -> bool:
    """Whether the rows before a period allow a comparison of it and of one before.

    Args:
        settings: Sizes.
        day: [m] numbers of the rows' windows; negative before the period.
    """
    pooled = settings.choice_windows
    sizes = np.unique((day[day < -pooled] + pooled) // pooled, return_counts=True)[1]
    return int((sizes >= settings.minimum_rows).sum()) >= FEWEST_BLOCKS


def compare_pooled(
    settings: MeasureSettings, rows: NDArray[np.float32], day: Ints, start: datetime
) -> PooledComparison:
    """Compare the mean features of a period with what the days before it lead to expect.

    Args:
        settings: ``choice_windows`` make a block.
        rows: [m, p] features.
        day: [m] numbers of their windows, from 0 in the period and negative before it, see
            ``has_enough_days``.
        start: Start of the period.
    """
    before = day < 0
    noise, placed = _standardise(rows, before)
    days = _DailySums.of(settings, placed, day, start)
    earlier = list(days.compare_earlier(noise))
    # Neighbouring periods share all windows but one.
    seen = len(earlier) / settings.choice_windows
    ratios = float(np.mean([each.ratio for each in earlier]))
    ratio = max((seen * ratios + _PRIOR_PERIODS) / (seen + _PRIOR_PERIODS), 1.0)
    ratio *= _find_loss(int(before.sum()), rows.shape[1])
    found = days.compare(noise, 0).in_units_of(ratio, seen + _PRIOR_PERIODS)
    return PooledComparison(
        value=found.value,
        threshold=found.threshold(settings.false_alarm_rate),
        p_value=found.p_value,
        periods=len(earlier),
    )


@dataclass(frozen=True)
class _DailySums:
    """Sums of features by window.

    Attributes:
        settings: Sizes.
        start: Start of the window of number 0, in days.
        number: [D] numbers of the windows, ascending.
        sums: [D, p] sums of the features.
        n: [D] rows.
    """

    settings: MeasureSettings
    start: float
    number: Ints
    sums: Floats
    n: Ints

    @classmethod
    def of(
        cls,
        settings: MeasureSettings,
        rows: NDArray[np.float32],
        day: Ints,
        start: datetime,
    ) -> "_DailySums":
        number, code, n = np.unique(day, return_inverse=True, return_counts=True)
        at = start.timestamp() / tables.SECONDS_A_DAY
        return cls(settings, at, number, sum_by(code, rows, len(number)), n)

    def compare_earlier(self, noise: Noise) -> Iterator[Comparison]:
        """The periods of one block that ended before number 0, the latest first."""
        pooled = self.settings.choice_windows
        for first in range(-pooled, int(self.number[0]), -1):
            if len(self._sum_blocks(first, -1)) < FEWEST_BLOCKS:
                return
            there = (self.number >= first) & (self.number < first + pooled)
            if self.n[there].sum() >= self.settings.minimum_rows:
                yield self.compare(noise, first, first + pooled)

    def compare(self, noise: Noise, first: int, end: int | None = None) -> Comparison:
        """The period from one number to another with what was before it."""
        before, period = self._sum_blocks(first, -1), self._sum_blocks(first, 1, end)
        steps = np.square(np.diff(before.means, axis=0)).sum(axis=1)
        chance = noise.trace * (1 / before.n[1:] + 1 / before.n[:-1])
        # Rows of one person or listing are alike: blocks differ by more than independent rows.
        noise = noise.times(max(float(steps.sum() / chance.sum()), 1.0))
        return compare(before, noise, fit_variogram(before, noise, prior_deviation=0.0), period)

    def _sum_blocks(self, first: int, side: int, end: int | None = None) -> Days:
        """Blocks from the window ``first`` on, or those before it; small ones are left out."""
        settings = self.settings
        block = (self.number - first) // settings.choice_windows
        kept = block < 0 if side < 0 else block >= 0
        if end is not None:
            kept &= self.number < end
        number, code = np.unique(block[kept], return_inverse=True)
        n = np.bincount(code, self.n[kept], len(number))
        sums = sum_by(code, self.sums[kept], len(number))
        enough = n >= (settings.minimum_rows if side < 0 else 1)
        length = settings.choice_windows * settings.window_days
        at = self.start + first * settings.window_days + number[enough] * length
        # A block of several windows has no place in the week.
        alike = settings.choice_windows > 1
        slot = [0 if alike else find_slot(float(time), settings) for time in at]
        return Days(
            sums[enough] / n[enough, None],
            n[enough],
            at.astype(np.float64),
            np.array(slot, dtype=np.int64),
            np.zeros(len(at)),
        )


def sum_by(code: Ints, rows: NDArray[np.floating], size: int) -> Floats:
    """[size, p] sums of the rows of each code."""
    ones = np.ones(len(code), np.float32)
    member = csr_array((ones, (code, np.arange(len(code)))), shape=(size, len(code)))
    return np.asarray(member @ rows, dtype=np.float64)


def _standardise(
    rows: NDArray[np.float32], before: NDArray[np.bool_]
) -> tuple[Noise, NDArray[np.float32]]:
    covariance = np.cov(rows[before], rowvar=False, dtype=np.float64).reshape(rows.shape[1], -1)
    ridge = max(_RIDGE * float(np.trace(covariance)) / len(covariance), 1e-12)
    values, basis = np.linalg.eigh(covariance + ridge * np.eye(len(covariance)))
    axes = basis / np.sqrt(values)
    inner = axes.T @ covariance @ axes
    noise = Noise(float(np.trace(inner)), float(np.square(inner).sum()))
    return noise, (rows - rows[before].mean(axis=0)) @ axes.astype(np.float32)


def _find_loss(rows: int, features: int) -> float:
    """How much farther new rows are than those by which features were standardised.

    In units of a covariance estimated from n rows, the squared length of new rows of p features
    is n / (n - p - 1) times as long (the mean of an inverse Wishart matrix).
    """
    return rows / (rows - features - 1)
