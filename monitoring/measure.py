"""Measure: compare windows of the prediction log, and of the data behind it, with the reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from monitoring import tables
from monitoring.calibration import CalibratedMetric
from monitoring.frame import Frame
from monitoring.live_quality import measure_live_quality
from monitoring.reference import Reference
from monitoring.settings import MeasureSettings
from refit.drift import DriftResult, DriftState, Window
from refit.errors import DataValidationError, RefitError, UsageError

WindowTable = tuple[Frame | None, str]
"""A window's rows and a detail to report with them; or None and the reason why there are none."""


@dataclass(frozen=True)
class MonitoredData:
    """Where the data of a run of the monitor is.

    Attributes:
        log: Prediction log: a folder, or one Parquet file.
        events: Parquet of events in contract columns; their ``request_id`` makes them outcomes.
        items: Parquet of the current items table in contract columns. With ``listed_at`` a
            window's rows are its new listings; without, all items belong to the last window.
        index: Index folder of the current live stock; it belongs to the window that contains its
            ``as_of``, or to the last window when that is later.
        unreadable: Why ``log``, ``events`` or ``items`` could not be read, though it was given.
    """

    log: Path
    events: Path | None = None
    items: Path | None = None
    index: Path | None = None
    unreadable: Mapping[str, RefitError] = field(default_factory=dict)


def daily_windows(end: datetime, count: int, days: float = 1.0) -> list[Window]:
    """The last ``count`` windows of ``days`` length before ``end``, oldest first."""
    length = timedelta(days=days)
    starts = [end - length * back for back in range(count, 0, -1)]
    return [Window(start=start, end=start + length) for start in starts]


def measure(
    settings: MeasureSettings,
    reference: Path,
    data: MonitoredData,
    windows: Sequence[Window],
    workspace: Path | None = None,
) -> list[DriftResult]:
    """Compare every window with the reference.

    Nothing that could not be measured is ok: too few rows, a missing column, an empty window, a
    drift metric that cannot be loaded or that fails is insufficient data, with the reason.

    Args:
        settings: Sampling and live quality; metrics and thresholds are the reference's own.
        reference: Reference folder, see ``build_reference``.
        data: What to measure.
        windows: The windows to measure, oldest first.
        workspace: Evidently workspace folder; gets one run per window, in project ``refit``.

    Raises:
        UsageError: No windows were given.
        RefitError: The reference cannot be read.
    """
    if not windows:
        raise UsageError("no windows were given to measure")
    from monitoring import evidently_report

    opened = Reference.read(reference)
    embedding_version = opened.manifest.embedding_version
    # What the thresholds rest on cannot be changed afterwards.
    frozen = ("depth", "mix_columns", "sample_size")
    calibrated = opened.manifest.settings
    settings = settings.model_copy(update={name: getattr(calibrated, name) for name in frozen})
    live = measure_live_quality(settings, data.log, data.events, embedding_version, windows)
    references: dict[str, Any] = {}
    results: list[DriftResult] = []
    snapshots = []
    for window in windows:
        rows = read_window(settings, opened, data, window, is_last=window == windows[-1])
        levels = [result for result in live if result.window == window]
        sides, measured = _encode(opened, rows, window, references)
        without_value = [r for r in (*measured, *levels) if r.value is None]
        notes = {
            "embedding_version": embedding_version,
            DriftState.INSUFFICIENT_DATA: ", ".join(result.name for result in without_value),
        }
        snapshot, values, errors = evidently_report.run_window(sides, levels, window, notes)
        for metric, _, current in sides:
            n, detail = current.stats().row_count, rows[metric.table][1]
            value = values.get(metric.name)
            why = errors.get(metric.name, "Evidently returned no value") if value is None else ""
            measured.append(_to_result(metric, opened, window, value, n, why, detail))
        snapshots.append(snapshot)
        results += measured + levels
    if workspace is not None:
        evidently_report.add_to_workspace(workspace, snapshots)
    return results


def read_window(
    settings: MeasureSettings,
    reference: Reference,
    data: MonitoredData,
    window: Window,
    is_last: bool,
) -> dict[str, WindowTable]:
    """Every table that has rows for a window; of a table that cannot be read, the reason.

    Args:
        settings: Sample sizes and columns.
        reference: An opened reference.
        data: Where the tables are.
        window: The window.
        is_last: Whether it is the newest of the run; it also gets data that carries no time.
    """
    readers: dict[str, Callable[[], WindowTable | None]] = {
        "answers": lambda: _read_answers(settings, reference, data, window),
        "listings": lambda: _read_listings(settings, reference, data, window, is_last),
        "items": lambda: _read_items(settings, data, window, is_last),
        "events": lambda: _read_events(settings, data, window),
    }
    found: dict[str, WindowTable] = {}
    for name, read in readers.items():
        try:
            if name in data.unreadable:
                raise data.unreadable[name]
            table = read()
        except Exception as error:
            table = None, f"{type(error).__name__}: {error}"
        if table is not None:
            found[name] = table
    return found


