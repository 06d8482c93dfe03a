"""Collect what the cause of an alert depends on besides its results."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow.compute as pc

from monitoring import tables
from monitoring.choices import Choices
from monitoring.explain.context import ExplainContext
from monitoring.explain.moves import Moves
from monitoring.explain.volumes import count_volumes
from monitoring.explain.without import measure_without
from monitoring.reference import Reference
from monitoring.settings import MeasureSettings
from monitoring.summary import WindowSummary
from monitoring.windows import MonitoredData, WindowReader
from refit.drift import DriftResult, Window
from refit.progress import log_message


def collect_context(
    settings: MeasureSettings,
    reference: Reference,
    data: MonitoredData,
    results: Sequence[DriftResult],
    history: Sequence[WindowSummary] = (),
) -> ExplainContext:
    """Collect it from the data of the newest window and of the days before.

    What cannot be collected stays unknown, with a line in the log. Costs one to two seconds for
    50,000 events and 1,000 new listings: the choices of four weeks, the rows of every day, and the
    newest window encoded once more.

    Args:
        settings: As for ``measure``.
        reference: The reference of the towers in service.
        data: What was measured.
        results: Of the newest and earlier windows, the same as for ``explain``.
        history: Summaries of windows that were measured before, as for ``measure``.

    Raises:
        ValueError: There are no results.
    """
    moves = Moves.of(results)
    newest, version = moves.newest, reference.manifest.embedding_version
    period = Window(start=moves.began, end=newest.end)
    pooled = newest.end - settings.choice_windows * (newest.end - newest.start)
    since = min(moves.began, pooled)
    collectors: dict[str, Callable[[], Any]] = {
        "volumes": lambda: count_volumes(settings, data, period),
        "choices": lambda: tuple(
            Choices.read(settings, data, since, newest.end).compare(
                Window(start=since, end=newest.end), version
            )
        ),
        "without": lambda: _measure_without(settings, reference, data, moves, results, history),
        "champion_since": lambda: _find_champion(data, version),
        "index_age_days": lambda: _find_index_ages(data, newest.end)[0],
        "usual_index_age_days": lambda: _find_index_ages(data, newest.end)[1],
    }
    found = {"longest_index_age_days": settings.index_days}
    for name, collect in collectors.items():
        try:
            found[name] = collect()
        except Exception as error:
            log_message(f"not known of the alert: {name}: {type(error).__name__}: {error}")
    return ExplainContext(**found)


def _measure_without(
    settings: MeasureSettings,
    reference: Reference,
    data: MonitoredData,
    moves: Moves,
    results: Sequence[DriftResult],
    history: Sequence[WindowSummary],
) -> Any:
    rows = WindowReader(settings, reference, data).read(moves.newest, is_last=True)
    frames = {name: frame for name, (frame, _) in rows.items() if frame is not None}
    earlier = [summary for summary in history if summary.window.end <= moves.began]
    return measure_without(settings, reference, data, frames, moves.newest, results, earlier)


def _find_champion(data: MonitoredData, embedding_version: str) -> datetime | None:
    """When these towers gave their first answer."""
    log = tables.read_log(data.log, ("embedding_version", "time"))
    own = log.filter(pc.equal(log["embedding_version"], embedding_version))["time"]
    first: datetime | None = pc.min(own).as_py()
    return first


def _find_index_ages(data: MonitoredData, end: datetime) -> tuple[float | None, float | None]:
    """Age of the index that answered last, and the largest that an index before it reached."""
    window = Window(start=datetime.fromtimestamp(0, end.tzinfo), end=end)
    log = tables.read_log(data.log, ("bundle_id", "time"), window).sort_by("time")
    if not log.num_rows:
        return None, None
    ages = tables.find_index_ages(log, data.indexed)
    earlier = ages[np.asarray(pc.not_equal(log["bundle_id"], log["bundle_id"][-1]))]
    return float(ages[-1]), float(earlier.max()) if len(earlier) else None
