"""A day that is an earlier day again, with other dates."""

from collections.abc import Iterator

import numpy as np

from monitoring import tables
from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.feed import Feed, content_columns, mark_rows
from monitoring.faults.known import TIME_COLUMNS

UNIT = "share of the rows that an earlier day had at the same time of the day"
RUNBOOK = Advice(
    "The rows of this window are those of an earlier day with today's dates.",
    "Ask the owner of the feed which file was sent. What happened on these days is not known: "
    "keep them out of training, and measure them again when they are sent.",
)
TABLES = ("items", "events")
_LEAST = 0.2


def find(feed: Feed) -> Iterator[Sign]:
    """The largest share of the window's busiest hour that an earlier day had too."""
    if feed.no_hours:
        yield leave_unchecked(f"{feed.no_hours}: whether an earlier day comes again is not checked")
        return
    n = len(feed)
    if n < feed.settings.minimum_rows:
        yield Sign("", why=f"{n} rows, {feed.settings.minimum_rows} are needed", n_current=n)
        return
    hour = int(np.bincount(np.floor((feed.times % 1.0) * 24).astype(np.int64)).argmax())
    marks = feed.marks
    here = np.floor((marks.times % 1.0) * 24) == hour
    own = np.unique(marks.by_time_of_day[here])
    if len(own) < feed.settings.minimum_rows // 4:
        yield Sign("", why=f"{len(own)} rows in the busiest hour are too few", n_current=n)
        return
    first = np.floor(feed.start)
    spans = [
        (first - back + hour / 24, first - back + (hour + 1) / 24)
        for back in range(1, feed.settings.replay_days + 1)
    ]
    names = [*content_columns(feed.name, feed.schema.names), TIME_COLUMNS[feed.name]]
    rows = feed.read_beside(list(dict.fromkeys(names)), spans)
    times = tables.to_days(rows[TIME_COLUMNS[feed.name]])
    before = mark_rows(feed.name, rows, times, marks.one_in)
    hashes, day = before.by_time_of_day, np.floor(before.times)
    shares = {
        int(back): float(np.isin(own, hashes[day == first - back]).mean())
        for back in range(1, feed.settings.replay_days + 1)
    }
    back, value = max(shares.items(), key=lambda each: each[1])
    yield Sign(
        "",
        value,
        _LEAST,
        f"{value:.0%} of the {feed.name} between {hour}:00 and {hour + 1}:00 are those of "
        f"{back} days before, at the same time of the day: an old file was sent again",
        n_reference=len(hashes),
        n_current=int(here.sum()),
    )
