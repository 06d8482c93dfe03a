"""Events that name an answer which another person got."""

from collections.abc import Iterator

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.answered import REQUEST, read_answered
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed

UNIT = "share of the events with a request id whose answer went to another person"
RUNBOOK = Advice(
    "Events name answers that other people got: request ids, or people's ids, were mixed up on "
    "their way, or a cache hands one person's answer to another.",
    "Ask the owner of the events how they are joined to requests, and whether people's ids were "
    "given anew. Live quality and what people choose cannot be trusted until it is mended.",
)
TABLES = ("events",)
_LEAST = 0.05
_MOST = 0.5
_BETWEEN_DAYS = 0.01
_NAMED = "whether events name answers to the same person is not checked"


def find(feed: Feed) -> Iterator[Sign]:
    """How many more events name an answer to another person than on the days before."""
    found = read_answered(feed)
    if isinstance(found, str):
        yield leave_unchecked(f"{found}: {_NAMED}", REQUEST)
        return
    n, n0, least = len(found.foreign), len(found.foreign_before), feed.settings.minimum_rows
    if n < least:
        why = f"{n} events name an answer, and {least} are needed"
        yield leave_unchecked(f"{why}: {_NAMED}", REQUEST)
        return
    k, k0 = int(found.foreign.sum()), int(found.foreign_before.sum())
    _, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate, _BETWEEN_DAYS)
    # The days before may be broken too, but never is most of what people do another's.
    limit = min(k0 / max(n0, 1) + max(_LEAST, chance), _MOST)
    detail = (
        f"{k / n:.0%} of the events with a {REQUEST} name an answer that another person got, on "
        f"the days before {k0 / max(n0, 1):.1%}"
    )
    yield Sign(REQUEST, k / n, limit, detail, p, n0, n)
