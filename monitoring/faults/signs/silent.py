"""Hours without a row at times of the day when there have always been rows."""

from collections.abc import Iterator

import numpy as np

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.feed import Feed
from monitoring.faults.known import SLOTS, KnownFeed

UNIT = "share of a day's rows that are expected in the longest silence"
RUNBOOK = Advice(
    "For hours there is no row, at a time of the day that has always had rows.",
    "Find out whether the rows of these hours are late or lost. Late ones come with a later "
    "export: measure the day again. Lost ones leave a gap that training should not see.",
)
TABLES = ("items", "events")
_SHORTEST = 1.0 / 24.0
_EXPECTED = 30.0
"""Rows that a silence must have had by the others of its day: exp(-30) is no chance."""
_SHARE = 0.05


def find(feed: Feed) -> Iterator[Sign]:
    """The longest silence, by the rows that are expected in it."""
    profile, n = feed.known.profile, len(feed)
    if feed.no_hours:
        yield leave_unchecked(f"{feed.no_hours}: whether hours are without rows is not checked")
        return
    if n < feed.settings.minimum_rows:
        yield Sign("", why=f"{n} rows, {feed.settings.minimum_rows} are needed", n_current=n)
        return
    times = np.sort(feed.times[np.isfinite(feed.times)])
    edges = np.concatenate([[feed.start], times, [feed.start + feed.days]])
    shares = np.diff(_cumulate(profile / profile.sum(), edges))
    shares[np.diff(edges) < _SHORTEST] = 0.0
    longest = int(shares.argmax())
    share = float(shares[longest])
    rows_a_day = n / max(feed.days - share, 1e-3)
    usual = feed.known.once(_find_usual)
    threshold = max(_SHARE, _EXPECTED / rows_a_day, 2.0 * usual)
    low, high = edges[longest], edges[longest + 1]
    detail = (
        f"there are no {feed.name} from {_hour(low)} to {_hour(high)}, when {share:.0%} of a day's "
        f"are expected"
    )
    yield Sign("", share, threshold, detail, n_reference=int(profile.sum()), n_current=n)


def _cumulate(profile: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Share of a day's rows that come before each time, whole days counted as 1."""
    total = np.concatenate([[0.0], np.cumsum(profile)])
    whole = np.floor(times)
    return whole + np.interp((times - whole) * SLOTS, np.arange(SLOTS + 1), total)


def _find_usual(known: KnownFeed) -> float:
    """The largest share of a day that is expected in silent slots of a reference day."""
    counts, longest = known.counts, 0.0
    share = known.profile / known.profile.sum()
    for day in counts[counts.sum(axis=1) > 0]:
        run = np.where(day > 0, 0.0, share)
        ends = np.flatnonzero(day > 0)
        longest = max(longest, *(float(part.sum()) for part in np.split(run, ends)))
    return longest


def _hour(day: float) -> str:
    minutes = round((day % 1.0) * 1440)
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"
