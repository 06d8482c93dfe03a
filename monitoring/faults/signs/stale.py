"""A feed that is away: no rows, or hardly any, in a window that should have many."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.feed import Feed

UNIT = "share of the expected rows that are not there"
RUNBOOK = Advice(
    "The feed has no rows of these days, or hardly any, though every day has had them.",
    "Ask the owner of the feed why it is no longer written. Until it is back, listings and events "
    "of these days are unknown: an index is not fresh, and a refit would learn from what is left.",
)
TABLES = ("items", "events")
_MISSING, _QUIET = 0.9, 0.1
_FEWEST_ALIKE = 4
_DAYS_OF_WEEK = 7


def find(feed: Feed) -> Iterator[Sign]:
    """The share of the rows of a quiet window that are not there."""
    days = feed.known.counts.sum(axis=1)
    if feed.no_days:
        yield leave_unchecked(f"{feed.no_days}: whether rows stay away is not checked")
        return
    expected = float(np.quantile(count_windows(feed, days), _QUIET))
    if expected < feed.settings.minimum_rows:
        why = f"{expected:.0f} rows are expected, too few to notice that they are away"
        yield Sign("", why=why, n_reference=int(days.sum()), n_current=len(feed))
        return
    value = 1.0 - min(1.0, len(feed) / expected)
    there = f"no {feed.name}" if not len(feed) else f"only {len(feed)} {feed.name}"
    yield Sign(
        "",
        value,
        _MISSING,
        f"there are {there} of this window, and even a quiet one has {expected:.0f}: "
        "the feed is away",
        n_reference=int(days.sum()),
        n_current=len(feed),
    )


def count_windows(feed: Feed, days: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of as many days as the window has, wherever they begin.

    A shop may be closed on a day of the week: a shorter window is compared with the same weekdays,
    where these came often enough.
    """
    length = max(round(feed.days), 1)
    if length > len(days):
        return np.array([days.mean() * feed.days])
    rows = np.convolve(days, np.ones(length), "valid") * (feed.days / length)
    if length < _DAYS_OF_WEEK:
        begin = feed.known.days[: len(rows)]
        alike = rows[(begin - int(feed.start)) % _DAYS_OF_WEEK == 0]
        rows = alike if len(alike) >= _FEWEST_ALIKE else rows
    return rows
