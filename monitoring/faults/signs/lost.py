"""A part of a feed that is not there, while what goes with it is.

People act on listings that the items feed does not have, or like and buy what the events do not
show them looking at.
"""

from collections.abc import Iterator

import numpy as np

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed
from monitoring.faults.joined import read_chosen, read_listed

UNIT = "difference of the shares of events that lack what goes with them"
RUNBOOK = Advice(
    "People act on listings that the items feed does not have, or choose what the events do not "
    "show them looking at: a part of the feed is lost.",
    "Ask the owner of the feed which rows it leaves out, beginning with those that the events "
    "name. Unknown listings cannot be recommended, and lost events look like a fall of all rates.",
)
TABLES = ("events",)
_LEAST = 0.02
_USUALLY_VIEWED = 0.5
_BETWEEN_DAYS = 0.01
_VIEWS = "whether events are lost is not checked"
_LISTINGS = "whether the items have all listings that the events are on is not checked"


def find(feed: Feed) -> Iterator[Sign]:
    """How many more events lack their listing, or the view before them, than on earlier days."""
    yield from _find_lost_listings(feed)
    yield from _find_lost_views(feed)


def _find_lost_views(feed: Feed) -> Iterator[Sign]:
    found = read_chosen(feed)
    if isinstance(found, str):
        yield leave_unchecked(f"{found}: {_VIEWS}")
        return
    n, n0, least = len(found.viewed), len(found.viewed_before), feed.settings.minimum_rows
    k, k0 = int((~found.viewed).sum()), int((~found.viewed_before).sum())
    if min(n, n0) < least:
        why = f"{n} likes and purchases, {n0} on the days before, and {least} are needed"
        yield leave_unchecked(f"{why}: {_VIEWS}")
        return
    if k0 > _USUALLY_VIEWED * n0:
        yield leave_unchecked(f"most of what people choose here has no view before it: {_VIEWS}")
        return
    share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate, _BETWEEN_DAYS)
    detail = (
        f"{k / n:.0%} of what people liked or bought has no view by them before, on the days "
        f"before {k0 / n0:.1%}: a part of the events is lost"
    )
    yield Sign("", max(share, 0.0), max(_LEAST, chance), detail, p, n0, n)


def _find_lost_listings(feed: Feed) -> Iterator[Sign]:
    joined = read_listed(feed)
    if isinstance(joined, str):
        yield leave_unchecked(f"{joined}: {_LISTINGS}", table="items")
        return
    n, n0, least = len(joined.now), len(joined.before), feed.settings.minimum_rows
    if min(n, n0) < least:
        why = f"{n} events, {n0} on the days before, and {least} are needed"
        yield leave_unchecked(f"{why}: {_LISTINGS}", table="items")
        return
    k, k0 = (int(np.isnan(listed).sum()) for listed in (joined.listed_now, joined.listed_before))
    share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate)
    detail = (
        f"{k / n:.0%} of the events are on listings that the items feed does not have, on the days "
        f"before {k0 / n0:.1%}: a part of the items is lost"
    )
    yield Sign("", max(share, 0.0), max(_LEAST, chance), detail, p, n0, n, table="items")
