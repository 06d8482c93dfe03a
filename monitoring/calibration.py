"""Calibration: a drift metric's thresholds on one subject, from data in which nothing drifts."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from monitoring.drift_metrics import DriftMetric, Parameters, load_metric
from monitoring.frame import Array, Encoded, Frame
from monitoring.settings import MeasureSettings
from monitoring.subjects import Subject
from refit.errors import DataValidationError, RefitError
from refit.extensions import naming
from refit.settings import Settings


class Threshold(Settings):
    """The calibrated threshold for results on ``n`` rows.

    Attributes:
        value: Larger values are drift: the largest of the floor and the two bounds below.
        bootstrap_bound: The (1 - false alarm rate) quantile over bootstrap samples of the
            reference.
        between_day_bound: Bound on how much one block of the reference differs from the others,
            at the same rate; None with fewer blocks than ``minimum_blocks``.
    """

    n: int
    value: float
    bootstrap_bound: float
    between_day_bound: float | None = None


class CalibratedMetric(Settings):
    """One drift metric of one subject, with its thresholds.

    Attributes:
        subject: As in a DriftResult, such as ``query-embedding`` or ``input:items.price``.
        statistic: Name of the drift metric.
        table: ``answers``, ``listings``, ``items`` or ``events``.
        column: A column of that table.
        parameters: What the metric learned from the reference, see ``monitoring.drift_metrics``.
        thresholds: By ascending n; a result on fewer rows than the first is insufficient data.
        false_alarm_rate, trials, floor: What the thresholds were calibrated with.
        blocks: Blocks of the reference that the between-day bound rests on.
        n_reference: Usable rows of the reference.
    """

    subject: str
    statistic: str
    table: str
    column: str
    parameters: Parameters = ()
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

    def load(self) -> DriftMetric:
        """The drift metric itself.

        Raises:
            UsageError: It cannot be loaded here.
        """
        return load_metric(self.statistic)

    def encode(self, frame: Frame) -> Encoded:
        """The usable rows of a table as the drift metric reads them, and their positions.

        Raises:
            UsageError: The drift metric cannot be loaded here.
            DataValidationError: The column cannot be measured.
        """
        return self.load().encode(frame, self.column, self.parameters)

    def threshold_at(self, n: int) -> float:
        """The threshold for ``n`` rows, on a log-log line between the calibrated sizes."""
        sizes = np.log([threshold.n for threshold in self.thresholds])
        values = np.log([max(threshold.value, 1e-12) for threshold in self.thresholds])
        return float(np.exp(np.interp(math.log(max(n, 1)), sizes, values)))


def calibrate(
    subject: Subject,
    metric: DriftMetric,
    frame: Frame,
    settings: MeasureSettings,
    blocks: Sequence[tuple[Array, Array]],
) -> CalibratedMetric:
    """Find the thresholds above which a drift metric reports drift.

    A metric's value varies where nothing drifts, for two reasons: chance, and differences between
    days. Chance: both samples are drawn from the reference, with replacement and at their own
    sizes (a split without replacement would shrink the reference, and most metrics grow when a
    sample shrinks: the threshold would be too high to find anything). Days: blocks of the
    reference are compared with the rest; the bound is the Student prediction bound for one more
    such block. So windows much larger than the reference's blocks gain no power from their size:
    give a reference with as many answers a day as the windows have.

    Args:
        subject: What is measured.
        metric: By which drift metric.
        frame: The reference table.
        settings: Rates, sizes and trials.
        blocks: Pairs of (rest, block) row positions within ``frame``.

    Raises:
        DataValidationError: The metric cannot measure the column, or the reference has too few
            usable rows.
        RefitError: The metric failed, or returned a value that is not finite.
    """
    advice = "correct it, or remove it from monitoring.measure"
    with naming(f"drift metric {metric.name!r} on {subject.name}", advice, _is_explained):
        return _calibrate(subject, metric, frame, settings, blocks)


def _is_explained(error: Exception) -> bool:
    return isinstance(error, RefitError)


def _calibrate(
    subject: Subject,
    metric: DriftMetric,
    frame: Frame,
    settings: MeasureSettings,
    blocks: Sequence[tuple[Array, Array]],
) -> CalibratedMetric:
    parameters = tuple(metric.fit(frame, subject.column, settings))
    rows, positions = metric.encode(frame, subject.column, parameters)
    if len(rows) < settings.minimum_rows:
        raise DataValidationError(f"{len(rows)} usable rows, {settings.minimum_rows} are needed")
    sizes = _sizes(settings.minimum_rows, settings.sample_size)
    by_chance = _upper_quantile(
        _bootstrap(metric, rows, sizes, settings), settings.false_alarm_rate
    )
    row_of = np.full(len(frame), -1, dtype=np.int64)
    row_of[positions] = np.arange(len(positions))
    differences, block_rows = _compare_blocks(metric, rows, row_of, settings, blocks)
    by_day = _between_day_bounds(differences, block_rows, sizes, by_chance, settings)
    floor = settings.floors.get(metric.name, metric.floor)
    thresholds = tuple(
        Threshold(
            n=n,
            value=max(floor, chance, 0.0 if by_day is None else by_day[i]),
            bootstrap_bound=chance,
            between_day_bound=None if by_day is None else by_day[i],
        )
        for i, (n, chance) in enumerate(zip(sizes, by_chance.tolist(), strict=True))
    )
    return CalibratedMetric(
        subject=subject.name,
        statistic=metric.name,
        table=subject.table,
        column=subject.column,
        parameters=parameters,
        thresholds=thresholds,
        false_alarm_rate=settings.false_alarm_rate,
        trials=settings.trials,
        blocks=0 if by_day is None else len(differences),
        n_reference=len(rows),
        floor=floor,
    )


def day_blocks(frame: Frame, settings: MeasureSettings) -> list[tuple[Array, Array]]:
    """Each stretch of ``window_days`` against the rest of the reference."""
    number = _block_numbers(frame, settings)
    pairs = [
        (np.flatnonzero(number != b), np.flatnonzero(number == b)) for b in _known_blocks(number)
    ]
    return [(rest, block) for rest, block in pairs if len(block) and len(rest)]


def half_splits(frame: Frame, settings: MeasureSettings) -> list[tuple[Array, Array]]:
    """Random halves of the listing days against each other.

    The live stock of two moments shares most of its items and has the same mix of ages, so whole
    days are assigned to two halves: one day against the rest would measure age, not drift.
    """
    number = _block_numbers(frame, settings)
    known = _known_blocks(number)
    if len(known) < settings.minimum_blocks:
        return []
    random = np.random.default_rng(settings.seed)
    splits = []
    for _ in range(20):
        half = random.permutation(known)[: len(known) // 2]
        in_half = np.isin(number, half)
        splits.append((np.flatnonzero(~in_half & (number >= 0)), np.flatnonzero(in_half)))
    return splits


def _block_numbers(frame: Frame, settings: MeasureSettings) -> NDArray[np.int64]:
    number = np.floor(frame.day / settings.window_days).astype(np.int64)
    return np.where(frame.day < 0, -1, number)


def _known_blocks(number: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(number[number >= 0])


def _bootstrap(
    metric: DriftMetric, rows: Array, sizes: Sequence[int], settings: MeasureSettings
) -> Array:
    """[trials, sizes] the metric's values where both samples are drawn from the same rows."""
    random = np.random.default_rng(settings.seed)

    def draw(n: int) -> Any:
        return metric.summarise(rows[random.integers(len(rows), size=n)])

    values = np.empty((settings.trials, len(sizes)))
    for trial in range(settings.trials):
        reference = draw(len(rows))
        values[trial] = [metric.check(metric.compare(reference, draw(n))) for n in sizes]
    return values


