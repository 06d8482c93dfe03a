"""What is known of the feeds from the reference period: rows, counts by time of day, listings."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from monitoring import tables
from monitoring.frame import Asked, Frame, count_column, find_missing, is_number, is_vector
from monitoring.settings import MeasureSettings
from monitoring.subjects import IDENTIFIERS
from refit.contract import KNOWN_AT_END, VALID_FROM
from refit.dataset import EVENTS_FILE, ITEMS_FILE
from refit.drift import Window

FOLDER = "feeds"
TIME_COLUMNS = {"items": "listed_at", "events": "event_time"}
SLOTS = 96
"""Parts of a day in which rows are counted: quarters of an hour."""
GROUP_COLUMNS = ("category_2", "category_1")
"""The first of them that the items have tells known supply from new supply."""
_FILES = {"items": ITEMS_FILE, "events": EVENTS_FILE}
_LISTINGS = "listings.parquet"
_DAY = "_day"
UNCHECKED = frozenset({*KNOWN_AT_END, VALID_FROM, "request_id"})
"""Columns that are empty for good reasons, in other shares every day."""


@dataclass(frozen=True, eq=False)
class KnownFeed(Asked):
    """A feed in the reference period.

    Attributes:
        name: ``items`` or ``events``.
        rows: A sample, without vectors.
        counts: [days, slots] all rows by day and time of day; no days where rows have no time.
        days: [days] days since 1970.
        largest_vocabulary: Columns with more values are text.
        schema: All columns, vectors among them.
    """

    name: str
    rows: Frame
    counts: NDArray[np.float64]
    days: NDArray[np.int64]
    largest_vocabulary: int
    schema: pa.Schema

    @cached_property
    def kinds(self) -> Mapping[str, str]:
        """``number``, ``category``, ``text`` or ``id`` of each column that is checked."""
        found = {}
        for name in self.rows.names:
            cells = self.rows.column(name)
            if name in UNCHECKED or find_missing(cells).all():
                continue
            if name in IDENTIFIERS:
                found[name] = "id"
            elif is_number(cells):
                found[name] = "number"
            elif pa.types.is_string(cells.type):
                distinct = len(self.vocabulary(name))
                few = distinct <= min(self.largest_vocabulary, max(20, len(cells) // 5))
                found[name] = "category" if few else "text"
        return found

    def columns(self, *kinds: str) -> list[str]:
        """The columns of some kinds."""
        return [name for name, kind in self.kinds.items() if kind in kinds]

    def vocabulary(self, column: str) -> dict[str, int]:
        """How often each value occurs in the sample, the most frequent first."""
        return self.rows.once(count_column, column)

    @cached_property
    def group(self) -> str:
        """The column that tells known supply from new supply; empty where there is none."""
        return next((c for c in GROUP_COLUMNS if self.kinds.get(c) == "category"), "")

    @cached_property
    def profile(self) -> NDArray[np.float64]:
        """[slots] mean rows by time of day; zeros where only dates are known, or nothing."""
        total = self.counts.sum(axis=0)
        if not len(self.counts) or total.max() > 0.5 * max(total.sum(), 1):
            return np.zeros(SLOTS)
        return np.asarray(total / len(self.counts))


def write_known(folder: Path, dataset: Path, period: Window, settings: MeasureSettings) -> None:
    """Write what is known of the feeds.

    Args:
        folder: The reference folder, which is being written.
        dataset: Dataset folder that the towers were trained on.
        period: The reference period.
        settings: How much is kept.
    """
    (folder / FOLDER).mkdir()
    faults = settings.faults
    for name, file in _FILES.items():
        path, time = dataset / file, TIME_COLUMNS[name]
        names = _plain_columns(ds.dataset(str(path)).schema)
        rows = tables.read_table(path, time, period, faults.reference_rows, settings, names)
        _write_rows(folder / FOLDER / f"{name}.parquet", rows)
        days, counts = _count_rows(path, time, period)
        np.savez(folder / FOLDER / f"{name}.npz", days=days, counts=counts)
    known = tables.read_table(
        dataset / ITEMS_FILE, TIME_COLUMNS["items"], period, faults.known_listings, settings
    )
    _write_rows(folder / FOLDER / _LISTINGS, known)


def read_known(folder: Path, name: str, settings: MeasureSettings) -> KnownFeed:
    """What is known of one feed, planned closings left out."""
    rows = _read_rows(folder / FOLDER / f"{name}.parquet")
    with np.load(folder / FOLDER / f"{name}.npz") as kept:
        days, counts = kept["days"], kept["counts"]
    for begin, end in (closing.days for closing in settings.closings):
        open_ = (days < begin) | (days >= end)
        days, counts = days[open_], counts[open_]
        rows = rows.take(np.flatnonzero(~((rows.day >= begin) & (rows.day < end))))
    schema = rows.table.schema
    if name == "items":
        schema = pq.read_schema(folder / FOLDER / _LISTINGS)
        schema = schema.remove(schema.get_field_index(_DAY))
    return KnownFeed(name, rows, counts, days, settings.faults.largest_vocabulary, schema)


def read_listings(folder: Path) -> Frame:
    """Known listings with their vectors, which are compared one by one with what is sent later."""
    return _read_rows(folder / FOLDER / _LISTINGS)


def count_by_slot(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """[slots] rows by time of day, of times in days."""
    slots = np.floor((times % 1.0) * SLOTS + 1e-9).astype(np.int64) % SLOTS
    return np.bincount(slots, minlength=SLOTS).astype(np.float64)


def vector_columns(schema: pa.Schema) -> list[str]:
    """Columns that hold vectors."""
    return [field.name for field in schema if is_vector(pa.array([], field.type))]


def _plain_columns(schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if name not in vector_columns(schema)]


def _count_rows(
    path: Path, time: str, period: Window
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Whole days of the period, and [days, slots] their rows."""
    table = ds.dataset(str(path))
    if time not in table.schema.names:
        return np.empty(0, dtype=np.int64), np.empty((0, SLOTS))
    times = tables.to_days(table.to_table(columns=[time])[time])
    first, last = (t.timestamp() / tables.SECONDS_A_DAY for t in (period.start, period.end))
    times = times[np.isfinite(times) & (times >= np.ceil(first)) & (times < np.floor(last))]
    if not len(times):
        return np.empty(0, dtype=np.int64), np.empty((0, SLOTS))
    start = int(times.min())
    slot = np.floor((times - start) * SLOTS + 1e-9).astype(np.int64)
    length = int(np.floor(last)) - start
    counts = np.bincount(slot, minlength=length * SLOTS).reshape(length, SLOTS)
    return start + np.arange(length), counts.astype(np.float64)


def _write_rows(path: Path, rows: Frame) -> None:
    pq.write_table(rows.table.append_column(_DAY, pa.array(rows.day)), path)


def _read_rows(path: Path) -> Frame:
    table = pq.read_table(path)
    day = np.asarray(pc.fill_null(table[_DAY], np.nan).to_numpy(), dtype=np.float64)
    return Frame(table.drop_columns([_DAY]), day)
