"""Measure: compare windows of the prediction log, and of the data behind it, with earlier days."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from monitoring import tables
from monitoring.calibration import CalibratedMetric, MetricEntry, find_ages, find_slot
from monitoring.choices import measure_choices
from monitoring.closings import find_closing, leave_out_closed
from monitoring.expectation import Comparison, Days, Floats, compare, fit_variogram
from monitoring.faults.check import check_feeds
from monitoring.frame import Array, Frame, mean_features, to_dense
from monitoring.live_quality import measure_live_quality
from monitoring.panel import measure_panel
from monitoring.quality.settings import QualitySettings
from monitoring.reference import TABLES, Reference
from monitoring.settings import MeasureSettings
from monitoring.summary import WindowSummary
from monitoring.windows import MonitoredData, WindowReader, WindowTable
from refit.drift import DriftResult, DriftState, Window
from refit.errors import DataValidationError, RefitError, UsageError

if TYPE_CHECKING:
    from monitoring.reports.drift import Outcome

EXTREMES = 3
"""So many rows of a window alone are no drift."""


@dataclass(frozen=True)
class Measurement:
    """The results of some windows, and what later windows need to know of them."""

    results: tuple[DriftResult, ...]
    summaries: tuple[WindowSummary, ...]


def measure(
    settings: MeasureSettings,
    reference: Reference,
    data: MonitoredData,
    windows: Sequence[Window],
    workspace: Path | None = None,
    history: Sequence[WindowSummary] = (),
    quality: QualitySettings | None = None,
) -> Measurement:
    """Compare every window with what the reference and earlier windows lead to expect.

    Nothing that could not be measured is ok: too few rows, a missing column, an empty window, a
    drift metric that cannot be loaded or that fails is insufficient data, with the reason. Windows
    of planned closings have no results.

    Args:
        settings: Sampling, planned closings; metrics are the reference's own.
        reference: What is expected, see ``build_reference``.
        data: What to measure.
        windows: The windows to measure, oldest first.
        workspace: Evidently workspace folder; gets one run per window and table, in project
            ``refit``.
        history: Of windows of the same towers that were measured before.
        quality: How live quality is measured; None for the defaults.

    Raises:
        UsageError: No windows were given.
    """
    if not windows:
        raise UsageError("no windows were given to measure")
    windows = leave_out_closed(settings.closings, windows)
    if not windows:
        return Measurement((), ())
    history = [
        s for s in history if find_closing(settings.closings, s.window.start, s.window.end) is None
    ]
    # What the reference was built with cannot be changed afterwards.
    frozen = ("depth", "mix_columns", "window_days")
    calibrated = reference.manifest.settings
    settings = settings.model_copy(update={name: getattr(calibrated, name) for name in frozen})
    towers = reference.manifest.embedding_version
    live = measure_live_quality(
        settings,
        data.log,
        data.events,
        towers,
        windows,
        quality=quality,
        items=data.items,
        index=data.index,
    )
    feeds = check_feeds(settings, reference, data, windows)
    chosen, chosen_before = measure_choices(settings, data, windows, towers, history)
    reader = WindowReader(settings, reference, data)
    results: list[DriftResult] = []
    summaries: list[WindowSummary] = []
    snapshots: list[Any] = []
    for window in windows:
        rows = reader.read(window, is_last=window == windows[-1])
        earlier = [s for s in (*history, *summaries) if s.window.end <= window.start]
        levels = [result for result in live if result.window == window]
        broken = [result for result in feeds if result.window == window]
        if "listings" in rows:  # an index came
            levels.append(measure_panel(settings, reference, data, window))
        measured = _WindowMeasurement(
            settings, reference, window, earlier, shown=workspace is not None
        )
        # On matrices this small several threads only wait for each other.
        with threadpool_limits(1):
            for name in TABLES:
                if name in rows:
                    measured.add_table(name, rows[name], levels if name == "answers" else ())
        results += [*measured.results, *levels, *broken]
        summaries += measured.summaries
        snapshots += measured.snapshots
    if workspace is not None:
        from monitoring.reports.workspace import add_to_workspace

        subjects = {result.subject for result in live}
        add_to_workspace(workspace, snapshots, reference.manifest.metrics, subjects)
    return Measurement((*results, *chosen), (*summaries, *chosen_before))


@dataclass
class _WindowMeasurement:
    """The measurement of one window in progress, table by table."""

    settings: MeasureSettings
    reference: Reference
    window: Window
    earlier: Sequence[WindowSummary]
    shown: bool
    results: list[DriftResult] = field(default_factory=list)
    summaries: list[WindowSummary] = field(default_factory=list)
    snapshots: list[Any] = field(default_factory=list)
    _rows: dict[str, int] = field(default_factory=dict)

    def add_table(self, name: str, table: WindowTable, levels: Sequence[DriftResult]) -> None:
        """Measure a table in one Evidently report; ``levels`` are shown beside it."""
        from monitoring.reports.drift import run_report

        frame, detail = table
        metrics = [m for m in self.reference.metrics if m.entry.table == name]
        if frame is None or not len(frame):
            why = detail if frame is None else "0 usable rows"
            self.results += [self._to_result(m.entry, None, why) for m in metrics]
            return
        snapshot, outcomes, errors = run_report(
            metrics,
            self._compare,
            self.reference.frames[name],
            frame,
            self.settings.false_alarm_rate,
            {r.subject: r.level for r in levels if r.level is not None},
            self.shown,
            timestamp=self.window.end,
            name=f"{self.window.start:%Y-%m-%d %H:%M} {name}",
            metadata={"embedding_version": self.reference.manifest.embedding_version},
            tags=[name],
        )
        self.snapshots.append(snapshot)
        for metric in metrics:
            outcome = outcomes.get(metric.entry.name)
            error = errors.get(metric.entry.name)
            why = str(error) if isinstance(error, RefitError) else repr(error)
            result = self._to_result(metric.entry, outcome, why if error else detail)
            self.results.append(result)
            if outcome is not None:
                drifted = result.state is DriftState.DRIFT
                here = outcome.comparison.window
                self.summaries.append(summarise_window(metric.entry, self.window, here, drifted))

    @cached_property
    def _earlier_by_name(self) -> dict[str, list[WindowSummary]]:
        found: dict[str, list[WindowSummary]] = {}
        for summary in self.earlier:
            found.setdefault(summary.name, []).append(summary)
        return found

    def _compare(self, metric: CalibratedMetric, frame: Frame) -> Comparison:
        """Compare a window's rows with what is expected.

        Raises:
            RefitError: The metric cannot be loaded, or the rows cannot be measured.
        """
        features, positions = metric.encode(frame)
        n, least = len(positions), self.settings.minimum_rows
        self._rows[metric.entry.name] = n
        if n < least:
            raise DataValidationError(f"{n} usable rows, {least} are needed")
        here = _summarise(self.settings, metric, frame, features, positions, self.window)
        earlier = self._earlier_by_name.get(metric.entry.name, ())
        days = metric.reference.joined_with(to_earlier_days(self.settings, metric, earlier))
        variogram = fit_variogram(days, metric.noise)
        compared = compare(days, metric.noise, variogram, here)
        if compared.p_value > self.settings.false_alarm_rate:
            return compared
        without = here.replace_means(_leave_out_extremes(metric, features, compared)[None])
        robust = compare(days, metric.noise, variogram, without)
        return replace(compared, p_value=max(compared.p_value, robust.p_value))

    def _to_result(self, entry: MetricEntry, outcome: "Outcome | None", note: str) -> DriftResult:
        state, value, threshold = DriftState.INSUFFICIENT_DATA, None, None
        if outcome is not None:
            value = outcome.value
            threshold = outcome.threshold
            is_drift = not outcome.is_probable and value >= entry.floor
            state = DriftState.DRIFT if is_drift else DriftState.OK
        return DriftResult(
            subject=entry.subject,
            statistic=entry.statistic,
            value=value,
            threshold=threshold,
            p_value=outcome.p_value if outcome else None,
            n_reference=entry.n_reference,
            n_current=self._rows.get(entry.name, 0),
            window=self.window,
            state=state,
            embedding_version=self.reference.manifest.embedding_version,
            why="" if outcome else note,
            detail=note if outcome else "",
        )


def summarise_window(
    entry: MetricEntry, window: Window, here: Days, drifted: bool
) -> WindowSummary:
    """What later windows need to know of a measured window."""
    return WindowSummary(
        subject=entry.subject,
        statistic=entry.statistic,
        window=window,
        mean=tuple(here.means[0].tolist()),
        n=float(here.n[0]),
        age=float(here.age[0]),
        drifted=drifted,
    )


def _summarise(
    settings: MeasureSettings,
    metric: CalibratedMetric,
    frame: Frame,
    features: Array,
    positions: Array,
    window: Window,
) -> Days:
    """A window as a single day."""
    start = window.start.timestamp() / tables.SECONDS_A_DAY
    mean = metric.place(mean_features(features))
    return Days(
        mean[None],
        np.array([metric.count_effective(frame, positions)]),
        np.array([start]),
        np.array([find_slot(start, settings)]),
        find_ages(frame, positions).mean(keepdims=True),
    )


def _leave_out_extremes(metric: CalibratedMetric, features: Any, compared: Comparison) -> Floats:
    """[q] the mean without the few rows that moved it most: no drift may rest on them alone.

    Where the reference has hardly a row of a kind, one such row in a window is no rarity.
    """
    moved = metric.axes @ (compared.window.means[0] - compared.expected)
    reach = np.asarray(features @ moved)
    most = np.argpartition(reach, -EXTREMES)[-EXTREMES:]
    n = len(reach)
    rest = mean_features(features) * n - to_dense(features[most]).sum(axis=0, dtype=np.float64)
    return metric.place(rest / (n - EXTREMES))


def to_earlier_days(
    settings: MeasureSettings, metric: CalibratedMetric, earlier: Sequence[WindowSummary]
) -> Days:
    """Earlier windows of a metric that did not drift, the latest of ``reference_days``."""
    own = [
        s
        for s in earlier
        if (s.subject, s.statistic) == (metric.entry.subject, metric.entry.statistic)
        and not s.drifted
    ]
    own = own[-round(settings.reference_days / settings.window_days) :]
    start = np.array([s.window.start.timestamp() / tables.SECONDS_A_DAY for s in own])
    return Days(
        np.array([s.mean for s in own]).reshape(len(own), metric.axes.shape[1]),
        np.array([s.n for s in own]),
        start,
        np.array([find_slot(at, settings) for at in start], dtype=np.int64),
        np.array([s.age for s in own]),
    )
