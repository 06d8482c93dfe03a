"""Measure: turn a prediction log, and the data behind it, into results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from monitoring import tables
from monitoring.drift_metric import DriftMetric
from monitoring.live import measure_live
from monitoring.reference import Reference
from monitoring.settings import MeasureSettings
from monitoring.statistics import Frame
from refit.drift import DriftResult, DriftState, Window
from refit.errors import DataValidationError, UsageError

Table = tuple[Frame | None, str]
"""A window's rows, or none and the reason; with rows, what else there is to say about them."""


def daily_windows(end: datetime, count: int, days: float = 1.0) -> list[Window]:
    """The last ``count`` windows of ``days`` length before ``end``, oldest first."""
    length = timedelta(days=days)
    starts = [end - length * place for place in range(count, 0, -1)]
    return [Window(start=start, end=start + length) for start in starts]


def measure(
    settings: MeasureSettings,
    reference: Path,
    log: Path,
    events: Path | None,
    items: Path | None,
    index: Path | None,
    windows: Sequence[Window],
    workspace: Path | None = None,
) -> list[DriftResult]:
    """Hold every window against the reference.

    Nothing that could not be measured is ok: too few rows, a missing column, an empty window or
    an error in computing is insufficient data, with the reason.

    Args:
        settings: Sampling and live quality; thresholds are the reference's own.
        reference: Reference folder, see ``build_reference``.
        log: Prediction log folder.
        events: Parquet of events in contract columns; their ``request_id`` makes them outcomes.
        items: Parquet of the current items table in contract columns. With ``listed_at`` a
            window's rows are its new listings; without, all items belong to the last window.
        index: Index folder of the current live stock; it belongs to the window that holds its
            ``as_of``, or to the last window when that is later.
        windows: What to measure, oldest first.
        workspace: Evidently workspace folder; gets one run a window, in project ``refit``.

    Raises:
        UsageError: No windows were given.
        RefitError: The reference cannot be read.
    """
    if not windows:
        raise UsageError("no windows were given to measure")
    from monitoring import evidently_report

    opened = Reference.read(reference)
    # What the thresholds rest on cannot be changed afterwards.
    frozen = ("depth", "mix_columns", "sample_size")
    calibrated = opened.manifest.settings
    settings = settings.model_copy(update={name: getattr(calibrated, name) for name in frozen})
    live = measure_live(settings, log, events, opened.manifest.embedding_version, windows)
    references: dict[str, Any] = {}
    results: list[DriftResult] = []
    snapshots = []
    for window in windows:
        sources = Sources(log, events, items, index, last=window == windows[-1])
        rows = window_tables(settings, opened, sources, window)
        levels = [result for result in live if result.window == window]
        sides, told = _encode(opened, rows, window, references)
        notes = {
            "embedding_version": opened.manifest.embedding_version,
            "cannot tell": ", ".join(_name(r) for r in (*told, *levels) if r.value is None),
        }
        snapshot, values, errors = evidently_report.run_window(sides, levels, window, notes)
        for metric, _, current in sides:
            n, detail = current.stats().row_count, rows[metric.table][1]
            value = values.get(metric.name)
            why = errors.get(metric.name, "Evidently gave no value") if value is None else ""
            told.append(_reading(metric, opened, window, value, n, why, detail))
        snapshots.append(snapshot)
        results += told + levels
    if workspace is not None:
        evidently_report.add_to_workspace(workspace, snapshots)
    return results


@dataclass(frozen=True)
class Sources:
    """Where a window's rows come from; ``last`` says that it is the newest of the run."""

    log: Path
    events: Path | None
    items: Path | None
    index: Path | None
    last: bool


def window_tables(
    settings: MeasureSettings, reference: Reference, sources: Sources, window: Window
) -> dict[str, Table]:
    """Every table that has something to say about a window; a table that failed says why."""
    readers: dict[str, Callable[[], Table | None]] = {
        "answers": lambda: _answers(settings, reference, sources, window),
        "listings": lambda: _listings(settings, reference, sources, window),
        "items": lambda: _items(settings, sources, window),
        "events": lambda: _events(settings, sources, window),
    }
    tables_read: dict[str, Table] = {}
    for name, read in readers.items():
        try:
            found = read()
        except Exception as error:
            found = None, f"{type(error).__name__}: {error}"
        if found is not None:
            tables_read[name] = found
    return tables_read


def _answers(
    settings: MeasureSettings, reference: Reference, sources: Sources, window: Window
) -> Table:
    stock = [reference.attributes]
    if sources.items is not None:
        wanted = {"item_id", "price", *settings.mix_columns}
        names = [n for n in pq.read_schema(sources.items).names if n in wanted]
        stock.append(pq.read_table(sources.items, columns=names))
    edges = reference.manifest.price_edges
    attributes = tables.Attributes.of(stock, settings.mix_columns, edges)
    answers = tables.read_answers(
        sources.log,
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


def _listings(
    settings: MeasureSettings, reference: Reference, sources: Sources, window: Window
) -> Table | None:
    if sources.index is None:
        return (None, "no index of the current stock was given") if sources.last else None
    embedding_version, as_of, stock, vectors = tables.read_listings(sources.index)
    if as_of is None:
        return (None, "the index does not say what moment it is of") if sources.last else None
    if as_of <= window.start:
        old = f"the index is of {as_of:%Y-%m-%d %H:%M}, before this window: refresh it"
        return (None, old) if sources.last else None
    if as_of > window.end and not sources.last:
        return None
    if embedding_version != reference.manifest.embedding_version:
        return None, (
            f"the index was built with towers {embedding_version}, the reference with "
            f"{reference.manifest.embedding_version}: vectors of other towers cannot be compared"
        )
    days = np.full(stock.num_rows, -1, dtype=np.int64)
    return tables.listings_frame(stock, vectors, days, settings.sample_size, settings), ""


def _items(settings: MeasureSettings, sources: Sources, window: Window) -> Table | None:
    if sources.items is None:
        return None, "no items table was given"
    timed = "listed_at" in pq.read_schema(sources.items).names
    if not timed and not sources.last:
        return None
    return (
        tables.read_table(sources.items, "listed_at", window, settings.sample_size, settings)[0],
        "new listings" if timed else "all items",
    )


def _events(settings: MeasureSettings, sources: Sources, window: Window) -> Table:
    if sources.events is None:
        return None, "no events were given"
    size = settings.sample_size
    return tables.read_table(sources.events, "event_time", window, size, settings)[0], ""


def _encode(
    reference: Reference, rows: Mapping[str, Table], window: Window, references: dict[str, Any]
) -> tuple[list[Any], list[DriftResult]]:
    """What can be measured, as Evidently data sets; and results for what cannot."""
    from monitoring.evidently_report import to_dataset

    sides: list[Any] = []
    told: list[DriftResult] = []
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
            why = str(error) if isinstance(error, DataValidationError) else repr(error)
            told.append(_reading(metric, reference, window, None, n, why))
    return sides, told


def _reading(
    metric: DriftMetric,
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


def _name(result: DriftResult) -> str:
    return f"{result.subject}/{result.statistic}"
