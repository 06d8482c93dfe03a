"""Listings that people act on, but that the items feed does not have."""

from collections.abc import Iterator

import numpy as np

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed
from monitoring.faults.joined import read_listed

UNIT = "difference of the shares of events on unknown listings"
RUNBOOK = Advice(
    "People act on listings that the items feed does not have: a part of it is lost.",
    "Ask the owner of the items feed which listings it leaves out, beginning with those that the "
    "events name. They cannot be recommended, and training does not know what they are.",
)
TABLES = ("events",)
_LEAST = 0.02


def find(feed: Feed) -> Iterator[Sign]:
    """How many more events are on unknown listings than on the days before."""
    joined = read_listed(feed)
    if joined is None:
        return
    n, n0 = len(joined.now), len(joined.before)
    if n < feed.settings.minimum_rows or n0 < feed.settings.minimum_rows:
        return
    k, k0 = (int(np.isnan(listed).sum()) for listed in (joined.listed_now, joined.listed_before))
    share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate)
    detail = (
        f"{k / n:.0%} of the events are on listings that the items feed does not have, on the days "
        f"before {k0 / n0:.1%}: a part of the items is lost"
    )
    yield Sign("", max(share, 0.0), max(_LEAST, chance), detail, p, n0, n, table="items")
