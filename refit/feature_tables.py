"""Read the features folder: catalogue, item snapshots and examples, as arrays.

Layout: ``items.parquet`` (row number = item_index), ``snapshots/<i>.parquet``,
``examples/<split>.parquet``, ``histories.parquet``, ``away.parquet``, ``purchases.parquet``,
``hides.parquet`` and ``features.json``; ``versions.parquet`` where items come in versions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refit.errors import DataValidationError

CATALOGUE_FILE = "items.parquet"
VERSIONS_FILE = "versions.parquet"
"""Older versions of the items: ``item_index``, ``version_until`` and the catalogue's columns.

The catalogue has the latest. At the time of a snapshot, an item is its first version whose
``version_until`` is not earlier, and the latest after all of them: the next version holds strictly
after ``version_until``. Rows are by item and time.
"""
VERSION_UNTIL = "version_until"
AWAY_FILE = "away.parquet"
"""When an item was not on sale in between: ``item_index``, ``gone_at``, ``back_at``, by item.

It is on sale at ``gone_at`` itself, and again only after ``back_at``.
"""
HISTORIES_FILE = "histories.parquet"
PURCHASES_FILE = "purchases.parquet"
HIDES_FILE = "hides.parquet"
"""Every item that a user has bought, or hidden: ``user_id``, ``item_index``, first ``event_time``.

Unlike a history, these are not limited to ``history_length`` events. The purchases are empty where
bought items may be recommended again, since no rule reads them.
"""
SPLITS = ("train", "validation", "test")
REQUESTS = "requests"
"""Not a split: the first event of every visit of the test window.

