"""Evidence of an alert: queries and listings that moved most, shares that changed, pictures."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from monitoring.calibration import CalibratedMetric
from monitoring.example_listings import describe_items, find_examples
from monitoring.frame import Frame, read_vectors, require_vector_length, to_dense
from monitoring.panel import rank_panel, show_panel
from monitoring.reference import Reference
from monitoring.review.charts import draw_metric
from monitoring.review.evidence import (
    AlertEvidence,
    MetricEvidence,
    PanelQuery,
    ValueListings,
    ValueShare,
)
from monitoring.review.maps import collect_maps
from monitoring.settings import MeasureSettings
from monitoring.tables import stratify
from monitoring.windows import MonitoredData, WindowReader
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
    rows = WindowReader(settings, reference, data).read(window, is_last=True)
    frames = {
        name: frame.take(np.sort(stratify(frame.day, settings.sample_rows, settings.seed)))
        for name, (frame, _) in rows.items()
        if frame is not None
    }
    found: dict[str, Any] = {}
    for name, find in (
        ("queries", _find_moved_queries),
        ("listings", _find_moved_listings),
        ("shares", _find_changed_shares),
        ("maps", collect_maps),
        ("panel", lambda reference, frames: _show_panel(settings, reference, data)),
        ("examples", lambda *_: find_examples(data, window, found.get("shares", ()))),
    ):
        try:
            found[name] = tuple(find(reference, frames))
        except Exception as error:
            log_message(f"no examples of {name}: {type(error).__name__}: {error}")
    try:
        found["items"] = describe_items(data, _name_items(found))
    except Exception as error:
        log_message(f"no columns of the items: {type(error).__name__}: {error}")
    names = {result.name for result in results}
    metrics = dict(_describe_metrics(reference, frames, names))
    return AlertEvidence(window=window, metrics=metrics, **found)


def _name_items(found: Mapping[str, Any]) -> list[str]:
    """Ids of the items that the evidence names without saying more about them."""
    panel: Sequence[PanelQuery] = found.get("panel", ())
    examples: Sequence[ValueListings] = found.get("examples", ())
    listed = [item for each in panel for item in (*each.before, *each.after)]
    return [*listed, *(item for each in examples for item in each.item_ids)]


def _show_panel(
    settings: MeasureSettings, reference: Reference, data: MonitoredData
) -> list[PanelQuery]:
    found = rank_panel(settings, reference, data)
    return [] if isinstance(found, str) or not found.change else show_panel(found)


def _describe_metrics(
    reference: Reference, frames: Mapping[str, Frame], names: set[str]
) -> Iterator[tuple[str, MetricEvidence]]:
    for calibrated in reference.metrics:
        name = calibrated.entry.name
        if name not in names:
            continue
        picture = caption = ""
        try:
            metric = calibrated.load()
            meaning, action = metric.advise(calibrated.entry.subject)
        except Exception as error:
            log_message(f"no runbook of {name}: {type(error).__name__}: {error}")
            continue
        try:
            if metric.draw is not None and calibrated.entry.table in frames:
                picture, caption = _draw(calibrated, reference, frames)
        except Exception as error:
            log_message(f"no picture of {name}: {type(error).__name__}: {error}")
        evidence = MetricEvidence(
            unit=metric.unit, meaning=meaning, action=action, picture=picture, caption=caption
        )
        yield name, evidence


def _draw(
    calibrated: CalibratedMetric, reference: Reference, frames: Mapping[str, Frame]
) -> tuple[str, str]:
    table = calibrated.entry.table
    there, here = (
        to_dense(calibrated.encode(side[table])[0]) for side in (reference.frames, frames)
    )
    if not len(here):
        return "", ""
    name = calibrated.entry.name
    return draw_metric(calibrated.load(), there, here, calibrated.parameters, name)


def _find_moved_queries(
    reference: Reference, frames: Mapping[str, Frame]
) -> Iterable[dict[str, str]]:
    frame = frames["answers"]
    rows = frame.take(_find_most_moved(reference.frames["answers"], frame, "query_embedding"))
    for answer in rows.table.to_pylist():
        counts = Counter(value for value in answer.get("category_1") or () if value)
        most = ", ".join(f"{value} {n}×" for value, n in counts.most_common(3))
        yield {
            "request": str(answer["request_id"]),
            "user": str(answer["user_id"] or "(new)"),
            "context": str(answer["context"]),
            "recommended": most or ", ".join(answer["item_ids"][:3]),
        }


def _find_moved_listings(
    reference: Reference, frames: Mapping[str, Frame]
) -> Iterable[dict[str, str]]:
    if "listings" not in frames:
        return
    frame = frames["listings"]
    rows = frame.take(_find_most_moved(reference.frames["listings"], frame, "embedding"))
    for listing in rows.table.drop_columns(["embedding"]).to_pylist():
        yield {name: _format(value) for name, value in listing.items()}


def _format(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _find_most_moved(
    reference: Frame, current: Frame, column: str, most: int = 5
) -> NDArray[np.int64]:
    """Rows of ``current`` that have close neighbours there and none in ``reference``."""
    length = require_vector_length(reference, column)
    there, _ = read_vectors(reference.column(column), length)
    rows, positions = read_vectors(current.column(column), length)
    if len(rows) <= NEIGHBOURS or len(there) <= NEIGHBOURS:
        return np.empty(0, dtype=np.int64)
    far = cKDTree(there).query(rows, NEIGHBOURS)[0][:, -1]
    near = cKDTree(rows).query(rows, NEIGHBOURS + 1)[0][:, -1]
    found: NDArray[np.int64] = positions[np.argsort(near - far)[:most]]
    return found


def _find_changed_shares(reference: Reference, frames: Mapping[str, Frame]) -> Iterable[ValueShare]:
    shares = []
    for calibrated in reference.metrics:
        table = calibrated.entry.table
        if table not in frames:
            continue
        before, now = (_list_shares(calibrated, side[table]) for side in (reference.frames, frames))
        if not now:
            continue
        where = "recommended" if table == "answers" else f"in {table}"
        shares += [
            ValueShare(
                column=f"{calibrated.entry.column} {where}",
                value=value,
                before=before.get(value, 0.0),
                now=now.get(value, 0.0),
                source="" if table == "events" else calibrated.entry.column,
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
        shares = list_shares(frame, calibrated.entry.column, calibrated.parameters)
        return {value: share for value, share in shares.items() if math.isfinite(share)}
    except Exception as error:
        log_message(f"no shares of {calibrated.entry.name}: {type(error).__name__}: {error}")
        return {}
