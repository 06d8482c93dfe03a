"""Rows whose time is yet to come."""

from collections.abc import Iterator

import numpy as np

from monitoring import tables
from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.feed import Feed
from monitoring.faults.known import TIME_COLUMNS

UNIT = "rows of the future, as a share of a window's rows"
RUNBOOK = Advice(
    "Rows have times that are yet to come: clocks of some devices are wrong, or a date is read in "
    "the wrong order.",
    "Find the source of these rows and take the server's time instead. They count on no day, and "
    "a training that cuts by time would put them after its test window.",
)
TABLES = ("items", "events")
_LATER = 2.0
"""Days after the last window from which a row is of the future; an export may be a day late."""
_LEAST = 0.005


def find(feed: Feed) -> Iterator[Sign]:
    """Rows far after the last window; only the newest window can tell."""
    if not feed.is_timed:
        yield leave_unchecked(f"{feed.no_days}: whether times are yet to come is not checked")
        return
    if not feed.is_last:
        return
    time = TIME_COLUMNS[feed.name]
    after = feed.start + feed.days
    rows = feed.read_beside([time], [(after + _LATER, after + 36_500.0)])
    n = len(feed)
    if n < feed.settings.minimum_rows and not rows.num_rows:
        yield Sign("", why=f"{n} rows, {feed.settings.minimum_rows} are needed", n_current=n)
        return
    value = rows.num_rows / max(n, 1)
    detail = ""
    if rows.num_rows:
        apart = float(np.median(tables.to_days(rows[time])) - after)
        detail = f"{rows.num_rows} {feed.name} lie in the future, most of them {apart:.0f} days"
    yield Sign("", value, _LEAST, detail, n_current=n)