def _compare_blocks(
    metric: DriftMetric,
    rows: Array,
    row_of: NDArray[np.int64],
    settings: MeasureSettings,
    blocks: Sequence[tuple[Array, Array]],
) -> tuple[list[float], int]:
    """The metric's value for every block that is large enough, and the median size of a block.

    ``row_of`` gives the position in ``rows`` of each row of the table, -1 where it is not usable.
    """
    random = np.random.default_rng(settings.seed)
    values, counts = [], []
    for rest, block in blocks:
        if len(block) > settings.sample_size:
            block = random.choice(block, settings.sample_size, replace=False)
        there, here = (usable[usable >= 0] for usable in (row_of[rest], row_of[block]))
        if len(here) >= settings.minimum_rows and len(there) >= settings.minimum_rows:
            values.append(metric.measure(rows[there], rows[here]))
            counts.append(len(here))
    return values, int(np.median(counts)) if counts else 0


def _between_day_bounds(
    values: Sequence[float],
    block_rows: int,
    sizes: Sequence[int],
    by_chance: Array,
    settings: MeasureSettings,
) -> list[float] | None:
    """By size, the Student prediction bound for one more block of a reference without drift.

    It holds for windows as large as a block. For smaller ones chance is added. For larger ones it
    stays the same: which part of a block's value is chance and which is the day cannot be
    separated well enough to lower it.
    """
    count = len(values)
    if count < settings.minimum_blocks:
        return None
    quantile = float(stdtrit(count - 1, 1 - settings.false_alarm_rate))
    spread = float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / count)
    bound = float(np.mean(values)) + quantile * spread
    at_block = float(np.interp(block_rows, sizes, by_chance))
    return [bound + max(0.0, float(chance) - at_block) for chance in by_chance]


def _upper_quantile(values: Array, rate: float) -> Array:
    """By column, the order statistic that a further draw exceeds with probability ``rate``."""
    trials = len(values)
    rank = min(trials, math.ceil((1 - rate) * (trials + 1))) - 1
    return np.sort(values, axis=0)[rank]


def _sizes(smallest: int, largest: int) -> list[int]:
    """Sizes from smallest to largest, each at most four times the one before.

    Between these sizes thresholds are so close to a log-log line that more sizes add nothing.
    """
    steps = max(1, math.ceil(math.log(max(largest, smallest) / smallest, 4)))
    sizes = np.geomspace(smallest, max(largest, smallest), steps + 1)
    return sorted({round(size) for size in sizes})
