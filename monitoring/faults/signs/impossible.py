"""Numbers below zero, or zeros, in a column that has none."""

from collections.abc import Iterator

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed
from monitoring.frame import read_numbers

UNIT = "difference of the shares of numbers that cannot be"
RUNBOOK = Advice(
    "Numbers are negative or zero in a column that had none: they overflow, or stand for nothing.",
    "Ask the owner of the feed how the number is stored: 16 bits hold no price above 32.767 in "
    "thousandths, and 32 bits wrap around as well.",
)
TABLES = ("items", "events")
_LEAST = 0.002
_NONE = 0.001


def find(feed: Feed) -> Iterator[Sign]:
    """How much larger the share of such numbers is than it was."""
    for column in feed.columns("number"):
        if column not in feed.rows.names:
            continue
        before, now = (f.once(read_numbers, column)[0] for f in (feed.known.rows, feed.rows))
        n, n0 = len(now), len(before)
        if n < feed.settings.minimum_rows:
            why = f"{n} numbers, {feed.settings.minimum_rows} are needed"
            yield Sign(column, why=why, n_reference=n0, n_current=n)
            continue
        zeros = float((before == 0).mean())
        kind = "negative" if zeros > _NONE else "negative or zero"
        k, k0 = (int((x < 0 if zeros > _NONE else x <= 0).sum()) for x in (now, before))
        share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate, k0 / max(n0, 1))
        detail = f"{k} of {n} values of {column} are {kind}, before {k0} of {n0}"
        yield Sign(column, max(share, 0.0), max(_LEAST, chance), detail, p, n0, n)