A split contains only target events; the requests represent all traffic of a server.
"""
HISTORY_COLUMNS = ("history_item", "history_event_type", "history_age_days")


def examples_file(split: str) -> str:
    """Path of the examples of a split, or of the requests, in the features folder."""
    return f"examples/{split}.parquet"


def snapshot_file(i: int) -> str:
    """Path of snapshot ``i`` in the features folder."""
    return f"snapshots/{i}.parquet"


@dataclass(frozen=True)
class ItemTable:
    """The catalogue of M items; an item's row number is its item_index.

    ``read_contents`` adds rows of older versions.

    Attributes:
        table: [M] rows, as written.
    """

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.table.column_names)

    def strings(self, name: str) -> NDArray[np.object_]:
        """[M] strings, "" where missing."""
        return strings(self.table[name])

    def numbers(self, name: str) -> NDArray[np.float32]:
        """[M] float32, NaN where missing."""
        return numbers(self.table[name])

    def times(self, name: str) -> NDArray[np.datetime64]:
        """[M] datetime64[us] in UTC, NaT where missing."""
        return np.asarray(self.table[name].to_numpy(), dtype="datetime64[us]")

    def vectors(self, name: str, size: int) -> NDArray[np.float32]:
        """[M, size] float32, zeros where missing."""
        return vectors(self.table[name], size)


def read_catalogue(folder: Path) -> ItemTable:
    """Read the catalogue of a features folder."""
    return ItemTable(pq.read_table(folder / CATALOGUE_FILE))


@dataclass(frozen=True)
class ItemTimes:
    """V moments of items, to be searched for the next one of an item.

    Attributes:
        item: [V] item indices, ascending.
        time: [V] microseconds since 1970, ascending for each item.
    """

    item: NDArray[np.int32]
    time: NDArray[np.int64]

    def find_next(
        self, items: NDArray[np.integer[Any]], times: int | NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The place of each item's first moment that is not before a time; -1 where it has none.

        Args:
            items: Item indices of any shape.
            times: Microseconds since 1970, one for all or of a shape that fits the items'.
        """
        if not len(self.item):
            return np.full(np.broadcast(items, times).shape, -1, dtype=np.int64)
        first = np.searchsorted(self._keys, self._key(items, times))
        place = np.minimum(first, len(self.item) - 1)
        is_there = (self.item[place] == items) & (first < len(self.item))
        return np.where(is_there, place, -1)

    @cached_property
    def _distinct(self) -> NDArray[np.int64]:
        return np.unique(self.time)

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        return self._key(self.item, self.time)

    def _key(
        self, items: NDArray[np.integer[Any]], times: int | NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """One number for item and time, in the same order; the product of both may be too large."""
        rank = np.searchsorted(self._distinct, times)
        return items.astype(np.int64) * (len(self._distinct) + 1) + rank


@dataclass(frozen=True)
class ItemVersions:
    """Which row of ``read_contents`` describes an item at the time of a snapshot.

    Attributes:
        n_items: Number M of items; their latest versions are the first M rows.
        until: [V] the last moment at which each older version is read.
    """

    n_items: int
    until: ItemTimes

    def rows_at(
        self, items: NDArray[np.integer[Any]], times: int | NDArray[np.int64]
    ) -> NDArray[Any]:
        """Rows of the items as they were strictly before a time of a snapshot.

        Args:
            items: Item indices of any shape; -1 stays -1.
            times: Microseconds since 1970, one for all or of a shape that fits the items'.
        """
        if not len(self.until.item):
            return items
        place = self.until.find_next(items, times)
        return np.where(place < 0, items, self.n_items + place).astype(np.int64)


def read_versions(folder: Path) -> ItemVersions:
    """Read which versions a features folder has; none where items do not come in versions."""
    n_items = pq.read_metadata(folder / CATALOGUE_FILE).num_rows
    path = folder / VERSIONS_FILE
    if not path.is_file():
        return ItemVersions(n_items, ItemTimes(np.empty(0, np.int32), np.empty(0, np.int64)))
    table = pq.read_table(path, columns=["item_index", VERSION_UNTIL])
    until = table[VERSION_UNTIL].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return ItemVersions(n_items, ItemTimes(table["item_index"].to_numpy(), until.to_numpy()))


def read_contents(folder: Path) -> ItemTable:
    """Read the catalogue of M items, followed by the V older versions of ``read_versions``."""
    catalogue, path = read_catalogue(folder), folder / VERSIONS_FILE
    if not path.is_file():
        return catalogue
    older = pq.read_table(path).select(catalogue.names)
    return ItemTable(pa.concat_tables([catalogue.table, older], promote_options="default"))


@dataclass(frozen=True)
class Away:
    """G pauses in which an item was not on sale, see ``AWAY_FILE``.

    Attributes:
        item: [G] item indices, ascending.
        gone_at, back_at: [G] microseconds since 1970.
    """

    item: NDArray[np.int32]
    gone_at: NDArray[np.int64]
    back_at: NDArray[np.int64]

    def throughout(self, start: int, end: int) -> NDArray[np.int32]:
        """The items that are away from one time until another, exclusive."""
        return self.item[(self.gone_at <= start) & (self.back_at >= end)]


def read_away(folder: Path) -> Away:
    """Read the pauses of a features folder.

    Raises:
        DataValidationError: The features were built without them.
    """
    path = folder / AWAY_FILE
    if not path.is_file():
        raise DataValidationError(f"{path} does not exist; run the feature step again")
    table = pq.read_table(path)
    times = (
        table[name].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
        for name in ("gone_at", "back_at")
    )
    return Away(table["item_index"].to_numpy().astype(np.int32), *times)


def read_snapshot(
    folder: Path, i: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    """Read snapshot ``i``: items live before the next snapshot, with their features at this one.

    Returns:
        item_index [N] ascending, age_days [N], popularity [N, P].
    """
    table = pq.read_table(folder / snapshot_file(i)).combine_chunks()
    lists = table["popularity"].combine_chunks()
    size = table.schema.field("popularity").type.list_size
    popularity = _flat(lists).reshape(-1, size)
    return table["item_index"].to_numpy(), table["age_days"].to_numpy(), popularity


def iter_examples(
    folder: Path, split: str, batch_rows: int, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Stream the examples of a split in time order.

    Args:
        folder: The features folder.
        split: train, validation, test or requests.
        batch_rows: Maximum number of rows per batch.
        columns: Columns to read; None reads all.
    """
    with pq.ParquetFile(folder / examples_file(split)) as file:
        yield from file.iter_batches(batch_rows, columns=list(columns) if columns else None)


@dataclass(frozen=True)
class PaddedHistories:
    """Histories of B queries, newest first, as [B, L] arrays.

    Attributes:
        item: int32, -1 where padded.
        event_type: str, "" where padded.
        age_days: float32, 0 where padded.
    """

    item: NDArray[np.int32]
    event_type: NDArray[np.object_]
    age_days: NDArray[np.float32]


def pad_histories(batch: pa.RecordBatch | pa.Table, length: int) -> PaddedHistories:
    """Convert the history columns of examples to arrays of the latest ``length`` events."""
    item, event_type, age_days = (batch.column(name) for name in HISTORY_COLUMNS)
    return PaddedHistories(
        item=pad_lists(item, length, np.int32(-1)),
        event_type=pad_lists(event_type, length, ""),
        age_days=pad_lists(age_days, length, np.float32(0)),
    )


def pad_lists(lists: pa.Array | pa.ChunkedArray, length: int, fill: Any) -> NDArray[Any]:
    """[B, length] array of the first ``length`` entries of each list, padded with ``fill``."""
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    sizes = np.minimum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(), length)
    slots = np.arange(length) < sizes[:, None]
    kept = pc.list_slice(lists, 0, length).flatten()
    is_text = isinstance(fill, str)
    values = strings(kept) if is_text else kept.to_numpy(zero_copy_only=False)
    padded = np.full(slots.shape, fill, dtype=object if is_text else values.dtype)
    padded[slots] = values
    return padded


def strings(values: pa.Array | pa.ChunkedArray) -> NDArray[np.object_]:
    """[N] str, "" where missing; equal strings share one object."""
    encoded = pc.dictionary_encode(pc.fill_null(pc.cast(values, pa.string()), ""))
    chunks = encoded.chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]
    parts = [
        chunk.dictionary.to_numpy(zero_copy_only=False)[chunk.indices.to_numpy()]
        for chunk in chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=object)


def numbers(values: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
    """[N] float32, NaN where missing."""
    filled = pc.fill_null(pc.cast(values, pa.float32()), np.float32(np.nan))
    return np.array(filled.to_numpy(), dtype=np.float32)


def vectors(values: pa.Array | pa.ChunkedArray, size: int) -> NDArray[np.float32]:
    """[N, size] float32 of a list column, zeros where missing."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    there = values.is_valid().to_numpy(zero_copy_only=False)
    filled = np.zeros((len(values), size), dtype=np.float32)
    filled[there] = values.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
    return filled


def _flat(lists: pa.Array) -> NDArray[np.float32]:
    return np.asarray(lists.flatten().to_numpy(), dtype=np.float32)
