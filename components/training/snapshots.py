"""Item snapshots in memory, and on disk in a form that is read quickly."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit.feature_tables import ItemVersions, read_snapshot, read_versions
from refit.features import FeaturesManifest

MIB = 1 << 20


@dataclass(frozen=True)
class SparseCounts:
    """A matrix [N, P] of counts, of which most are 0: an item has events in few contexts.

    Attributes:
        start: [N + 1] where the entries of each row start.
        column: The column of each entry.
        value: Each entry.
        size: P.
    """

    start: NDArray[np.int64]
    column: NDArray[np.uint16]
    value: NDArray[np.float32]
    size: int

    @classmethod
    def of(cls, dense: NDArray[np.float32]) -> "SparseCounts":
        """Of a matrix [N, P]."""
        row, column = np.nonzero(dense)
        start = np.searchsorted(row, np.arange(len(dense) + 1))
        return cls(start, column.astype(np.uint16), dense[row, column], dense.shape[1])

    @property
    def nbytes(self) -> int:
        """Memory of the entries, in bytes."""
        return self.start.nbytes + self.column.nbytes + self.value.nbytes

    def rows(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """[R, P] the given rows."""
        first = self.start[rows]
        n_entries = self.start[rows + 1] - first
        before = np.cumsum(n_entries) - n_entries
        entry = np.arange(n_entries.sum()) + np.repeat(first - before, n_entries)
        place = np.repeat(np.arange(len(rows)) * self.size, n_entries) + self.column[entry]
        dense = np.zeros(len(rows) * self.size, np.float32)
        dense[place] = self.value[entry]
        return dense.reshape(len(rows), self.size)

    def all_rows(self) -> NDArray[np.float32]:
        """[N, P] the whole matrix."""
        return self.rows(np.arange(len(self.start) - 1))


@dataclass(frozen=True)
class Snapshot:
    """The items of a snapshot.

    Attributes:
        item: [N] item indices, ascending.
        age_days: [N] days since listing.
        counts: [N, P] decayed counts.
        time: In microseconds since 1970.
        versions: Which versions of the items there are.
    """

    item: NDArray[np.int32]
    age_days: NDArray[np.float32]
    counts: SparseCounts
    time: int
    versions: ItemVersions

    @property
    def popularity(self) -> NDArray[np.float32]:
        """[N, P] decayed counts, as a matrix."""
        return self.counts.all_rows()

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        return self.item.nbytes + self.age_days.nbytes + self.counts.nbytes

    def rows_of(self, items: NDArray[np.int32]) -> NDArray[np.int64]:
        """Row of each item in the snapshot; -1 where it is not live."""
        if not len(self.item):
            return np.full(items.shape, -1)
        rows = np.minimum(np.searchsorted(self.item, items), len(self.item) - 1)
        return np.where(self.item[rows] == items, rows, -1)

    def content_rows(self, items: NDArray[np.int32]) -> NDArray[Any]:
        """Rows of the encoded catalogue with the items as they were; -1 stays -1."""
        return self.versions.rows_at(items, self.time)


class Snapshots:
    """Item snapshots by number, with a least-recently-used cache.

    Args:
        manifest: Of the features folder.
        folder: The features folder.
        limit_mb: Memory of the cache.
        known_only: Leave out items without an event before the snapshot.
        spill: Folder for those that the cache has no room for; it may be missing. None reads them
            from the features again, which takes a hundred times as long.
    """

    def __init__(
        self,
        manifest: FeaturesManifest,
        folder: Path,
        limit_mb: float,
        known_only: bool = False,
        spill: Path | None = None,
    ) -> None:
        self.days = np.array([t.timestamp() / 86_400 for t in manifest.snapshots])
        self.versions = read_versions(folder)
        self._times = manifest.snapshot_times
        self._folder = folder
        self._limit = self._free_bytes = int(limit_mb * MIB)
        self._known_only = known_only
        self._spill = spill
        self._kept: OrderedDict[int, Snapshot] = OrderedDict()
        self._nbytes: dict[int, int] = {}

    def __getitem__(self, i: int) -> Snapshot:
        if i in self._kept:
            self._kept.move_to_end(i)
            return self._kept[i]
        snapshot = self._kept[i] = self._read_spilled(i) or self._read(i)
        self._nbytes[i] = snapshot.nbytes
        self._free_bytes -= snapshot.nbytes
        while self._free_bytes < 0 and len(self._kept) > 1:
            oldest, dropped = self._kept.popitem(last=False)
            self._free_bytes += dropped.nbytes
            self._write_spilled(oldest, dropped)
        return snapshot

    def live(self, i: int, items: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether each item is in snapshot ``i``."""
        return self[i].rows_of(items) >= 0

    def groups(self, order: Sequence[int]) -> Iterator[list[int]]:
        """Cut snapshots into groups that the cache has room for; the same each time."""
        group: list[int] = []
        used = 0
        for i in order:
            size = self._nbytes.get(i) or self[i].nbytes
            if group and used + size > self._limit:
                yield group
                group, used = [], 0
            group.append(i)
            used += size
        if group:
            yield group

    def _read(self, i: int) -> Snapshot:
        item, age_days, popularity = read_snapshot(self._folder, i)
        if self._known_only:
            known = popularity.any(axis=1)
            item, age_days, popularity = item[known], age_days[known], popularity[known]
        return self._make(i, item, age_days, SparseCounts.of(popularity))

    def _make(
        self, i: int, item: NDArray[np.int32], age_days: NDArray[np.float32], counts: SparseCounts
    ) -> Snapshot:
        return Snapshot(item, age_days, counts, int(self._times[i]), self.versions)

    def _read_spilled(self, i: int) -> Snapshot | None:
        if not self._spill or not (path := self._spill / f"{i}.npz").is_file():
            return None
        with np.load(path) as kept:
            counts = SparseCounts(kept["start"], kept["column"], kept["value"], int(kept["size"]))
            return self._make(i, kept["item"], kept["age_days"], counts)

    def _write_spilled(self, i: int, snapshot: Snapshot) -> None:
        if not self._spill or (path := self._spill / f"{i}.npz").is_file():
            return
        self._spill.mkdir(parents=True, exist_ok=True)
        counts = snapshot.counts
        np.savez(
            path,
            item=snapshot.item,
            age_days=snapshot.age_days,
            start=counts.start,
            column=counts.column,
            value=counts.value,
            size=counts.size,
        )
