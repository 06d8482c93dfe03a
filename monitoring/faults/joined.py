"""Events beside the listings that they are on."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from monitoring import tables
from monitoring.faults.feed import Feed
from monitoring.frame import combine
from refit.contract import INTEREST, EventType

_EVENTS = 20_000
_DAYS_BEFORE = 3.0


@dataclass(frozen=True)
class ListedEvents:
    """A sample of events of a window, and of the days before it.

    Attributes:
        now, before: [n] their times, in days.
        listed_now, listed_before: [n] when their listings were listed; NaN where the items feed
            does not have them.
    """

    now: NDArray[np.float64]
    before: NDArray[np.float64]
    listed_now: NDArray[np.float64]
    listed_before: NDArray[np.float64]


def read_listed(feed: Feed) -> ListedEvents | str:
    """Events beside their listings, or why there are none."""
    items = feed.data.items
    if "items" in feed.data.unreadable:
        return "the items cannot be read"
    if items is None:
        return "no items were given"
    if not feed.is_timed:
        return feed.no_days
    return feed.once(_read)


@dataclass(frozen=True)
class ChosenEvents:
    """Whether what people chose was viewed by them before, in a window and on the days before it.

    Attributes:
        viewed, viewed_before: [n] of each like, cart, offer and purchase.
    """

    viewed: NDArray[np.bool_]
    viewed_before: NDArray[np.bool_]


def read_chosen(feed: Feed) -> ChosenEvents | str:
    """Choices beside the views before them, or why there are none."""
    names = ["user_id", "item_id", "event_type", "event_time"]
    if lacking := [name for name in names if name not in feed.rows.names]:
        return f"no {' and no '.join(lacking)} column in {feed.name}"
    before = feed.find_days_before(_DAYS_BEFORE)
    first = before[0][0]
    earlier = feed.find_days_before(_DAYS_BEFORE + 1.0)
    events = feed.read_beside(names, [*earlier, (feed.start, feed.start + feed.days)])
    kind = events["event_type"]
    is_view = np.asarray(pc.fill_null(pc.equal(kind, str(EventType.VIEW)), False))
    chosen = [str(each) for each in INTEREST if each is not EventType.VIEW]
    is_choice = np.asarray(pc.is_in(kind, value_set=pa.array(chosen)))
    if not is_view.any():
        return "no views among the events"
    users, items = (combine(events[n]).dictionary_encode().indices for n in names[:2])
    user, item = (np.asarray(pc.fill_null(c, -1)).astype(np.int64) for c in (users, items))
    _, pair = np.unique(user * (item.max() + 2) + item, return_inverse=True)
    times = tables.to_days(events["event_time"])
    earliest = np.full(int(pair.max()) + 1, np.inf)
    np.minimum.at(earliest, pair[is_view], times[is_view])
    viewed = earliest[pair] <= times
    known = is_choice & (user >= 0) & (item >= 0) & (times >= first)
    now = times >= feed.start
    return ChosenEvents(viewed[known & now], viewed[known & ~now])


def _read(feed: Feed) -> ListedEvents | str:
    items = ds.dataset(str(feed.data.items))
    if "listed_at" not in items.schema.names:
        return "no listed_at column in items"
    names = ["item_id", "event_time"]
    beside = feed.read_beside(names, feed.find_days_before(_DAYS_BEFORE))
    here = feed.rows.table.select(names)
    parts = [_sample(table) for table in (here, beside)]
    ids = pc.unique(pa.concat_tables(parts)["item_id"])
    known = items.to_table(
        columns=["item_id", "listed_at"], filter=pc.is_in(ds.field("item_id"), value_set=ids)
    )
    listed = []
    for part in parts:
        row = pc.index_in(part["item_id"], value_set=known["item_id"].combine_chunks())
        listed.append(tables.to_days(known["listed_at"].take(row)))
    now, before = (tables.to_days(part["event_time"]) for part in parts)
    # A listing without a time is known, and was there before.
    for part, times in zip(parts, listed, strict=True):
        there = pc.is_in(part["item_id"], value_set=known["item_id"].combine_chunks())
        times[np.asarray(there) & np.isnan(times)] = -np.inf
    return ListedEvents(now, before, listed[0], listed[1])


def _sample(table: pa.Table) -> pa.Table:
    if table.num_rows <= _EVENTS:
        return table
    rows = np.random.default_rng(0).permutation(table.num_rows)[:_EVENTS]
    return table.take(pa.array(np.sort(rows)))
