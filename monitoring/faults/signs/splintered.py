"""Ids that come again less often, or more often, than they did: visits cut in pieces or joined."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.feed import Feed
from monitoring.faults.known import KnownFeed
from monitoring.frame import find_missing

UNIT = "logarithm of the factor by which ids repeat more or less often"
RUNBOOK = Advice(
    "Ids of visits or people repeat far less often than before, or far more: every event gets an "
    "id of its own, or many visits share one.",
    "Ask the owner of the events how the id is made now. Visits are what training and evaluation "
    "cut by, and histories are joined by people's ids.",
)
TABLES = ("events",)
_COLUMNS = ("session_id", "user_id")
_LEAST = 1.1
"""Logarithm of a factor of 3: twice as many events a visit may be a busy day."""
_DEVIATIONS = 5.0
_FEWEST_DAYS = 5
_FEWEST_ROWS = 50
_FEWEST_REPEATS = 5.0
_DRAWS = 5


def find(feed: Feed) -> Iterator[Sign]:
    """How often ids repeat among as many rows as a day of the reference has.

    The reference is a sample, in which ids repeat the less often the smaller it is. So as many of
    the window's rows are drawn.
    """
    for column in (c for c in _COLUMNS if c in feed.known.kinds and c in feed.rows.names):
        repeats, rows = feed.known.once(_learn_repeats, column)
        if len(repeats) < _FEWEST_DAYS or repeats.mean() * rows < _FEWEST_REPEATS:
            yield leave_unchecked(f"too few ids of {column} came again before", column)
            continue
        cells = feed.rows.column(column)
        cells = cells.filter(pa.array(~find_missing(cells)))
        if feed.days > 1.0 or len(cells) < rows:
            why = f"{rows} rows of a day at most are compared, and the window has {len(cells)}"
            yield leave_unchecked(f"{why} of {feed.days:g} days", column)
            continue
        random = np.random.default_rng(0)
        drawn = [random.permutation(len(cells))[:rows] for _ in range(_DRAWS)]
        now = float(np.mean([_share_repeats(cells, each) for each in drawn]))
        logs = np.log(np.maximum(repeats, 0.5 / rows))
        value = abs(float(np.log(max(now, 0.5 / rows)) - logs.mean()))
        chance = float(logs.std() + 1.0 / np.sqrt(repeats.mean() * rows * _DRAWS))
        times = "more" if now > repeats.mean() else "less"
        detail = (
            f"ids in {column} repeat {np.exp(value):.3g} times {times} often than before: among "
            f"{rows} rows {now:.1%} have an id that another one has, before {repeats.mean():.1%}"
        )
        limit = max(_LEAST, _DEVIATIONS * chance)
        yield Sign(column, value, limit, detail, None, len(feed.known.rows), len(cells))


def _learn_repeats(known: KnownFeed, column: str) -> tuple[np.ndarray, int]:
    """[days] the share of rows of a day whose id another row before them has, and rows a day."""
    there = ~find_missing(known.rows.column(column)) & np.isfinite(known.rows.day)
    day = np.floor(known.rows.day[there])
    places = np.flatnonzero(there)
    days, counts = np.unique(day, return_counts=True)
    rows = int(np.quantile(counts, 0.1)) if len(counts) else 0
    if rows < _FEWEST_ROWS:
        return np.empty(0), rows
    cells = known.rows.column(column)
    full = [each for each, count in zip(days, counts, strict=True) if count >= rows]
    random = np.random.default_rng(0)
    shares = [
        _share_repeats(cells, random.permutation(places[day == each])[:rows]) for each in full
    ]
    return np.array(shares), rows


def _share_repeats(cells: pa.Array, rows: np.ndarray) -> float:
    drawn = cells.take(pa.array(rows))
    return 1.0 - float(pc.count_distinct(drawn).as_py()) / max(len(drawn), 1)
