"""The index folder as the server reads it: plain arrays in one file that processes map and share.

``served.arrow`` holds what the tables of the index folder hold, laid out so that nothing has to be
parsed, copied or built when it is opened: ids in a hash table, attributes as codes of the smallest
type with the rows of each code, histories and lists by user. All workers of a pod share its pages,
and the system takes them back when memory is short.

An index of an earlier version of Refit has no such file; then ``read_served`` lays its tables out
in memory, which takes longer and shares nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refit.columns import Column, Labels, Longs, RankedNumbers, RowsByCode, encode_texts
from refit.columns import read_numbers as read_float64
from refit.errors import RefitError
from refit.index import (
    DELISTED_FILE,
    HIDES_FILE,
    HISTORIES_FILE,
    ITEMS_FILE,
    PURCHASES_FILE,
    SERVED_FILE,
)
from refit.item_lists import UserItems
from refit.texts import Texts, hash_texts

NOT_FILTERED_BY = ("item_id", "seller_id", "live")
LAYOUT = b"1"
"""Changes when the arrays do; a file of another layout is not read, the tables are."""

Arrays = Mapping[str, pa.Array]


def write_served(folder: Path, n_live: int) -> None:
    """Write ``served.arrow`` into an index folder, from the tables that are in it."""
    arrays = _lay_out(folder, n_live)
    # One row, of which every column is a list: the arrays have different lengths.
    lists = [
        pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), array)
        for array in arrays.values()
    ]
    batch = pa.RecordBatch.from_arrays(lists, names=list(arrays))
    batch = batch.replace_schema_metadata({b"layout": LAYOUT})
    with pa.ipc.new_file(str(folder / SERVED_FILE), batch.schema) as writer:
        writer.write_batch(batch)


def read_served(folder: Path, n_live: int) -> "ServedTables":
    """Open the tables of an index folder; their arrays are memory-mapped if they are laid out.

    Raises:
        RefitError: The file is damaged, or made for another number of live items.
    """
    path = folder / SERVED_FILE
    arrays = _map(path) if path.exists() else None
    return ServedTables(_lay_out(folder, n_live) if arrays is None else arrays, n_live, folder)


def _map(path: Path) -> Arrays | None:
    """The arrays of a file; None if they have another layout."""
    try:
        with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
            if (reader.schema.metadata or {}).get(b"layout") != LAYOUT:
                return None
            batch = reader.get_batch(0)
    except (pa.ArrowInvalid, OSError) as error:
        raise RefitError(f"{path} cannot be read: {error}; build the index again") from error
    return {name: batch.column(i).values for i, name in enumerate(batch.schema.names)}


@dataclass(frozen=True)
class UserEvents:
    """The events of U users, the latest first.

    Attributes:
        bounds: [U + 1] where the events of each user begin.
        items: [E] rows of the items.
        kinds: [E] codes of the event types.
        names: The event type of each code.
        times: [E] microseconds since 1970.
    """

    bounds: Longs
    items: NDArray[np.int32]
    kinds: NDArray[np.int8]
    names: tuple[str, ...]
    times: Longs


class ServedTables:
    """The tables of an index folder as arrays; rows and numbers are those of ``refit.index``.

    Attributes:
        ids: Number of each of the K items.
        n_items: M, the number of items with attributes.
        attributes: [N] columns by name that filters and rules may read.
        sellers: [N] who sells each live item; None where the items have no sellers.
        all_sellers: [M] the same, also of the items that are no longer live.
        listed_at: [N] microseconds since 1970; 0 where unknown.
        by_listing: [N] rows by rising ``listed_at``.
        users: Number of each of the U users.
        user_columns: [U] Arrow columns by name, without ``user_id``.
        events: Their histories.
        purchases, hides: Their purchases and hides, by item number.
    """

    def __init__(self, arrays: Arrays, n_live: int, folder: Path) -> None:
        self.ids = _texts(arrays, "ids")
        self.n_items, built_for, _ = _numpy(arrays["sizes"]).tolist()
        if built_for != n_live:
            raise RefitError(
                f"{folder / SERVED_FILE} was made for {built_for} live items, but there are "
                f"{n_live} vectors; build the index again"
            )
        names = _names(arrays, "attribute", ".codes", ".ranks")
        self.attributes: dict[str, Column] = {name: _column(arrays, name) for name in names}
        self.all_sellers = self.sellers = None
        if "sellers.codes" in arrays:
            codes, code_of = _numpy(arrays["sellers.codes"]), _texts(arrays, "sellers.texts")
            self.all_sellers = Labels(codes, code_of)
            self.sellers = Labels(codes[:n_live], code_of, _by_code(arrays, "sellers"))
        self.listed_at: Longs = _numpy(arrays["listed_at"])
        self.by_listing: NDArray[np.int32] = _numpy(arrays["by_listing"])
        self.users = _texts(arrays, "users")
        self.user_columns = {name: arrays[f"user:{name}"] for name in _names(arrays, "user", "")}
        self.events = UserEvents(
            _numpy(arrays["events.bounds"]),
            _numpy(arrays["events.items"]),
            _numpy(arrays["events.kinds"]),
            tuple(arrays["events.names"].to_pylist()),
            _numpy(arrays["events.times"]),
        )
        self.purchases, self.hides = (
            UserItems.of_bounds(_numpy(arrays[f"{name}.items"]), _numpy(arrays[f"{name}.bounds"]))
            for name in ("purchases", "hides")
        )


def _lay_out(folder: Path, n_live: int) -> dict[str, pa.Array]:
    items = pq.read_table(folder / ITEMS_FILE)
    arrays = _lay_out_items(items, n_live, pq.read_table(folder / DELISTED_FILE))
    arrays |= _lay_out_users(pq.read_table(folder / HISTORIES_FILE))
    n_users = len(arrays["users"])
    for name, file in (("purchases", PURCHASES_FILE), ("hides", HIDES_FILE)):
        table = pq.read_table(folder / file)
        users, rows = table["user_row"].to_numpy(), table["item_row"].to_numpy()
        by_user = RowsByCode.of(users, n_users)
        arrays[f"{name}.items"] = pa.array(rows[by_user.order].astype(np.int32))
        arrays[f"{name}.bounds"] = pa.array(by_user.bounds)
    arrays["sizes"] = pa.array([items.num_rows, n_live, n_users], pa.int64())
    return arrays


def _lay_out_items(items: pa.Table, n_live: int, delisted: pa.Table) -> dict[str, pa.Array]:
    ids = [table["item_id"].cast(pa.string()) for table in (items, delisted)]
    chunks = [chunk for one in ids for chunk in one.chunks]
    arrays = _lay_out_texts("ids", pa.chunked_array(chunks, pa.string()))
    live = items.slice(0, n_live)
    for name in live.column_names:
        column, key = live[name], f"attribute:{name}"
        if name in NOT_FILTERED_BY or not _filters(column.type):
            continue
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
            arrays |= _lay_out_numbers(key, column)
        else:
            arrays |= _lay_out_labels(key, column, n_live)
    if "seller_id" in items.column_names:
        arrays |= _lay_out_labels("sellers", items["seller_id"], n_live)
    times = _read_times(live, "known_at")
    arrays["listed_at"] = pa.array(times)
    arrays["by_listing"] = pa.array(np.argsort(times, kind="stable").astype(np.int32))
    return arrays


def _lay_out_texts(name: str, texts: pa.Array | pa.ChunkedArray) -> dict[str, pa.Array]:
    array = texts.cast(pa.string())
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if array.null_count:
        raise RefitError(f"{name} of the index must not be null; build the index again")
    return {name: array, f"{name}.slots": pa.array(hash_texts(array))}


def _lay_out_labels(name: str, column: pa.ChunkedArray, n_live: int) -> dict[str, pa.Array]:
    codes, texts = encode_texts(column)
    by_code = RowsByCode.of(codes[:n_live], len(texts))
    return {
        f"{name}.codes": pa.array(codes.astype(np.min_scalar_type(-max(len(texts), 1)))),
        **_lay_out_texts(f"{name}.texts", texts),
        f"{name}.order": pa.array(by_code.order),
        f"{name}.bounds": pa.array(by_code.bounds),
    }


def _lay_out_numbers(name: str, column: pa.ChunkedArray) -> dict[str, pa.Array]:
    values = read_float64(column)
    distinct = np.unique(values[~np.isnan(values)])
    ranks = np.searchsorted(distinct, values)  # of NaN, which sorts last, their number
    by_rank = RowsByCode.of(ranks, len(distinct))
    return {
        f"{name}.ranks": pa.array(ranks.astype(np.min_scalar_type(len(distinct)))),
        f"{name}.distinct": pa.array(distinct),
        f"{name}.order": pa.array(by_rank.order),
        f"{name}.bounds": pa.array(by_rank.bounds),
    }


def _lay_out_users(table: pa.Table) -> dict[str, pa.Array]:
    table = table.combine_chunks()
    arrays = _lay_out_texts("users", table["user_id"])
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name == "item_row":
            # Of a null list, or before a slice, there may be values that are nobody's.
            sizes = np.diff(column.offsets.to_numpy()) * np.asarray(column.is_valid())
            arrays["events.bounds"] = pa.array(np.concatenate([[0], np.cumsum(sizes)]))
            items = column.flatten().to_numpy(zero_copy_only=False)
            arrays["events.items"] = pa.array(items.astype(np.int32))
        elif name == "event_type":
            codes, names = encode_texts(column.flatten())
            arrays["events.kinds"] = pa.array(codes.astype(np.int8))
            arrays["events.names"] = names
        elif name == "event_time":
            times = column.flatten().cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            arrays["events.times"] = pa.array(times.to_numpy(zero_copy_only=False), pa.int64())
        elif name not in ("user_id", "item_index"):
            is_coded = pa.types.is_dictionary(column.type)
            arrays[f"user:{name}"] = column.dictionary_decode() if is_coded else column
    return arrays


def _column(arrays: Arrays, name: str) -> Column:
    key = f"attribute:{name}"
    by_code = _by_code(arrays, key)
    if f"{key}.ranks" in arrays:
        distinct = _numpy(arrays[f"{key}.distinct"])
        return RankedNumbers(_numpy(arrays[f"{key}.ranks"]), distinct, by_code)
    codes = _numpy(arrays[f"{key}.codes"])
    return Labels(codes, _texts(arrays, f"{key}.texts"), by_code)


def _by_code(arrays: Arrays, name: str) -> RowsByCode:
    return RowsByCode(_numpy(arrays[f"{name}.order"]), _numpy(arrays[f"{name}.bounds"]))


def _texts(arrays: Arrays, name: str) -> Texts:
    return Texts(arrays[name], _numpy(arrays[f"{name}.slots"]))


def _names(arrays: Arrays, kind: str, *endings: str) -> list[str]:
    """The part after ``kind:`` of the names of arrays, without their endings."""
    return [
        name.removeprefix(f"{kind}:").removesuffix(ending)
        for name in arrays
        for ending in endings
        if name.startswith(f"{kind}:") and name.endswith(ending)
    ]


def _numpy(array: pa.Array) -> NDArray[Any]:
    """The same memory as NumPy sees it."""
    return np.asarray(array.to_numpy(zero_copy_only=True))


def _read_times(items: pa.Table, name: str) -> Longs:
    """[N] microseconds since 1970; 0 where the column or a value is missing."""
    if name not in items.column_names:
        return np.zeros(items.num_rows, dtype=np.int64)
    times = items[name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    return np.asarray(times.fill_null(0).to_numpy(), dtype=np.int64)


def _filters(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)
    return bool(
        text
        or pa.types.is_dictionary(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
    )
