"""Events that should name the answer that they follow from, and do not."""

from collections.abc import Iterator

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.answered import REQUEST, read_answered
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed

UNIT = "difference of the shares of events that do not name their answer"
RUNBOOK = Advice(
    "People act on what an answer just showed them, and the events do not say so: the request id "
    "is lost on its way. Live quality seems to fall.",
    "Ask the owner of the events whether clients still send the request id, and what was released "
    "on the day it began. Do not roll back for the fall of the rates.",
)
TABLES = ("events",)
_LEAST = 0.05
_BETWEEN_DAYS = 0.02
_NAMED = "whether events name their answers is not checked"


def find(feed: Feed) -> Iterator[Sign]:
    """How many fewer events name their answer than on the days before."""
    found = read_answered(feed)
    if isinstance(found, str):
        yield leave_unchecked(f"{found}: {_NAMED}", REQUEST)
        return
    n, n0, least = len(found.named), len(found.named_before), feed.settings.minimum_rows
    if n >= least and not found.named.any() and not found.named_before.any():
        yield _compare_with_reference(feed, n)
        return
    if min(n, n0) < least:
        why = f"{n} events are on what an answer just showed, {n0} on the days before, and {least} "
        yield leave_unchecked(f"{why}are needed: {_NAMED}", REQUEST)
        return
    if not found.named_before.any():
        why = f"no event of the days before has a {REQUEST}"
        yield leave_unchecked(f"{why}: {_NAMED}", REQUEST)
        return
    k, k0 = int((~found.named).sum()), int((~found.named_before).sum())
    rate = feed.settings.rate
    difference, chance, p = compare_shares(k, n, k0, n0, rate, _BETWEEN_DAYS)
    detail = (
        f"{k / n:.0%} of the events on what an answer showed the same person a moment before do "
        f"not name it ({REQUEST}), before {k0 / n0:.0%}"
    )
    yield Sign(REQUEST, max(difference, 0.0), max(_LEAST, chance), detail, p, n0, n)


def _compare_with_reference(feed: Feed, n: int) -> Sign:
    """Where no event of some days names its answer: whether those of the reference did."""
    known = feed.known.rows
    before = known.column(REQUEST).drop_null() if REQUEST in known.names else ()
    if not len(before):
        return leave_unchecked(f"no event has a {REQUEST}: {_NAMED}", REQUEST)
    detail = (
        f"none of the {n} events on what an answer showed the same person a moment before names it "
        f"({REQUEST}), and none of the days before, though those of the reference do"
    )
    return Sign(REQUEST, 1.0, _LEAST, detail, None, len(known), n)
