"""Events on listings that were not yet there."""

from collections.abc import Iterator

import numpy as np

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed
from monitoring.faults.joined import read_listed

UNIT = "difference of the shares of events before their listing"
RUNBOOK = Advice(
    "People act on listings before these are listed: the clock of events or of items is off.",
    "Compare the times of one event and its listing in both systems, and correct the one that is "
    "wrong. Until then histories and outcomes are not in order.",
)
TABLES = ("events",)
_LEAST = 0.003
_MINUTE = 1.0 / 1440.0


def find(feed: Feed) -> Iterator[Sign]:
    """How many more events come before their listing than on the days before."""
    joined = read_listed(feed)
    if isinstance(joined, str):
        why = f"{joined}: whether events come before their listing is not checked"
        yield leave_unchecked(why)
        return
    k, n = _count(joined.now, joined.listed_now)
    k0, n0 = _count(joined.before, joined.listed_before)
    if n < feed.settings.minimum_rows:
        yield Sign("", why=f"{n} events on known listings are too few", n_current=n)
        return
    share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate)
    detail = f"{k / n:.1%} of the events come before their listing was listed, before {k0} of {n0}"
    yield Sign("", max(share, 0.0), max(_LEAST, chance), detail, p, n0, n)


def _count(times: np.ndarray, listed: np.ndarray) -> tuple[int, int]:
    known = np.isfinite(listed)
    return int((times[known] < listed[known] - _MINUTE).sum()), int(known.sum())
