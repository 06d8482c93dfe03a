"""Known listings whose values are others now, in the whole table."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, leave_unchecked
from monitoring.faults.feed import Feed
from monitoring.frame import combine

UNIT = "share of known listings whose value is another now"
RUNBOOK = Advice(
    "Listings that were known for long have other values now: the whole table was written anew, "
    "in another unit, spelling or order, or ids were given to other listings.",
    "Compare an export of today with one of before. Every row is in doubt, not only new ones: "
    "train on nothing of this table until it is mended.",
)
TABLES = ("items",)
_EDITED = {"number": 0.5, "text": 0.5, "category": 0.2, "id": 0.05}
"""Shares that sellers' own edits do not reach, by kind of column."""
_GIVEN_AGAIN = 0.05


def find(feed: Feed) -> Iterator[Sign]:
    """For each column, known listings that are still in the table, one by one."""
    if not feed.is_last:
        return
    if "item_id" not in feed.listings.names:
        yield leave_unchecked("the reference has no listings with an item_id to compare with")
        return
    yield _find_given_again(feed)
    before, now = feed.found_again
    n = len(before)
    for column in feed.columns(*_EDITED):
        if column == "item_id" or column not in before.names or column not in now.names:
            continue
        if n < feed.settings.minimum_pairs:
            why = f"{n} known listings are in the table, {feed.settings.minimum_pairs} are needed"
            yield Sign(column, why=why, n_reference=len(feed.listings), n_current=n)
            continue
        old, new = before.column(column), combine(now.column(column))
        changed = _find_changed(old, new)
        share = float(changed.mean())
        detail = f"{share:.0%} of {n} known listings have another {column} now: " + _describe(
            old.filter(pa.array(changed)), new.filter(pa.array(changed))
        )
        limit = _EDITED[feed.known.kinds[column]]
        yield Sign(column, share, limit, detail, None, n, n)


def _find_given_again(feed: Feed) -> Sign:
    """New rows with the id of a known listing that was another one."""
    n = len(feed.rows)
    if n < feed.settings.minimum_rows:
        return Sign("item_id", why=f"{n} rows, {feed.settings.minimum_rows} are needed")
    row = pc.index_in(feed.rows.column("item_id"), value_set=feed.listings.column("item_id"))
    again = np.flatnonzero(pc.is_valid(row).to_numpy(zero_copy_only=False))
    new, old = feed.rows.take(again), feed.listings.take(row.take(pa.array(again)).to_numpy())
    other = np.zeros(len(again), dtype=bool)
    for column in ("seller_id", "title"):
        if column in new.names and column in old.names:
            other |= _find_changed(old.column(column), new.column(column))
    share = float(other.sum()) / n
    detail = (
        f"{share:.0%} of the new rows have the id of a known listing of another seller or title"
    )
    return Sign("item_id", share, _GIVEN_AGAIN, detail, None, len(feed.listings), n)


def _find_changed(old: pa.Array, new: pa.Array) -> np.ndarray:
    if old.type != new.type:
        old, new = (pc.cast(cells, pa.string()) for cells in (old, new))
    same = pc.fill_null(pc.equal(old, new), False)
    neither = pc.and_(pc.is_null(old), pc.is_null(new))
    return ~np.asarray(pc.or_(same, neither).to_numpy(zero_copy_only=False), dtype=bool)


def _describe(old: pa.Array, new: pa.Array) -> str:
    if not len(old):
        return "none"
    if new.null_count > 0.8 * len(new):
        return "it is missing"
    if pa.types.is_floating(old.type) or pa.types.is_integer(old.type):
        ratio = pc.divide(pc.cast(new, pa.float64()), pc.cast(old, pa.float64()))
        ratios = pc.drop_null(ratio).to_numpy(zero_copy_only=False)
        middle = float(np.median(ratios)) if len(ratios) else np.nan
        alike = np.abs(ratios / middle - 1) < 0.02 if middle else np.zeros(1, dtype=bool)
        return f"{middle:.3g} times as much" if alike.mean() > 0.8 else "in no common way"
    return f"{old[0].as_py()!r} became {new[0].as_py()!r}"
