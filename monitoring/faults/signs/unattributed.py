"""Events that should name the answer that they follow from, and do not."""

from collections.abc import Iterator

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
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


def find(feed: Feed) -> Iterator[Sign]:
    """How many fewer events name their answer than on the days before."""
    found = read_answered(feed)
    if found is None:
        return
    n, n0 = len(found.named), len(found.named_before)
    if min(n, n0) < feed.settings.minimum_rows or not found.named_before.any():
        return
    k, k0 = int((~found.named).sum()), int((~found.named_before).sum())
    rate = feed.settings.rate
    difference, chance, p = compare_shares(k, n, k0, n0, rate, _BETWEEN_DAYS)
    detail = (
        f"{k / n:.0%} of the events on what an answer showed the same person a moment before do "
        f"not name it ({REQUEST}), before {k0 / n0:.0%}"
    )
    yield Sign(REQUEST, max(difference, 0.0), max(_LEAST, chance), detail, p, n0, n)
