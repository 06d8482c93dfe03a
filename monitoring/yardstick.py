"""A yardstick: one thing that is measured, with thresholds calibrated where nothing drifts."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from monitoring.settings import MeasureSettings
from monitoring.statistics import STATISTICS, Array, Encoded, Frame
from refit.settings import Settings


class Threshold(Settings):
    """The calibrated threshold for readings on ``n`` rows.

    Attributes:
        value: Drift lies above it: the largest of the floor and the two bounds below.
        resampling: The (1 - false alarm rate) quantile over resamples of the reference.
        natural: Bound on how much one block of the reference differs from the others, at the
            same rate; None when there were too few blocks to tell.
    """

    n: int
    value: float
    resampling: float
    natural: float | None = None


class Yardstick(Settings):
    """One statistic of one column, and from when on it says drift.

    Attributes:
        subject: As in a Reading, e.g. ``query-embedding``, ``mix:brand``, ``input:items.price``.
        table: ``answers``, ``listings``, ``items`` or ``events``.
        by: The column that groups rows, where the statistic wants one.
        values: What encoding needs: a vocabulary, or a vector's length.
        thresholds: By growing n; a reading on fewer rows than the first cannot tell.
        blocks: Blocks of the reference that the natural bound rests on.
    """

    subject: str
    statistic: str
    table: str
    column: str
    by: str = ""
    values: tuple[str, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    false_alarm_rate: float = 0.0
    trials: int = 0
    blocks: int = 0
    n_reference: int = 0
    floor: float = 0.0

    @property
    def name(self) -> str:
        """``subject/statistic``, as the policy's patterns match it."""
        return f"{self.subject}/{self.statistic}"

    @property
    def needs_n(self) -> int:
        """The fewest rows that a reading may rest on."""
        return self.thresholds[0].n

    @property
    def largest_n(self) -> int:
        """The most rows that the thresholds were calibrated for."""
        return self.thresholds[-1].n

    def encode(self, frame: Frame) -> Encoded:
        """The usable rows of a table as the statistic reads them, and their positions."""
        return STATISTICS[self.statistic].encode(frame, self.column, self.by, self.values)

    def compare(self, reference: Array, current: Array) -> float:
        """The statistic of two encoded samples."""
        return STATISTICS[self.statistic].compare(reference, current)

    def threshold_at(self, n: int) -> float:
        """The threshold for ``n`` rows, on a log-log line between the calibrated sizes."""
        sizes = np.log([threshold.n for threshold in self.thresholds])
        values = np.log([max(threshold.value, 1e-12) for threshold in self.thresholds])
        return float(np.exp(np.interp(math.log(max(n, 1)), sizes, values)))


def calibrate(
    yardstick: Yardstick,
    frame: Frame,
    settings: MeasureSettings,
    blocks: Sequence[tuple[Array, Array]],
) -> Yardstick | None:
    """Find from when on a yardstick says drift, from data in which nothing drifts.

    Two things move a statistic where nothing drifts: chance, and that no day is like another.
    Chance: both samples are drawn anew from the reference, with replacement and at their own
    sizes (a split without replacement would shrink the reference, and most statistics grow when
    a sample shrinks: the threshold would be too high to find anything). Days: blocks of the
    reference are compared with the rest; the bound is the Student prediction bound for one more
    such block. So windows much larger than the reference's blocks gain no power from their size:
    give a reference with as many answers a day as the windows that are watched.

    Args:
        yardstick: What is measured; its thresholds are ignored.
        frame: The reference table.
        settings: Rates, sizes and trials.
        blocks: Pairs of (rest, block) row positions within ``frame``.

    Returns:
        The yardstick with thresholds, or None when the reference has too few usable rows.
    """
    rows, positions = yardstick.encode(frame)
    if len(rows) < settings.minimum_rows:
        return None
    random = np.random.default_rng(settings.seed)
    sizes = _sizes(settings.minimum_rows, settings.sample_size)
    resampled = np.empty((settings.trials, len(sizes)))
    for trial in range(settings.trials):
        reference = rows[random.integers(len(rows), size=len(rows))]
        for place, n in enumerate(sizes):
            current = rows[random.integers(len(rows), size=n)]
            resampled[trial, place] = yardstick.compare(reference, current)
    by_chance = _upper_quantile(resampled, settings.false_alarm_rate)
    natural, block_rows = _natural_values(yardstick, rows, positions, settings, blocks)
    by_day = _natural_bound(natural, block_rows, sizes, by_chance, settings)
    floor = settings.floors.get(yardstick.statistic, 0.0)
    thresholds = tuple(
        Threshold(
            n=n,
            value=max(floor, chance, 0.0 if by_day is None else by_day[place]),
            resampling=chance,
            natural=None if by_day is None else by_day[place],
        )
        for place, (n, chance) in enumerate(zip(sizes, by_chance.tolist(), strict=True))
    )
    return yardstick.model_copy(
        update={
            "thresholds": thresholds,
            "false_alarm_rate": settings.false_alarm_rate,
            "trials": settings.trials,
            "blocks": 0 if by_day is None else len(natural),
            "n_reference": len(rows),
            "floor": floor,
        }
    )


