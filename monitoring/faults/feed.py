"""A feed in one window: its rows, what is known of it, and the other feeds beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from monitoring import tables
from monitoring.closings import Closing, open_spans
from monitoring.faults.hashing import Hashes, hash_rows, mix
from monitoring.faults.known import TIME_COLUMNS, KnownFeed, vector_columns
from monitoring.faults.settings import FaultSettings
from monitoring.frame import Asked, Frame, code_values
from monitoring.windows import MonitoredData
from refit.drift import Window

CONTENT = {
    "items": ("seller_id", "title", "price", "brand", "size"),
    "events": ("user_id", "item_id", "event_type"),
}
"""Columns by which two rows of a feed are the same, but for their time."""
_TIME = pa.timestamp("us", tz="UTC")
_VECTOR_ROWS = 4000


@dataclass(frozen=True)
class Marks:
    """Hashes of rows.

    Attributes:
        content: [m] one number for what a row says, without ids and times.
        times: [m] days since 1970.
        one_in: One in so many moments of the day is marked.
    """

    content: Hashes
    times: NDArray[np.float64]
    one_in: int

    @property
    def by_time_of_day(self) -> Hashes:
        """[m] one number for what a row says and its time of the day."""
        return mix(self.content * np.uint64(3) + mix(_to_moments(self.times % 1.0)))


@dataclass(frozen=True)
class Feed(Asked):
    """A feed in one window.

    Attributes:
        name: ``items`` or ``events``.
        window: The window.
        is_last: Whether it is the newest of the run.
        settings: Thresholds and sizes.
        known: The feed in the reference period.
        listings: Known listings with their vectors.
        data: Where all feeds are.
        path: The Parquet file of this feed.
        rows: A sample of the window's rows, without vectors.
        times: [n] days since 1970 of all rows of the window; NaN where rows have no time.
        marks: Hashes of rows without ids, see ``mark_rows``.
        closings: Planned closings.
    """

    name: str
    window: Window
    is_last: bool
    settings: FaultSettings
    known: KnownFeed
    listings: Frame
    data: MonitoredData
    path: Path
    rows: Frame
    times: NDArray[np.float64]
    marks: Marks
    closings: Sequence[Closing] = ()

    def __len__(self) -> int:
        return len(self.times)

    @property
    def start(self) -> float:
        """Start of the window, in days since 1970."""
        return self.window.start.timestamp() / tables.SECONDS_A_DAY

    @property
    def days(self) -> float:
        """Length of the window."""
        return self.window.end.timestamp() / tables.SECONDS_A_DAY - self.start

    @property
    def is_timed(self) -> bool:
        """Whether rows have times."""
        return TIME_COLUMNS[self.name] in self.rows.names

    @property
    def no_days(self) -> str:
        """Why rows cannot be counted by day; empty where they can."""
        column = TIME_COLUMNS[self.name]
        if not self.is_timed:
            return f"no {column} column in {self.name}"
        return "" if len(self.known.counts) else f"no {column} in the {self.name} of the reference"

    @property
    def no_hours(self) -> str:
        """Why rows cannot be counted by time of day; empty where they can."""
        if self.no_days or self.known.profile.any():
            return self.no_days
        return f"the {TIME_COLUMNS[self.name]} of {self.name} has dates and no times of the day"

    @cached_property
    def schema(self) -> pa.Schema:
        """All columns of the file."""
        return ds.dataset(str(self.path)).schema

    @cached_property
    def doubled(self) -> float:
        """Share of the rows with an equal one before them, ids left aside."""
        rows = mix(self.marks.content * np.uint64(3) + mix(_to_moments(self.marks.times)))
        return 1.0 - len(np.unique(rows)) / max(len(rows), 1)

    def columns(self, *kinds: str) -> list[str]:
        """Columns of some kinds that the feed has, and had."""
        return [c for c in self.known.columns(*kinds) if c in self.rows.names]

    def find_days_before(self, days: float) -> list[tuple[float, float]]:
        """The latest days before the window on which the shop was open, oldest first."""
        return open_spans(self.closings, self.start, days)

    def read_beside(self, columns: Sequence[str], spans: Sequence[tuple[float, float]]) -> pa.Table:
        """Rows of this feed in spans of time, in days since 1970."""
        wanted = None
        for low, high in spans:
            span = _between(TIME_COLUMNS[self.name], low, high)
            wanted = span if wanted is None else wanted | span
        return ds.dataset(str(self.path)).to_table(columns=list(columns), filter=wanted)

    @cached_property
    def vectors(self) -> Frame:
        """A sample of the window's rows with their vectors; no rows where there are none."""
        names = vector_columns(self.known.schema)
        names = [name for name in names if name in self.schema.names]
        beside = [c for c in (self.known.group, "seller_id") if c and c in self.schema.names]
        if not names or not len(self):
            return Frame(pa.table({}), np.empty(0))
        scanner = ds.dataset(str(self.path)).scanner(
            columns=[*names, *beside], filter=_within(self), batch_size=16_384
        )
        random, parts = np.random.default_rng(0), []
        share = min(1.0, _VECTOR_ROWS / len(self))
        for batch in scanner.to_batches():
            kept = np.flatnonzero(random.random(batch.num_rows) < share)
            parts.append(batch.take(pa.array(kept)))
        table = pa.Table.from_batches(parts)
        return Frame(table, np.full(table.num_rows, np.nan))

    @cached_property
    def found_again(self) -> tuple[Frame, Frame]:
        """Known listings that the items file still has: as they were, and as they are now."""
        wanted = self.listings.column("item_id")
        names = [n for n in self.listings.names if n in self.schema.names]
        kept = pc.is_in(ds.field("item_id"), value_set=wanted)
        listed = self.listings.day[np.isfinite(self.listings.day)]
        if self.is_timed and len(listed):  # so that other parts of the file are not read
            kept &= _between(TIME_COLUMNS[self.name], listed.min() - 2, listed.max() + 2)
        table = ds.dataset(str(self.path)).to_table(columns=names, filter=kept)
        return _pair(self.listings, table)

    def encoded_again(self, path: Path) -> tuple[Frame, Frame]:
        """Known listings that were encoded again: as they were, and as they are now."""
        return _pair(self.listings, ds.dataset(str(path)).to_table())


