"""Prices of listings beside the prices at which people acted on them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from monitoring import tables
from monitoring.faults.feed import Feed

_PRICE = "price"


@dataclass(frozen=True)
class PairedPrices:
    """Listings with a price in both feeds, which should agree.

    Attributes:
        new, before: [n] logarithms (base 10) of the price in the items feed over that in the
            events, a median for each listing; of the window's new listings, and of listings of the
            reference period.
    """

    new: NDArray[np.float64]
    before: NDArray[np.float64]


def read_paired_prices(feed: Feed) -> PairedPrices | None:
    """Prices of listings beside those of the window's events; None where events have none."""
    events = feed.data.events
    if events is None or "events" in feed.data.unreadable or not feed.is_timed:
        return None
    if not {_PRICE, "item_id"} <= set(feed.rows.names):
        return None
    source = ds.dataset(str(events), format="parquet")
    if not {_PRICE, "item_id", "event_time"} <= set(source.schema.names):
        return None
    columns = ["item_id", _PRICE]
    if "item_id" not in feed.listings.names or _PRICE not in feed.listings.names:
        return None
    since = ds.field("event_time") >= feed.window.start
    own = since & (ds.field("event_time") < feed.window.end)
    acted = source.to_table(columns=columns, filter=own)
    return PairedPrices(_pair(feed.rows.table, acted), _pair(feed.found_again[1].table, acted))


def _pair(listings: pa.Table, acted: pa.Table) -> NDArray[np.float64]:
    place = pc.index_in(acted["item_id"], value_set=listings["item_id"].combine_chunks())
    row = np.asarray(pc.fill_null(place, -1)).astype(np.int64)
    listed = np.append(tables.to_numbers(listings[_PRICE]), np.nan)[row]
    paid = tables.to_numbers(acted[_PRICE])
    usable = (listed > 0) & (paid > 0)
    ratio, row = np.log10(listed[usable] / paid[usable]), row[usable]
    order = np.lexsort((ratio, row))
    ratio, row = ratio[order], row[order]
    _, first, count = np.unique(row, return_index=True, return_counts=True)
    return ratio[first + count // 2]