def day_blocks(frame: Frame, settings: MeasureSettings) -> list[tuple[Array, Array]]:
    """Each stretch of ``window_days`` against the rest of the reference."""
    number = _block_numbers(frame, settings)
    pairs = [(np.flatnonzero(number != b), np.flatnonzero(number == b)) for b in _known(number)]
    return [(rest, block) for rest, block in pairs if len(block) and len(rest)]


def half_splits(frame: Frame, settings: MeasureSettings) -> list[tuple[Array, Array]]:
    """Random halves of the listing days against each other.

    The live stock of two moments shares most of its items and has the same mix of ages, so whole
    days are dealt to two sides: one day against the rest would measure age, not drift.
    """
    number = _block_numbers(frame, settings)
    known = _known(number)
    if len(known) < settings.minimum_blocks:
        return []
    random = np.random.default_rng(settings.seed)
    splits = []
    for _ in range(20):
        chosen = random.permutation(known)[: len(known) // 2]
        mine = np.isin(number, chosen)
        splits.append((np.flatnonzero(~mine & (number >= 0)), np.flatnonzero(mine)))
    return splits


def _block_numbers(frame: Frame, settings: MeasureSettings) -> NDArray[np.int64]:
    number = np.floor(frame.day / settings.window_days).astype(np.int64)
    return np.where(frame.day < 0, -1, number)


def _known(number: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(number[number >= 0])


def _natural_values(
    yardstick: Yardstick,
    rows: Array,
    positions: NDArray[np.int64],
    settings: MeasureSettings,
    blocks: Sequence[tuple[Array, Array]],
) -> tuple[list[float], int]:
    """The statistic of every block large enough, and the rows that a typical block has."""
    random = np.random.default_rng(settings.seed)
    values, counts = [], []
    for rest, block in blocks:
        if len(block) > settings.sample_size:
            block = random.choice(block, settings.sample_size, replace=False)
        there, here = rows[np.isin(positions, rest)], rows[np.isin(positions, block)]
        if len(here) >= settings.minimum_rows and len(there) >= settings.minimum_rows:
            values.append(yardstick.compare(there, here))
            counts.append(len(here))
    return values, int(np.median(counts)) if counts else 0


def _natural_bound(
    values: Sequence[float],
    block_rows: int,
    sizes: Sequence[int],
    by_chance: Array,
    settings: MeasureSettings,
) -> list[float] | None:
    """By size, the Student prediction bound for one more block of an undrifted reference.

    It holds for windows as large as a block. A smaller one has more chance on top. For a larger
    one it stays: how much of a block's distance was chance and how much the day cannot be told
    apart well enough to lower it.
    """
    count = len(values)
    if count < settings.minimum_blocks:
        return None
    reach = float(student.ppf(1 - settings.false_alarm_rate, count - 1))
    spread = float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / count)
    bound = float(np.mean(values)) + reach * spread
    at_block = float(np.interp(block_rows, sizes, by_chance))
    return [bound + max(0.0, float(chance) - at_block) for chance in by_chance]


def _upper_quantile(values: Array, rate: float) -> Array:
    """By column, the order statistic that a further draw exceeds with probability ``rate``."""
    trials = len(values)
    place = min(trials, math.ceil((1 - rate) * (trials + 1))) - 1
    return np.sort(values, axis=0)[place]


def _sizes(smallest: int, largest: int) -> list[int]:
    """Sizes from smallest to largest, each at most twice the one before."""
    steps = max(1, math.ceil(math.log2(max(largest, smallest) / smallest)))
    sizes = np.geomspace(smallest, max(largest, smallest), steps + 1)
    return sorted({round(size) for size in sizes})
