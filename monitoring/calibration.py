"""Calibration: what a drift metric learns from the reference of one subject.

Rows become features; the reference keeps their mean by day, in units in which distances are taken,
and how they vary within a day. ``monitoring.expectation`` compares a window with that.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

from monitoring.drift_metrics import DriftMetric, Parameters, load_metric
from monitoring.expectation import DAYS_OF_WEEK, Days, Floats, Noise
from monitoring.frame import Array, Encoded, Frame, combine, is_list, split_into_windows, to_dense
from monitoring.settings import MeasureSettings
from monitoring.subjects import Subject
from refit.errors import DataValidationError, RefitError
from refit.extensions import naming
from refit.settings import Settings

_RIDGE = 0.05
"""Share of the mean variance that is added to each feature's, before distances are standardised:
features that hardly vary in the reference would outweigh all others."""
_LEAST_VARIANCE = 1e-6
"""Added where nothing varies: there any change is drift, but not how numbers are rounded."""
_PARAMETER = "parameter:"
ITEMS = "item_ids"
INDEX_AGE = "index_age"
CLUSTERS = ("user_id", "seller_id")
"""The first of them that a table has names who its rows belong to."""


class MetricEntry(Settings):
    """One drift metric of one subject, as the reference's manifest names it.

    Attributes:
        subject: As in a DriftResult, such as ``query-embedding`` or ``input:items.price``.
        statistic: Name of the drift metric.
        table: ``answers``, ``listings``, ``items`` or ``events``.
        column: A column of that table.
        file: The arrays of its ``CalibratedMetric``, within the reference folder.
        n_reference: Usable rows of the reference.
        days: Days of the reference with such rows.
        floor: The smallest value that does harm.
        is_fault: Whether its drift signals a broken feed.
    """

    subject: str
    statistic: str
    table: str
    column: str
    file: str
    n_reference: int
    days: int
    floor: float = 0.0
    is_fault: bool = False

    @property
    def name(self) -> str:
        """``subject/statistic``, as the policy's patterns match it."""
        return f"{self.subject}/{self.statistic}"


@dataclass(frozen=True)
class CalibratedMetric:
    """A drift metric of one subject with what it learned from the reference.

    Attributes:
        entry: Its names.
        parameters: What ``fit`` of the drift metric learned.
        centre: [p] the reference's mean features.
        axes: [p, q] from features less the centre to the units in which distances are taken.
        noise: How rows vary within a day, in these units.
        reference: The reference's days.
        slot_noise: How single recommended items vary, over how rows do; 0 where rows list none.
    """

    entry: MetricEntry
    parameters: Parameters
    centre: Floats
    axes: Floats
    noise: Noise
    reference: Days
    slot_noise: float = 0.0

    def load(self) -> DriftMetric:
        """The drift metric itself.

        Raises:
            UsageError: It cannot be loaded here.
        """
        return load_metric(self.entry.statistic)

    def encode(self, frame: Frame) -> Encoded:
        """[m, p] features of the usable rows of a table, and their positions.

        Raises:
            UsageError: The drift metric cannot be loaded here.
            DataValidationError: The column cannot be measured.
            ValueError: A feature is not a finite number.
        """
        return self.load().encode(frame, self.entry.column, self.parameters)

    def place(self, mean: Floats) -> Floats:
        """[q] mean features in the units in which distances are taken."""
        placed: Floats = (mean - self.centre) @ self.axes
        return placed

    def count_effective(self, frame: Frame, positions: Array) -> float:
        """How many independent rows the rows at some positions are worth.

        Answers of one day show the same few items again and again: what is recommended varies with
        these items too, not only with the requests.
        """
        shared = self.slot_noise * find_repetition(frame, positions) if self.slot_noise else 0.0
        return 1 / (1 / len(positions) + shared)

    def write(self, path: Path) -> None:
        """Write the arrays to a file."""
        arrays: dict[str, Any] = dict(
            centre=self.centre,
            axes=self.axes,
            noise=np.array([self.noise.trace, self.noise.trace_of_square]),
            slot_noise=np.array(self.slot_noise),
            means=self.reference.means,
            n=self.reference.n,
            at=self.reference.at,
            slot=self.reference.slot,
            age=self.reference.age,
            **{_PARAMETER + name: np.asarray(value) for name, value in self.parameters.items()},
        )
        np.savez(path, **arrays)

    @classmethod
    def read(cls, entry: MetricEntry, folder: Path) -> "CalibratedMetric":
        """Read the metric of an entry from a reference folder."""
        with np.load(folder / entry.file) as arrays:
            parameters = {
                name.removeprefix(_PARAMETER): arrays[name]
                for name in arrays.files
                if name.startswith(_PARAMETER)
            }
            days = Days(*(arrays[name] for name in ("means", "n", "at", "slot", "age")))
            noise = Noise(*map(float, arrays["noise"]))
            centre, axes, slot_noise = (arrays[n] for n in ("centre", "axes", "slot_noise"))
            return cls(entry, parameters, centre, axes, noise, days, float(slot_noise))


