"""A column that holds the values of another one."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed
from monitoring.faults.known import KnownFeed
from monitoring.frame import Frame

UNIT = "share of the rows whose value belongs to another column"
RUNBOOK = Advice(
    "A column holds values of another column: two have changed places, or all have moved by one.",
    "Ask the owner of the feed for the order of the columns in the export. Rows of these days "
    "carry wrong values in both columns.",
)
TABLES = ("items", "events")
_LEAST = 0.02


def find(feed: Feed) -> Iterator[Sign]:
    """For each text column, the other one whose values it holds most."""
    columns = feed.columns("category", "text")
    held = {name: feed.known.once(_list_values, name) for name in columns}
    sources = [name for name in feed.columns("category") if len(held[name]) > 1]
    for column in columns:
        others = [name for name in sources if name != column]
        n, n0 = len(feed.rows), len(feed.known.rows)
        if not others:
            continue
        if n < feed.settings.minimum_rows:
            why = f"{n} rows, {feed.settings.minimum_rows} are needed"
            yield Sign(column, why=why, n_reference=n0, n_current=n)
            continue
        found = {
            other: (
                _count_foreign(feed.rows, column, held[column], held[other]),
                feed.known.once(_count_foreign_before, column, other),
            )
            for other in others
        }
        other, (k, k0) = max(found.items(), key=lambda each: each[1][0] - each[1][1] * n / n0)
        share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate)
        detail = f"{k / n:.0%} of the new rows have a {other} in {column}"
        yield Sign(column, max(share, 0.0), max(_LEAST, chance), detail, p, n0, n)


def _list_values(known: KnownFeed, column: str) -> pa.Array:
    return pa.array(list(known.vocabulary(column)), pa.string())


def _count_foreign_before(known: KnownFeed, column: str, other: str) -> int:
    own, foreign = (known.once(_list_values, name) for name in (column, other))
    return _count_foreign(known.rows, column, own, foreign)


def _count_foreign(rows: Frame, column: str, own: pa.Array, other: pa.Array) -> int:
    """Rows whose value is one of another column, and none of its own."""
    if column not in rows.names or not pa.types.is_string(rows.column(column).type):
        return 0
    cells = rows.column(column)
    few = len(own) <= len(cells) // 2  # of free text the own values are not known
    foreign = pc.is_in(cells, value_set=other)
    if few:
        foreign = pc.and_not(foreign, pc.is_in(cells, value_set=own))
    return int(np.count_nonzero(foreign.to_numpy(zero_copy_only=False)))
