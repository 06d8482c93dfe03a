"""Text that ends after a number of characters."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed
from monitoring.frame import Frame

UNIT = "difference of the shares of texts that are as long as the longest one"
RUNBOOK = Advice(
    "No text is longer than a limit, many are exactly as long, and before many were longer.",
    "Ask the owner of the feed which field became shorter. The words after the limit are lost to "
    "training and to search until the texts are sent again.",
)
TABLES = ("items", "events")
_LEAST = 0.1


def find(feed: Feed) -> Iterator[Sign]:
    """For each text column, how many texts end at the longest one's length."""
    for column in feed.columns("text", "category"):
        before, now = (rows.once(_read_lengths, column) for rows in (feed.known.rows, feed.rows))
        if not len(before) or np.median(before) < 4:
            continue
        n, n0 = len(now), len(before)
        if n < feed.settings.minimum_rows:
            why = f"{n} texts, {feed.settings.minimum_rows} are needed"
            yield Sign(column, why=why, n_reference=n0, n_current=n)
            continue
        # What is longer belongs to rows that the fault did not hit; they are few or none.
        limit = int(np.quantile(now, 0.999))
        k, k0 = int((now == limit).sum()), int((before == limit).sum())
        if feed.known.kinds[column] == "category" and _is_known(feed, column, limit):
            k = 0  # the longest of the values that are left
        share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate)
        longer = float((before > limit).mean())
        value = min(max(share, 0.0), longer)
        detail = (
            f"{k / n:.0%} of the new values of {column} end after {limit} characters and none is "
            f"longer, before {longer:.0%} were"
        )
        yield Sign(column, value, max(_LEAST, chance), detail, p, n0, n)


def _is_known(feed: Feed, column: str, length: int) -> bool:
    """Whether most values of that length are whole ones."""
    cells = feed.rows.column(column)
    ends = cells.filter(pc.fill_null(pc.equal(pc.utf8_length(cells), length), False))
    known = pa.array([v for v in feed.known.vocabulary(column) if len(v) == length], pa.string())
    return bool((pc.sum(pc.is_in(ends, value_set=known)).as_py() or 0) > 0.5 * len(ends))


def _read_lengths(rows: Frame, column: str) -> np.ndarray:
    cells = rows.column(column)
    if not pa.types.is_string(cells.type):
        return np.empty(0)
    return np.asarray(pc.drop_null(pc.utf8_length(cells)).to_numpy(zero_copy_only=False))
