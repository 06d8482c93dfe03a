"""What the monitor reads, written as the pipelines and the server write it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from refit.dataset import EVENTS_FILE, ITEMS_FILE, USERS_FILE, DatasetManifest, RowCounts, Split
from refit.files import write_atomically
from refit.index import IndexManifest
from tests.benchmarks.drift.towers import Floats

ROW_GROUP = 8192
"""Rows; a live day of these markets has a few thousand events."""


def write_dataset(
    folder: Path,
    tables: Mapping[str, pa.Table],
    split: Split,
    context_columns: Sequence[str],
    user_columns: Sequence[str] = (),
    source: str = "simulated",
) -> None:
    """Write ``events``, ``items`` and ``users`` as a data set."""
    for name, file in (("events", EVENTS_FILE), ("items", ITEMS_FILE), ("users", USERS_FILE)):
        write_table(folder / file, tables[name])
    DatasetManifest(
        source=source,
        simulated=source == "simulated",
        terms=source,
        counts={
            name: RowCounts(rows_in=t.num_rows, kept=t.num_rows, rejected=0, duplicates=0)
            for name, t in tables.items()
        },
        split=split,
        fingerprint=f"{split.end:%Y%m%d}",
        context_columns=tuple(context_columns),
        user_columns=tuple(user_columns),
    ).write(folder)


def write_index(
    folder: Path, vectors: Floats, stock: pa.Table, embedding_version: str, as_of: datetime
) -> None:
    """Write an index folder.

    Args:
        folder: The folder.
        vectors: [N, D] of the live listings.
        stock: [N] their ids and columns.
        embedding_version: Of the towers.
        as_of: When they were live.
    """
    with write_atomically(folder) as staging:
        staging.mkdir()
        np.save(staging / "vectors.npy", vectors)
        flags = pa.array([True] * stock.num_rows)
        pq.write_table(stock.append_column("live", flags), staging / "items.parquet")
        IndexManifest(
            embedding_version=embedding_version,
            kind="flat",
            dimension=vectors.shape[1],
            n_live=stock.num_rows,
            n_items=stock.num_rows,
            recall_at_100=None,
            n_queries=0,
            latency_ms={},
            as_of=as_of,
        ).write(staging)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as one Parquet file.

    In row groups as small for these tables as usual ones are for a shop's, so that whoever reads
    a few days skips the others. The bounds of other columns than times skip nothing, and to find
    them, or to compress what is read within the day, takes a third of the time.
    """
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    times = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    with write_atomically(path) as staging:
        pq.write_table(
            table,
            staging,
            row_group_size=ROW_GROUP,
            use_dictionary=texts,
            write_statistics=times,
            compression="NONE",
        )