def _read_answers(
    settings: MeasureSettings, reference: Reference, data: MonitoredData, window: Window
) -> WindowTable:
    stock = [reference.attributes]
    if data.items is not None:
        wanted = {"item_id", "price", *settings.mix_columns}
        names = [n for n in pq.read_schema(data.items).names if n in wanted]
        stock.append(pq.read_table(data.items, columns=names))
    edges = reference.manifest.price_edges
    attributes = tables.Attributes.of(stock, settings.mix_columns, edges)
    answers = tables.read_answers(
        data.log,
        window,
        reference.manifest.embedding_version,
        settings.sample_size,
        settings,
        attributes,
    )
    left_out = []
    if answers.foreign:
        left_out.append(f"{answers.foreign} answers of other towers")
    if answers.fallbacks:
        left_out.append(f"{answers.fallbacks} fallbacks")
    return answers.frame, f"left out: {' and '.join(left_out)}" if left_out else ""


def _read_listings(
    settings: MeasureSettings,
    reference: Reference,
    data: MonitoredData,
    window: Window,
    is_last: bool,
) -> WindowTable | None:
    if data.index is None:
        return (None, "no index of the current stock was given") if is_last else None
    embedding_version, as_of, stock, vectors = tables.read_listings(data.index)
    if as_of is None:
        return (None, "the index does not name its time (as_of)") if is_last else None
    if as_of <= window.start:
        old = f"the index is of {as_of:%Y-%m-%d %H:%M}, before this window: run index_refresh"
        return (None, old) if is_last else None
    if as_of > window.end and not is_last:
        return None
    if embedding_version != reference.manifest.embedding_version:
        return None, (
            f"the index was built with towers {embedding_version}, the reference with "
            f"{reference.manifest.embedding_version}: vectors of other towers cannot be compared"
        )
    days = np.full(stock.num_rows, -1, dtype=np.int64)
    return tables.listings_frame(stock, vectors, days, settings.sample_size, settings), ""


def _read_items(
    settings: MeasureSettings, data: MonitoredData, window: Window, is_last: bool
) -> WindowTable | None:
    if data.items is None:
        return None, "no items table was given"
    timed = "listed_at" in pq.read_schema(data.items).names
    if not timed and not is_last:
        return None
    return (
        tables.read_table(data.items, "listed_at", window, settings.sample_size, settings)[0],
        "new listings" if timed else "all items",
    )


def _read_events(settings: MeasureSettings, data: MonitoredData, window: Window) -> WindowTable:
    if data.events is None:
        return None, "no events were given"
    size = settings.sample_size
    return tables.read_table(data.events, "event_time", window, size, settings)[0], ""


def _encode(
    reference: Reference,
    rows: Mapping[str, WindowTable],
    window: Window,
    references: dict[str, Any],
) -> tuple[list[Any], list[DriftResult]]:
    """What can be measured, as Evidently data sets; and results for what cannot be."""
    from monitoring.evidently_report import to_dataset

    sides: list[Any] = []
    insufficient: list[DriftResult] = []
    for metric in reference.manifest.metrics:
        if metric.table not in rows:
            continue
        n = 0
        try:
            frame, why = rows[metric.table]
            if frame is None:
                raise DataValidationError(why)
            current = metric.encode(frame)[0]
            n = len(current)
            if n < metric.needs_n:
                raise DataValidationError(f"{n} usable rows, {metric.needs_n} are needed")
            if metric.name not in references:
                there = metric.encode(reference.frames[metric.table])[0]
                references[metric.name] = to_dataset(there)
            sides.append((metric, references[metric.name], to_dataset(current)))
        except Exception as error:
            why = str(error) if isinstance(error, RefitError) else repr(error)
            insufficient.append(_to_result(metric, reference, window, None, n, why))
    return sides, insufficient


def _to_result(
    metric: CalibratedMetric,
    reference: Reference,
    window: Window,
    value: float | None,
    n: int,
    why: str,
    detail: str = "",
) -> DriftResult:
    threshold = metric.threshold_at(n)
    state = DriftState.INSUFFICIENT_DATA
    if value is not None:
        state = DriftState.DRIFT if value > threshold else DriftState.OK
    return DriftResult(
        subject=metric.subject,
        statistic=metric.statistic,
        value=value,
        threshold=threshold if value is not None else None,
        n_reference=metric.n_reference,
        n_current=n,
        window=window,
        state=state,
        embedding_version=reference.manifest.embedding_version,
        why=why,
        detail=detail if value is not None else "",
    )
