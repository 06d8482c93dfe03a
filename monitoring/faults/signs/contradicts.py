"""A value that cannot go with another one of its row, such as a men's shirt among women's things.

Where one column determines another, as a category determines the one above it, no change of the
market breaks that: new supply brings new values, or more of the old ones. A default that fills a
part of a column does, and so do values on the wrong rows.
"""

from collections.abc import Iterator

import numpy as np

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, choose_clearest
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed, code_as_known, code_known
from monitoring.faults.known import KnownFeed

UNIT = "difference of the shares of rows whose value does not go with another column's"
RUNBOOK = Advice(
    "Values of a column do not go with others of their rows, which they always did: a default "
    "fills a part of the column, or the values of some rows are those of others.",
    "Compare some of these rows with the pages of their listings, and ask the owner of the feed "
    "what was released on the day it began.",
)
TABLES = ("items",)
_LEAST = 0.02
_DETERMINED = 0.99
_FEWEST = 5
_VARIED = 0.9
"""A column that nearly always has one value is determined by every other."""


def find(feed: Feed) -> Iterator[Sign]:
    """For each column that another one determines, how many rows it is not so in."""
    columns = feed.columns("category")
    for column in columns:
        signs = [
            sign
            for other in columns
            if other != column
            for sign in [_compare(feed, column, other)]
            if sign is not None
        ]
        measured = [sign for sign in signs if sign.value is not None]
        if signs:
            yield choose_clearest(measured or signs)


def _compare(feed: Feed, column: str, other: str) -> Sign | None:
    """None where the other column never determined this one."""
    expected, broken0, n0 = feed.known.once(_learn_rule, column, other)
    if not n0:
        return None
    value, by = (code_as_known(feed.known, feed.rows, each) for each in (column, other))
    known = (value >= 0) & (by >= 0)
    value, by = value[known], by[known]
    ruled = expected[by] >= 0
    value, by = value[ruled], by[ruled]
    wrong = value != expected[by]
    k, left = int(wrong.sum()), len(value)
    if k:  # one value may have been given another meaning: the one with the most is left out
        rows, hits = np.bincount(by), np.bincount(by, wrong)
        most = int(hits.argmax())
        k, left = int(hits.sum() - hits[most]), left - int(rows[most])
    least = feed.settings.minimum_rows
    if left < least:
        why = f"{left} rows of known values, {least} are needed"
        return Sign(column, why=why, n_reference=n0, n_current=left)
    share, chance, p = compare_shares(k, left, broken0, n0, feed.settings.rate)
    detail = (
        f"{column} of {k / left:.0%} of the new rows does not go with their {other}, before of "
        f"{broken0 / n0:.1%}"
    )
    return Sign(column, max(share, 0.0), max(_LEAST, chance), detail, p, n0, left)


def _learn_rule(known: KnownFeed, column: str, other: str) -> tuple[np.ndarray, int, int]:
    """[values of other] the value of the column that it goes with, -1 where that is not known.

    Returns:
        The rule, the rows that break it, and all rows that it is about; 0 where there is no rule.
    """
    value, by = (known.once(code_known, each) for each in (column, other))
    there = (value >= 0) & (by >= 0)
    height, width = (len(known.vocabulary(each)) for each in (other, column))
    table = np.zeros((height, width))
    np.add.at(table, (by[there], value[there]), 1.0)
    rows = table.sum(axis=1)
    often = rows >= _FEWEST
    n, held = int(rows[often].sum()), float(table[often].max(axis=1, initial=0.0).sum())
    varied = table[often].sum(axis=0)
    is_rule = often.sum() > 1 and n and held >= _DETERMINED * n
    if not is_rule or varied.max() > _VARIED * n:
        return np.full(height, -1), 0, 0
    return np.where(often, table.argmax(axis=1), -1), int(n - held), n