def calibrate(
    subject: Subject, metric: DriftMetric, frame: Frame, settings: MeasureSettings, file: str = ""
) -> CalibratedMetric:
    """Learn from the reference what a drift metric of a subject looks like where nothing drifts.

    Args:
        subject: What is measured.
        metric: By which drift metric.
        frame: The reference table.
        settings: Length of a window, fewest rows, floors.
        file: Where the arrays will be written, within the reference folder.

    Raises:
        DataValidationError: The metric cannot measure the column, or the reference has too few
            usable rows.
        RefitError: The metric failed, or returned a feature that is not finite.
    """
    advice = "correct it, or remove it from monitoring.measure"
    with naming(f"drift metric {metric.name!r} on {subject.name}", advice, _is_explained):
        return _calibrate(subject, metric, frame, settings, file)


def _is_explained(error: Exception) -> bool:
    return isinstance(error, RefitError)


def _calibrate(
    subject: Subject, metric: DriftMetric, frame: Frame, settings: MeasureSettings, file: str
) -> CalibratedMetric:
    parameters = metric.fit(frame, subject.column, settings)
    features, positions = metric.encode(frame, subject.column, parameters)
    rows = to_dense(features)
    if len(rows) < settings.minimum_rows:
        raise DataValidationError(f"{len(rows)} usable rows, {settings.minimum_rows} are needed")
    centre = rows.mean(axis=0, dtype=np.float64)
    covariance = np.cov(rows, rowvar=False, dtype=np.float64).reshape(len(centre), -1)
    axes = _find_axes(covariance, metric.standardised)
    noise = _find_noise(covariance, axes, len(rows))
    entry = MetricEntry(
        subject=subject.name,
        statistic=metric.name,
        table=subject.table,
        column=subject.column,
        file=file,
        n_reference=len(rows),
        days=0,
        floor=settings.floors.get(metric.name, metric.floor),
        is_fault=metric.signals_fault(subject.name),
    )
    found = CalibratedMetric(entry, parameters, centre, axes, noise, _no_days(axes.shape[1]))
    found = replace(found, noise=noise.times(_find_design_effect(found, frame, rows, positions)))
    if ITEMS in frame.names and is_list(frame.column(subject.column)) and subject.kind == "mix":
        found = replace(found, slot_noise=_find_slot_noise(found, metric, frame))
    days = summarise_days(found, frame, rows, positions, settings)
    return replace(found, entry=entry.model_copy(update={"days": len(days)}), reference=days)


def _find_noise(covariance: Floats, axes: Floats, n: int) -> Noise:
    placed = axes.T @ covariance @ axes
    # A feature that never varies in the reference still varies by a row in a window.
    least = 1 / n / len(covariance)
    return Noise(float(np.trace(placed)) + least, float(np.square(placed).sum()) + least**2)


def _find_design_effect(
    found: CalibratedMetric, frame: Frame, rows: Array, positions: Array
) -> float:
    """How much more the mean of a day varies than that of as many independent rows.

    The rows of one person, or of one seller, on one day are alike. Source: Kish, Survey Sampling,
    1965.
    """
    by = next((name for name in CLUSTERS if name in frame.names), None)
    if by is None:
        return 1.0
    codes = combine(frame.column(by).take(pa.array(positions))).dictionary_encode().indices
    who = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    alone = who < 0
    who = np.where(alone, who.max(initial=0) + 1 + np.arange(len(who)), who)
    day = np.nan_to_num(np.floor(frame.day[positions])).astype(np.int64)
    day -= day.min(initial=0)
    pair = who * (int(day.max(initial=0)) + 1) + day
    _, cluster = np.unique(pair, return_inverse=True)
    count = int(cluster.max()) + 1
    member = csr_array((np.ones(len(rows), np.float32), (cluster, np.arange(len(rows)))))
    sums = member @ ((rows - found.centre.astype(np.float32)) @ found.axes.astype(np.float32))
    together = float(np.square(sums).sum()) / len(rows)
    return max(1.0, together / found.noise.trace) if count < len(rows) else 1.0


