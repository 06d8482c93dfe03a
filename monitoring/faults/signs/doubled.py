"""Rows that come twice, with the same ids or with new ones."""

from collections.abc import Iterator

import numpy as np

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.feed import Feed, content_columns
from monitoring.faults.hashing import hash_rows
from monitoring.faults.known import TIME_COLUMNS, KnownFeed

UNIT = "share of the rows that are another row again"
RUNBOOK = Advice(
    "Rows come twice: the same listing, or the same event, at the same moment.",
    "Find out whether an export ran twice or a consumer reads a message again. Every event counts "
    "twice in popularity and in training until the doubles are removed.",
)
TABLES = ("items", "events")
_LEAST = 0.1


def find(feed: Feed) -> Iterator[Sign]:
    """The share of rows with an equal one before them, ids left aside."""
    n = len(feed)
    if not feed.is_timed:
        yield leave_unchecked(f"{feed.no_days}: whether rows come twice is not checked")
        return
    if n < feed.settings.minimum_rows:
        yield Sign("", why=f"{n} rows, {feed.settings.minimum_rows} are needed", n_current=n)
        return
    value = feed.doubled
    usual = feed.known.once(_find_usual)
    yield Sign(
        "",
        value,
        max(_LEAST, min(3.0 * usual, 0.3)),
        f"{value:.0%} of the {feed.name} of this window are another row again, at the same moment",
        n_reference=len(feed.known.rows),
        n_current=n,
    )


def _find_usual(known: KnownFeed) -> float:
    rows, time = known.rows, TIME_COLUMNS[known.name]
    columns = [c for c in content_columns(known.name, rows.names) if c in rows.names]
    if not len(rows) or time not in rows.names:
        return 0.0
    found = hash_rows([rows.column(c) for c in [*columns, time]], len(rows))
    return 1.0 - len(np.unique(found)) / len(rows)
