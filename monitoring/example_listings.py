"""Listings behind an alert: those of the values that became frequent, and those that it names."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from monitoring import tables
from monitoring.review.evidence import ValueListings, ValueShare
from monitoring.review.maps import format_cell
from monitoring.windows import MonitoredData
from refit.drift import Window
from refit.index import ITEMS_FILE

URL = "url"
"""A column beyond the contract: the listing's own page."""
SHOWN = (*tables.LISTING_COLUMNS, URL)
_MOST_VALUES, _MOST_LISTINGS = 3, 4


def find_examples(
    data: MonitoredData, window: Window, shares: Iterable[ValueShare]
) -> Iterator[ValueListings]:
    """The newest listings of the values whose shares grew most.

    Args:
        data: Has the items; without them there are no examples.
        window: Listings that came later are no examples.
        shares: Values, the largest change first.
    """
    if data.items is None or "items" in data.unreadable:
        return
    items = ds.dataset(str(data.items), format="parquet")
    grown = dict.fromkeys((s.source, s.value) for s in shares if s.source and s.now > s.before)
    found = 0
    for column, value in grown:
        ids = _find_newest(items, column, value, window)
        if ids:
            yield ValueListings(column=column, value=value, item_ids=tuple(ids))
            found += 1
        if found == _MOST_VALUES:
            return


def _find_newest(items: ds.Dataset, column: str, value: str, window: Window) -> list[str]:
    schema = items.schema
    if column not in schema.names or not pa.types.is_string(schema.field(column).type):
        return []
    timed = "listed_at" in schema.names
    rows = items.to_table(
        columns=["item_id", "listed_at"] if timed else ["item_id"],
        filter=ds.field(column) == value,
    )
    if timed:
        day = tables.to_days(rows["listed_at"])
        day[day >= window.end.timestamp() / tables.SECONDS_A_DAY] = np.nan
        order = np.argsort(-np.nan_to_num(day, nan=-np.inf), kind="stable")
        rows = rows.take(pa.array(order[: np.isfinite(day).sum()][:_MOST_LISTINGS]))
    return [str(item) for item in rows["item_id"].slice(0, _MOST_LISTINGS).to_pylist()]


def describe_items(data: MonitoredData, item_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Columns by name of some items, by id, as text; what is missing is left out.

    The items feed says how they are now; what it lacks is read from the index.
    """
    places = [None if "items" in data.unreadable else data.items]
    places.append(data.index / ITEMS_FILE if data.index is not None else None)
    found: dict[str, dict[str, str]] = {}
    for place in places:
        wanted = [item for item in dict.fromkeys(item_ids) if item not in found]
        if place is not None and wanted and place.exists():
            found |= {row["item_id"]: row for row in _read_rows(place, wanted)}
    return found


def _read_rows(place: Path, item_ids: Sequence[str]) -> Iterator[dict[str, str]]:
    names = [name for name in SHOWN if name in pq.read_schema(place).names]
    wanted = pc.is_in(ds.field("item_id"), value_set=pa.array(item_ids))
    table = ds.dataset(str(place), format="parquet").to_table(columns=names, filter=wanted)
    for row in table.to_pylist():
        yield {name: format_cell(cell) for name, cell in row.items() if cell not in (None, "")}
