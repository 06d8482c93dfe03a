"""Evidence of an alert: queries and listings that moved most, shares that changed, pictures."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from monitoring.calibration import CalibratedMetric
from monitoring.frame import Array, Frame, count_values, read_vectors
from monitoring.measure import MonitoredData, read_window
from monitoring.reference import Reference
from monitoring.review.charts import draw_metric
from monitoring.review.evidence import AlertEvidence, MetricEvidence, ValueShare
from monitoring.settings import MeasureSettings
from refit.drift import DriftResult, Window
from refit.progress import log_message

NEIGHBOURS = 5


def collect_evidence(
    settings: MeasureSettings,
    reference: Reference,
    data: MonitoredData,
    window: Window,
    results: Sequence[DriftResult],
) -> AlertEvidence:
    """The evidence for an alert's results in the newest window.

    What cannot be collected is left out, with a line in the log.
    """
    rows = read_window(settings, reference, data, window, is_last=True)
    frames = {name: frame for name, (frame, _) in rows.items() if frame is not None}
    found: dict[str, Any] = {}
    for name, find in (
        ("queries", _find_moved_queries),
        ("listings", _find_moved_listings),
        ("shares", _find_changed_shares),
    ):
        try:
            found[name] = tuple(find(reference, frames))
        except Exception as error:
            log_message(f"no examples of {name}: {type(error).__name__}: {error}")
    names = {result.name for result in results}
    metrics = dict(_describe_metrics(reference, frames, names))
    return AlertEvidence(window=window, metrics=metrics, **found)


def _describe_metrics(
    reference: Reference, frames: Mapping[str, Frame], names: set[str]
) -> Iterator[tuple[str, MetricEvidence]]:
    for calibrated in reference.manifest.metrics:
        if calibrated.name not in names:
            continue
        picture = caption = ""
        try:
            metric = calibrated.load()
            meaning, action = metric.advise(calibrated.subject)
        except Exception as error:
            log_message(f"no runbook of {calibrated.name}: {type(error).__name__}: {error}")
            continue
        try:
            if metric.draw is not None and calibrated.table in frames:
                picture, caption = _draw(calibrated, reference, frames)
        except Exception as error:
            log_message(f"no picture of {calibrated.name}: {type(error).__name__}: {error}")
        evidence = MetricEvidence(
            unit=metric.unit, meaning=meaning, action=action, picture=picture, caption=caption
        )
        yield calibrated.name, evidence


def _draw(
    calibrated: CalibratedMetric, reference: Reference, frames: Mapping[str, Frame]
) -> tuple[str, str]:
    there, here = (
        calibrated.encode(side[calibrated.table])[0] for side in (reference.frames, frames)
    )
    if not len(here):
        return "", ""
    return draw_metric(calibrated.load(), there, here, calibrated.parameters, calibrated.name)


def _find_moved_queries(
    reference: Reference, frames: Mapping[str, Frame]
) -> Iterable[dict[str, str]]:
    frame = frames["answers"]
    there = reference.frames["answers"].column("query_embedding")
    for row in _find_most_moved(there, frame.column("query_embedding")):
        categories = frame.columns.get("category_1", np.full(len(frame), None))[row : row + 1]
        most = count_values(categories).most_common(3)
        yield {
            "request": str(frame.column("request_id")[row]),
            "user": str(frame.column("user_id")[row] or "(new)"),
            "context": str(frame.column("context")[row]),
            "recommended": ", ".join(f"{value} {n}×" for value, n in most)
            or ", ".join(frame.column("item_ids")[row][:3]),
        }


def _find_moved_listings(
    reference: Reference, frames: Mapping[str, Frame]
) -> Iterable[dict[str, str]]:
    if "listings" not in frames:
        return
    frame = frames["listings"]
    there = reference.frames["listings"].column("embedding")
    for row in _find_most_moved(there, frame.column("embedding")):
        yield {
            name: _format(cells[row])
            for name, cells in frame.columns.items()
            if name != "embedding"
        }


def _format(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _find_most_moved(reference: Array, current: Array, most: int = 5) -> list[int]:
    """Rows of ``current`` that have close neighbours there and none in ``reference``."""
    length = len(next(v for v in reference if v is not None))
    there, (rows, positions) = read_vectors(reference, length)[0], read_vectors(current, length)
    if len(rows) <= NEIGHBOURS or len(there) <= NEIGHBOURS:
        return []
    far = cKDTree(there).query(rows, NEIGHBOURS)[0][:, -1]
    near = cKDTree(rows).query(rows, NEIGHBOURS + 1)[0][:, -1]
    return [int(row) for row in positions[np.argsort(near - far)[:most]]]


def _find_changed_shares(reference: Reference, frames: Mapping[str, Frame]) -> Iterable[ValueShare]:
    shares = []
    for calibrated in reference.manifest.metrics:
        if calibrated.table not in frames:
            continue
        before, now = (
            _list_shares(calibrated, side[calibrated.table]) for side in (reference.frames, frames)
        )
        if not now:
            continue
        where = "recommended" if calibrated.table == "answers" else f"in {calibrated.table}"
        shares += [
            ValueShare(
                column=f"{calibrated.column} {where}",
                value=value,
                before=before.get(value, 0.0),
                now=now.get(value, 0.0),
            )
            for value in before.keys() | now.keys()
        ]
    return sorted(shares, key=lambda s: (-abs(s.now - s.before), s.column, s.value))[:10]


def _list_shares(calibrated: CalibratedMetric, frame: Frame) -> Mapping[str, float]:
    """A metric's shares by value; none where it lists none or cannot read the column.

    A share of no rows is not a number, and is left out.
    """
    try:
        list_shares = calibrated.load().list_shares
        if list_shares is None:
            return {}
        shares = list_shares(frame, calibrated.column, calibrated.parameters)
        return {value: share for value, share in shares.items() if math.isfinite(share)}
    except Exception as error:
        log_message(f"no shares of {calibrated.name}: {type(error).__name__}: {error}")
        return {}
