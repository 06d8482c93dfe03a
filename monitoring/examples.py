"""Examples for a person: which queries and listings moved most, and whose share grew."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from monitoring.measure import Sources, window_tables
from monitoring.reference import Reference
from monitoring.review.examples import AlertExamples, ValueShare
from monitoring.settings import MeasureSettings
from monitoring.statistics import Array, Frame, is_missing, vectors
from refit.drift import Window
from refit.progress import log_message

NEIGHBOURS = 5


def find_examples(
    settings: MeasureSettings, reference: Reference, sources: Sources, window: Window
) -> AlertExamples:
    """Examples of one window; what cannot be read gives none, and says so in the log."""
    rows = window_tables(settings, reference, sources, window)
    frames = {name: frame for name, (frame, _) in rows.items() if frame is not None}
    found: dict[str, Any] = {}
    for name, find in (
        ("queries", _moved_queries),
        ("listings", _moved_listings),
        ("shares", _changed_shares),
    ):
        try:
            found[name] = tuple(find(reference, frames))
        except Exception as error:
            log_message(f"no examples of {name}: {type(error).__name__}: {error}")
    return AlertExamples(window=window, **found)


def _moved_queries(reference: Reference, frames: dict[str, Frame]) -> Iterable[dict[str, str]]:
    frame = frames["answers"]
    there = reference.frames["answers"].column("query_embedding")
    for row in _most_moved(there, frame.column("query_embedding")):
        kinds = Counter(
            str(value)
            for value in frame.columns.get("category_1", np.full(len(frame), None))[row] or ()
            if value is not None
        )
        yield {
            "request": str(frame.column("request_id")[row]),
            "user": str(frame.column("user_id")[row] or "(new)"),
            "context": str(frame.column("context")[row]),
            "recommended": ", ".join(f"{v} {n}×" for v, n in kinds.most_common(3))
            or ", ".join(frame.column("item_ids")[row][:3]),
        }


def _moved_listings(reference: Reference, frames: dict[str, Frame]) -> Iterable[dict[str, str]]:
    if "listings" not in frames:
        return
    frame = frames["listings"]
    there = reference.frames["listings"].column("embedding")
    for row in _most_moved(there, frame.column("embedding")):
        shown = ("item_id", "category_1", "brand", "price")
        yield {n: _show(frame.columns[n][row]) for n in shown if n in frame.columns}


def _show(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _most_moved(reference: Array, current: Array, most: int = 5) -> list[int]:
    """Rows of ``current`` that have close neighbours there and none in ``reference``."""
    length = len(next(v for v in reference if v is not None))
    there, here = vectors(reference, length)[0], vectors(current, length)
    rows, positions = here
    if len(rows) <= NEIGHBOURS or len(there) <= NEIGHBOURS:
        return []
    far = cKDTree(there).query(rows, NEIGHBOURS)[0][:, -1]
    near = cKDTree(rows).query(rows, NEIGHBOURS + 1)[0][:, -1]
    return [int(row) for row in positions[np.argsort(near - far)[:most]]]


def _changed_shares(reference: Reference, frames: dict[str, Frame]) -> Iterable[ValueShare]:
    shares = []
    for metric in reference.manifest.metrics:
        if metric.table not in frames:
            continue
        if metric.statistic == "null-share":
            there, here = (
                float(metric.encode(frame[metric.table])[0].mean())
                for frame in (reference.frames, frames)
            )
            name = f"{metric.column} in {metric.table}"
            shares.append(ValueShare(column=name, value="(missing)", before=there, now=here))
        if metric.statistic != "jensenshannon":
            continue
        before = _shares(reference.frames[metric.table].column(metric.column))
        now = _shares(frames[metric.table].column(metric.column))
        if not now:
            continue
        where = "recommended" if metric.table == "answers" else f"in {metric.table}"
        shares += [
            ValueShare(
                column=f"{metric.column} {where}",
                value=value,
                before=before.get(value, 0.0),
                now=now.get(value, 0.0),
            )
            for value in before.keys() | now.keys()
        ]
    return sorted(shares, key=lambda s: (-abs(s.now - s.before), s.column, s.value))[:10]


def _shares(cells: Array) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for cell in cells:
        values = cell if isinstance(cell, list | tuple | np.ndarray) else (cell,)
        present = np.array([*values, None], dtype=object)[:-1]
        counts.update(str(v) for v in present[~is_missing(present)])
    total = sum(counts.values())
    return {value: count / total for value, count in counts.items()}