def read_feed_window(
    name: str,
    path: Path,
    window: Window,
    is_last: bool,
    settings: FaultSettings,
    known: KnownFeed,
    listings: Frame,
    data: MonitoredData,
    closings: Sequence[Closing] = (),
) -> Feed | None:
    """A feed in one window; None where its rows have no time and belong to a later window."""
    table = ds.dataset(str(path))
    timed = TIME_COLUMNS[name] in table.schema.names
    if not timed and not is_last:
        return None
    vectors = vector_columns(table.schema)
    names = [n for n in table.schema.names if n not in vectors]
    start, end = (t.timestamp() / tables.SECONDS_A_DAY for t in (window.start, window.end))
    within = _between(TIME_COLUMNS[name], start, end) if timed else None
    rows = table.to_table(columns=names, filter=within)
    times = np.full(rows.num_rows, np.nan)
    if timed:
        times = tables.to_days(rows[TIME_COLUMNS[name]])
    marks = mark_rows(name, rows, times, math.ceil(len(times) / settings.window_rows))
    frame = Frame(rows, times)
    if rows.num_rows > settings.window_rows:
        random = np.random.default_rng(0)
        frame = frame.take(np.sort(random.permutation(len(times))[: settings.window_rows]))
    return Feed(
        name, window, is_last, settings, known, listings, data, path, frame, times, marks, closings
    )


def mark_rows(name: str, rows: pa.Table, times: NDArray[np.float64], one_in: int = 1) -> Marks:
    """Hashes of rows without ids and dates, of one in some moments of the day.

    A row that comes again at the same time of the day, on this day or another, is marked with it.
    """
    kept = np.arange(len(times))
    if one_in > 1:
        moments = mix(_to_moments(times % 1.0))
        chosen = np.flatnonzero(moments % np.uint64(one_in) == 0)
        if one_in * len(chosen) < 3 * len(times):  # else there are few moments
            kept, rows, times = chosen, rows.take(pa.array(chosen)), times[chosen]
    columns = content_columns(name, rows.column_names)
    return Marks(hash_rows([rows[c] for c in columns], len(kept)), times, one_in)


def content_columns(name: str, names: Sequence[str]) -> list[str]:
    """The columns that make a row of a feed what it is; an item that has too few has its id."""
    columns = [column for column in CONTENT[name] if column in names]
    return columns if len(columns) > 2 else [*columns, "item_id"]


def _to_moments(times: NDArray[np.float64]) -> Hashes:
    """[n] whole milliseconds."""
    return np.round(np.nan_to_num(times) * 86_400e3).astype(np.int64).view(np.uint64)


def _within(feed: Feed) -> ds.Expression | None:
    if not feed.is_timed:
        return None
    return _between(TIME_COLUMNS[feed.name], feed.start, feed.start + feed.days)


def _between(column: str, start: float, end: float) -> ds.Expression:
    low, high = (
        pa.scalar(round(day * tables.SECONDS_A_DAY * 1e6), pa.int64()).cast(_TIME)
        for day in (start, end)
    )
    return (ds.field(column) >= low) & (ds.field(column) < high)


def _pair(before: Frame, now: pa.Table) -> tuple[Frame, Frame]:
    ids = now["item_id"].combine_chunks()
    rows = pc.index_in(before.column("item_id"), value_set=ids)
    there = np.flatnonzero(pc.is_valid(rows).to_numpy(zero_copy_only=False))
    found = now.take(rows.take(pa.array(there)))
    return before.take(there), Frame(found, np.full(len(there), np.nan))


def code_groups(feed: Feed, now: Frame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[n0], [n] the groups of known supply that rows of the reference and of ``now`` belong to.

    A row of new supply has -1. Where there are no groups, all rows belong to group 0.
    """
    column = feed.known.group
    if not column or column not in now.names:
        return np.zeros(len(feed.known.rows), np.int64), np.zeros(len(now), np.int64)
    return feed.known.once(code_known, column), code_as_known(feed.known, now, column)


def code_known(known: KnownFeed, column: str) -> NDArray[np.int64]:
    """[n0] the place of each cell of the reference in the column's vocabulary."""
    return code_as_known(known, known.rows, column)


def code_as_known(known: KnownFeed, rows: Frame, column: str) -> NDArray[np.int64]:
    """[n] the place of each cell in the column's known vocabulary, -1 where it is not there."""
    return code_cells(rows.column(column), np.array(list(known.vocabulary(column))))


def code_cells(cells: pa.Array, values: NDArray[np.str_]) -> NDArray[np.int64]:
    """[n] the place of each cell among some values, -1 for others and for missing cells."""
    if not pa.types.is_string(cells.type):
        cells = pc.cast(cells, pa.string())
    return code_values(cells, values)
