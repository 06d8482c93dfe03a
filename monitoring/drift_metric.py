"""A metric: one thing that is measured, with thresholds calibrated where nothing drifts."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from monitoring.settings import MeasureSettings
from monitoring.statistics import STATISTICS, Array, Encoded, Frame, Statistic
from refit.settings import Settings


class Threshold(Settings):
    """The calibrated threshold for results on ``n`` rows.

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


class DriftMetric(Settings):
    """One statistic of one column, and from when on it says drift.

    Attributes:
        subject: As in a DriftResult, such as ``query-embedding`` or ``input:items.price``.
        table: ``answers``, ``listings``, ``items`` or ``events``.
        by: The column that groups rows, where the statistic wants one.
        values: What encoding needs: a vocabulary, or a vector's length.
        thresholds: By growing n; a result on fewer rows than the first cannot tell.
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
        """The fewest rows that a result may rest on."""
        return self.thresholds[0].n

    @property
    def largest_n(self) -> int:
        """The most rows that the thresholds were calibrated for."""
        return self.thresholds[-1].n

    def encode(self, frame: Frame) -> Encoded:
        """The usable rows of a table as the statistic reads them, and their positions."""
        return self.measure.encode(frame, self.column, self.by, self.values)

    @property
    def measure(self) -> Statistic:
        """The statistic itself."""
        return STATISTICS[self.statistic]

    def threshold_at(self, n: int) -> float:
        """The threshold for ``n`` rows, on a log-log line between the calibrated sizes."""
        sizes = np.log([threshold.n for threshold in self.thresholds])
        values = np.log([max(threshold.value, 1e-12) for threshold in self.thresholds])
        return float(np.exp(np.interp(math.log(max(n, 1)), sizes, values)))


def calibrate(
    metric: DriftMetric,
    frame: Frame,
    settings: MeasureSettings,
    blocks: Sequence[tuple[Array, Array]],
) -> DriftMetric | None:
    """Find from when on a metric says drift, from data in which nothing drifts.

    Two things move a statistic where nothing drifts: chance, and that no day is like another.
    Chance: both samples are drawn anew from the reference, with replacement and at their own
    sizes (a split without replacement would shrink the reference, and most statistics grow when
    a sample shrinks: the threshold would be too high to find anything). Days: blocks of the
    reference are compared with the rest; the bound is the Student prediction bound for one more
    such block. So windows much larger than the reference's blocks gain no power from their size:
    give a reference with as many answers a day as the windows that are watched.

    Args:
        metric: What is measured; its thresholds are ignored.
        frame: The reference table.
        settings: Rates, sizes and trials.
        blocks: Pairs of (rest, block) row positions within ``frame``.

    Returns:
        The metric with thresholds, or None when the reference has too few usable rows.
    """
    rows, positions = metric.encode(frame)
    if len(rows) < settings.minimum_rows:
        return None
    sizes = _sizes(settings.minimum_rows, settings.sample_size)
    by_chance = _upper_quantile(
        _resampled(metric.measure, rows, sizes, settings), settings.false_alarm_rate
    )
    place_of = np.full(len(frame), -1, dtype=np.int64)
    place_of[positions] = np.arange(len(positions))
    natural, block_rows = _natural_values(metric.measure, rows, place_of, settings, blocks)
    by_day = _natural_bound(natural, block_rows, sizes, by_chance, settings)
    floor = settings.floors[metric.statistic]
    thresholds = tuple(
        Threshold(
            n=n,
            value=max(floor, chance, 0.0 if by_day is None else by_day[place]),
            resampling=chance,
            natural=None if by_day is None else by_day[place],
        )
        for place, (n, chance) in enumerate(zip(sizes, by_chance.tolist(), strict=True))
    )
    return metric.model_copy(
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


def _resampled(
    measure: Statistic, rows: Array, sizes: Sequence[int], settings: MeasureSettings
) -> Array:
    """[trials, sizes] the statistic where both samples are drawn from the same rows."""
    random = np.random.default_rng(settings.seed)

    def draw(n: int) -> Any:
        return measure.summarise(rows[random.integers(len(rows), size=n)])

    values = np.empty((settings.trials, len(sizes)))
    for trial in range(settings.trials):
        reference = draw(len(rows))
        values[trial] = [measure.compare(reference, draw(n)) for n in sizes]
    return values


def _natural_values(
    measure: Statistic,
    rows: Array,
    place_of: NDArray[np.int64],
    settings: MeasureSettings,
    blocks: Sequence[tuple[Array, Array]],
) -> tuple[list[float], int]:
    """The statistic of every block large enough, and the rows that a typical block has.

    ``place_of`` gives the place in ``rows`` of each row of the table, -1 where it is not usable.
    """
    random = np.random.default_rng(settings.seed)
    values, counts = [], []
    for rest, block in blocks:
        if len(block) > settings.sample_size:
            block = random.choice(block, settings.sample_size, replace=False)
        there, here = (places[places >= 0] for places in (place_of[rest], place_of[block]))
        if len(here) >= settings.minimum_rows and len(there) >= settings.minimum_rows:
            values.append(measure.distance(rows[there], rows[here]))
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
    reach = float(stdtrit(count - 1, 1 - settings.false_alarm_rate))
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
    """Sizes from smallest to largest, each at most four times the one before.

    Between those thresholds lie so near a log-log line that more sizes would tell no more.
    """
    steps = max(1, math.ceil(math.log(max(largest, smallest) / smallest, 4)))
    sizes = np.geomspace(smallest, max(largest, smallest), steps + 1)
    return sorted({round(size) for size in sizes})