def _find_slot_noise(found: CalibratedMetric, metric: DriftMetric, frame: Frame) -> float:
    """How much single values of a column of lists vary, over how much the rows do."""
    values = pc.list_flatten(frame.column(found.entry.column))
    slots = Frame(pa.table({found.entry.column: values}), np.full(len(values), np.nan))
    features, _ = metric.encode(slots, found.entry.column, found.parameters)
    spread = np.square((to_dense(features) - found.centre) @ found.axes).sum(axis=1).mean()
    return float(spread) / found.noise.trace


def find_repetition(frame: Frame, positions: Array) -> float:
    """The probability that two slots of these rows, drawn with replacement, show the same item."""
    if len(positions) == len(frame):
        return frame.once(_find_repetition_of_all)
    return _find_repetition(frame.column(ITEMS).take(pa.array(positions)))


def _find_repetition_of_all(frame: Frame) -> float:
    return _find_repetition(frame.column(ITEMS))


def _find_repetition(lists: pa.Array) -> float:
    items = pc.list_flatten(lists)
    counts = pc.value_counts(items).field("counts").to_numpy(zero_copy_only=False)
    return float(np.square(counts / max(counts.sum(), 1)).sum())


def _find_axes(covariance: Floats, standardised: bool) -> Floats:
    size = len(covariance)
    if not standardised:
        return np.eye(size)
    ridge = max(_RIDGE * float(np.trace(covariance)) / size, _LEAST_VARIANCE)
    values, basis = np.linalg.eigh(covariance + ridge * np.eye(size))
    axes: Floats = basis / np.sqrt(values)
    return axes


def _no_days(width: int) -> Days:
    none = np.empty(0)
    return Days(np.empty((0, width)), none, none, none.astype(np.int64), none)


def summarise_days(
    metric: CalibratedMetric,
    frame: Frame,
    rows: Array,
    positions: Array,
    settings: MeasureSettings,
) -> Days:
    """The mean features of each window's length of the reference.

    Blocks with fewer rows than a result needs are joined with their neighbours; rows whose day is
    unknown are left out, unless no day is known: then all are one block.
    """
    day = frame.day[positions]
    known = np.isfinite(day)
    if not known.any():
        day, known = np.zeros(len(day)), np.ones(len(day), dtype=bool)
    rows, positions = rows[known], positions[known]
    block = np.floor(day[known] / settings.window_days)
    code = split_into_windows(day[known], settings.window_days, settings.minimum_rows)
    sizes = np.bincount(code)
    order = np.argsort(code, kind="stable")
    ends = np.cumsum(sizes)
    starts = ends - sizes
    sums = np.add.reduceat(rows[order].astype(np.float64), starts, axis=0)
    at = np.add.reduceat(block[order], starts) / sizes * settings.window_days
    n = [
        metric.count_effective(frame, positions[order[start:end]])
        for start, end in zip(starts, ends, strict=True)
    ]
    slots = np.array([find_slot(time, settings) for time in at])
    means = (sums / sizes[:, None] - metric.centre) @ metric.axes
    age = np.add.reduceat(find_ages(frame, positions)[order], starts) / sizes
    return Days(means, np.array(n), at, slots, age)


def find_ages(frame: Frame, positions: Array) -> Floats:
    """[m] ages of the indexes that answered, in days; 0 where a table has none."""
    if INDEX_AGE not in frame.names:
        return np.zeros(len(positions))
    return frame.column(INDEX_AGE).take(pa.array(positions)).to_numpy(zero_copy_only=False)


def find_slot(at: float, settings: MeasureSettings) -> int:
    """The place in the week of a window that starts ``at`` days since 1970."""
    return int(np.floor((at % DAYS_OF_WEEK) / settings.window_days + 1e-6))
