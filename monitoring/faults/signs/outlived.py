"""Listings whose end does not fit what people do: sold and still there, or gone and viewed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from monitoring import tables
from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, choose_clearest, leave_unchecked
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed
from monitoring.frame import combine
from refit.contract import EventType

UNIT = "difference of the shares of events that do not fit the end of their listing"
RUNBOOK = Advice(
    "Listings that were bought are not delisted, or people act on listings that are gone by "
    "delisted_at. Where listings end as always, what the events call a purchase is none.",
    "Ask the owner of the items feed what sets delisted_at, or that of the events which of them "
    "are purchases. Without an end sold listings are recommended; where it is too early, what is "
    "on sale is not.",
)
TABLES = ("events",)
_COLUMN, _KIND = "delisted_at", "event_type"
_STILL, _GONE = 0.2, 0.03
_USUALLY = 0.8
"""Share of bought listings that are gone, where each is there once."""
_DAYS = 3.0
_LATE = 1.0
"""Days within which a feed may say that a listing is gone, and people look at it again."""
Flags = NDArray[np.bool_]
_ENDS = "whether listings end when they are bought is not checked"


@dataclass(frozen=True)
class _Ends:
    """Events beside the end of their listings, of those that the items feed has.

    Attributes:
        on_sale: [n] of purchases, whether the listing has no end within a day.
        after: [m] of all events, whether the listing had ended a day before.
    """

    on_sale: Flags
    after: Flags


def find(feed: Feed) -> Iterator[Sign]:
    """Bought listings that are still on sale a day later, and events long after the end.

    Both beside the events of the reference. Only the newest window can tell: the items are those
    of now.
    """
    if not feed.is_last:
        return
    found = _read(feed)
    if isinstance(found, str):
        yield leave_unchecked(f"{found}: {_ENDS}", _COLUMN, table="items")
        return
    now, before = found
    sold, gone = "of what was bought is still on sale a day later", "of what people act on is gone"
    on_sale = _compare(feed, now.on_sale, before.on_sale, _STILL, sold)
    after = _compare(feed, now.after, before.after, _GONE, gone)
    # Where listings end as before, it is not the listings that are wrong, but what was bought.
    is_items = not on_sale.is_found or not _end_as_before(feed)
    measured = [sign for sign in (on_sale, after) if sign.value is not None]
    ends = choose_clearest(measured or [on_sale]) if is_items else after
    bought = on_sale._replace(value=0.0) if is_items and on_sale.is_found else on_sale
    yield ends._replace(column=_COLUMN, table="items")
    yield bought._replace(column=_KIND)


def _end_as_before(feed: Feed) -> bool:
    """Whether listings ended in the last days as on the days before them."""
    ends = ds.dataset(str(feed.data.items)).to_table(columns=[_COLUMN])[_COLUMN]
    age = feed.start + feed.days - tables.to_days(ends)
    now = ((age >= 0) & (age < _DAYS)).sum()
    before = ((age >= _DAYS) & (age < 4 * _DAYS)).sum() / 3
    return bool(now > 0.5 * before)


def _compare(feed: Feed, now: Flags, before: Flags, limit: float, what: str) -> Sign:
    k, n, k0, n0 = int(now.sum()), len(now), int(before.sum()), len(before)
    least = feed.settings.minimum_rows
    if min(n, n0) < least:
        return leave_unchecked(f"{n} events, {n0} in the reference, {least} are needed: {_ENDS}")
    if k0 > (1.0 - _USUALLY) * n0:
        return leave_unchecked(f"{k0 / n0:.0%} {what} in the reference, too: {_ENDS}")
    share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate)
    detail = f"{k / n:.0%} {what} by delisted_at, before {k0 / n0:.0%}"
    return Sign("", max(share, 0.0), max(limit, chance), detail, p, n0, n)


def _read(feed: Feed) -> tuple[_Ends, _Ends] | str:
    """The events of some days up to the end of the window, and those of the reference."""
    names = ["item_id", "event_type", "event_time"]
    if lacking := [name for name in names if name not in feed.rows.names]:
        return f"no {' and no '.join(lacking)} column in {feed.name}"
    if feed.data.items is None or "items" in feed.data.unreadable:
        return "the items cannot be read"
    source = ds.dataset(str(feed.data.items))
    if _COLUMN not in source.schema.names:
        return f"no {_COLUMN} column in items"
    if not set(names) <= set(feed.known.rows.names):
        return "the events of the reference lack a column"
    spans = [*feed.find_days_before(_DAYS), (feed.start, feed.start + feed.days)]
    now, before = feed.read_beside(names, spans), feed.known.rows.table.select(names)
    ids = pc.unique(pa.chunked_array([combine(part["item_id"]) for part in (now, before)]))
    ends = source.to_table(
        columns=["item_id", _COLUMN], filter=pc.is_in(ds.field("item_id"), value_set=ids)
    )
    until = feed.start + feed.days
    return _join(now, ends, until), _join(before, ends, until)


def _join(events: pa.Table, ends: pa.Table, until: float) -> _Ends:
    row = pc.index_in(combine(events["item_id"]), value_set=combine(ends["item_id"]))
    there = np.asarray(pc.is_valid(row), dtype=bool)
    events, row = events.filter(pa.array(there)), row.drop_null()
    time, end = (tables.to_days(c) for c in (events["event_time"], ends[_COLUMN].take(row)))
    end = np.where(np.isnan(end), np.inf, end)
    bought = pc.fill_null(pc.equal(events["event_type"], str(EventType.PURCHASE)), False)
    settled = np.asarray(bought, dtype=bool) & (time < until - _LATE)
    return _Ends((end > time + _LATE)[settled], time > end + _LATE)
