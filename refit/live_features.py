"""What the item tower reads of each live listing beyond its attributes, kept with the index.

The server embeds a listing again when it is edited; with these, it keeps its popularity, its age
and its picture. Counts are mostly zero, so only the others are stored; vectors have 16 bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

LIVE_FEATURES_FILE = "live_features.parquet"
ITEM_VECTORS_FILE = "item_vectors.npy"
ROWS_PER_GROUP = 8192
"""Of a few listings, only the groups that hold them are read."""


def write_live_features(
    folder: Path,
    age_days: NDArray[np.float32],
    popularity: NDArray[np.float32],
    vectors: NDArray[np.float32] | None,
) -> None:
    """Write the features of N live listings into an index folder.

    Args:
        folder: The index folder.
        age_days: [N] days since listing at the time of the index; NaN where unknown.
        popularity: [N, P] decayed counts.
        vectors: [N, V] the vectors that the item tower reads, zeros where one is missing; None if
            it reads none.
    """
    rows, places = np.nonzero(popularity)
    offsets = np.searchsorted(rows, np.arange(len(popularity) + 1)).astype(np.int32)
    table = pa.table(
        {
            "age_days": pa.array(age_days, pa.float32()),
            "count_at": pa.ListArray.from_arrays(offsets, pa.array(places, pa.int32())),
            "count": pa.ListArray.from_arrays(offsets, pa.array(popularity[rows, places])),
        }
    )
    path = folder / LIVE_FEATURES_FILE
    pq.write_table(table, path, compression="zstd", row_group_size=ROWS_PER_GROUP)
    if vectors is not None:
        fits = np.abs(vectors).max(initial=0) < np.finfo(np.float16).max
        np.save(folder / ITEM_VECTORS_FILE, vectors.astype(np.float16 if fits else np.float32))


@dataclass(frozen=True)
class LiveFeatures:
    """The features of some live listings.

    Attributes:
        age_days: [B].
        popularity: [B, P].
        vectors: [B, V]; None if the item tower reads none.
    """

    age_days: NDArray[np.float32]
    popularity: NDArray[np.float32]
    vectors: NDArray[np.float32] | None


def has_live_features(folder: Path) -> bool:
    """Whether an index folder has them; one of an earlier version of Refit does not."""
    return (folder / LIVE_FEATURES_FILE).exists()


def read_live_features(folder: Path, rows: Sequence[int], size: int) -> LiveFeatures:
    """Read the features of B live listings.

    Args:
        folder: The index folder.
        rows: [B] rows of the index.
        size: P.
    """
    table = read_rows(folder / LIVE_FEATURES_FILE, rows)
    popularity = np.zeros((len(rows), size), dtype=np.float32)
    for counts, at, values in zip(
        popularity, table["count_at"].to_pylist(), table["count"].to_pylist(), strict=True
    ):
        counts[at] = values
    vectors = None
    if (folder / ITEM_VECTORS_FILE).exists():
        stored = np.load(folder / ITEM_VECTORS_FILE, mmap_mode="r")
        vectors = np.asarray(stored[list(rows)], dtype=np.float32)
    return LiveFeatures(table["age_days"].to_numpy(), popularity, vectors)


def read_rows(path: Path, rows: Sequence[int], columns: list[str] | None = None) -> pa.Table:
    """Read some rows of a Parquet file, of its row groups only those that hold them.

    Args:
        path: The file.
        rows: [B] numbers of the rows, at least one, in any order.
        columns: Their columns; None reads all.
    """
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        groups = np.searchsorted(starts, rows, side="right") - 1
        wanted = np.unique(groups)
        table = file.read_row_groups(wanted.tolist(), columns=columns)
    before = np.zeros(len(starts), dtype=np.int64)
    before[wanted] = np.cumsum([0, *(sizes[group] for group in wanted)])[:-1]
    places: NDArray[Any] = before[groups] + np.asarray(rows) - starts[groups]
    return table.take(pa.array(places))
