"""Windows: periods of time, and the rows of every table that fall into one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from monitoring import tables
from monitoring.expectation import Floats
from monitoring.frame import Frame, combine
from monitoring.reference import Reference
from monitoring.settings import MeasureSettings
from refit.drift import Window
from refit.errors import DataValidationError, RefitError

WindowTable = tuple[Frame | None, str]
"""A window's rows and a detail to report with them; or None and the reason why there are none."""


@dataclass(frozen=True)
class MonitoredData:
    """Where the data of a run of the monitor is.

    Attributes:
        log: Prediction log: a folder, or one Parquet file.
        events: Parquet of events in contract columns; their ``request_id`` makes them outcomes.
        items: Parquet of the current items table in contract columns. With ``listed_at`` a
            window's rows are its new listings; without, all items belong to the last window.
        index: Index folder of the current live stock; it belongs to the window that contains its
            ``as_of``, or to the last window when that is later.
        reencoded: Parquet of listings that were encoded again for this run: ``item_id`` and the
            vector columns. Known listings among them are compared with the vectors they had.
        indexed: The time of a bundle's index, by the bundle's id, as far as it is known.
        unreadable: Why ``log``, ``events`` or ``items`` could not be read, though it was given.
    """

    log: Path
    events: Path | None = None
    items: Path | None = None
    index: Path | None = None
    reencoded: Path | None = None
    indexed: Mapping[str, datetime] = field(default_factory=dict)
    unreadable: Mapping[str, RefitError] = field(default_factory=dict)


def daily_windows(end: datetime, count: int, days: float = 1.0) -> list[Window]:
    """The last ``count`` windows of ``days`` length before ``end``, oldest first."""
    length = timedelta(days=days)
    starts = [end - length * back for back in range(count, 0, -1)]
    return [Window(start=start, end=start + length) for start in starts]


@dataclass(frozen=True)
class WindowReader:
    """Reads the rows of windows; what all windows need is read once.

    Attributes:
        settings: Sizes and columns.
        reference: An opened reference.
        data: Where the tables are.
    """

    settings: MeasureSettings
    reference: Reference
    data: MonitoredData

    def read(self, window: Window, is_last: bool) -> dict[str, WindowTable]:
        """Every table that has rows for a window; of a table that cannot be read, the reason.

        Args:
            window: The window.
            is_last: Whether it is the newest of the run; it also gets data that carries no time.
        """
        readers: dict[str, Callable[[], WindowTable | None]] = {
            "answers": lambda: self._read_answers(window),
            "listings": lambda: self._read_listings(window, is_last),
            "items": lambda: self._read_items(window, is_last),
            "events": lambda: self._read_events(window),
        }
        found: dict[str, WindowTable] = {}
        for name, read in readers.items():
            try:
                if name in self.data.unreadable:
                    raise self.data.unreadable[name]
                table = read()
            except Exception as error:
                table = None, f"{type(error).__name__}: {error}"
            if table is not None:
                found[name] = table
        return found

    @cached_property
    def _attributes(self) -> tables.Attributes:
        columns = self.settings.mix_columns
        stock = [self.reference.attributes]
        if self.data.items is not None:
            wanted = {"item_id", "price", *columns}
            names = [n for n in pq.read_schema(self.data.items).names if n in wanted]
            stock.append(pq.read_table(self.data.items, columns=names))
        return tables.Attributes.of(stock, columns, self.reference.manifest.price_edges)

    def _read_answers(self, window: Window) -> WindowTable:
        answers = tables.read_answers(
            self.data.log,
            window,
            self.reference.manifest.embedding_version,
            self.settings.window_rows,
            self.settings,
            self._attributes,
            self.data.indexed,
        )
        left_out = []
        if answers.foreign:
            left_out.append(f"{answers.foreign} answers of other towers")
        if answers.fallbacks:
            left_out.append(f"{answers.fallbacks} fallbacks")
        return answers.frame, f"left out: {' and '.join(left_out)}" if left_out else ""

    def _read_listings(self, window: Window, is_last: bool) -> WindowTable | None:
        """The new listings that came with an index of this window; None where none came."""
        if self.data.index is None:
            return (None, "no index of the current stock was given") if is_last else None
        towers, as_of, stock, vectors = tables.read_listings(self.data.index)
        if as_of is None:
            return (None, "the index does not name its time (as_of)") if is_last else None
        longest = timedelta(days=self.settings.index_days)
        if as_of < window.start or as_of <= self.reference.manifest.end:
            if not is_last or window.end - as_of <= longest:
                return None
            return None, f"the index is of {as_of:%Y-%m-%d %H:%M}: run index_refresh"
        if as_of > window.end and not is_last:
            return None
        if towers != self.reference.manifest.embedding_version:
            return None, (
                f"the index was built with towers {towers}, the reference with "
                f"{self.reference.manifest.embedding_version}: vectors of other towers cannot be "
                "compared"
            )
        listed = self._find_listing_times(stock["item_id"])
        since = max(self.reference.manifest.end, as_of - longest)
        new = np.flatnonzero(listed >= since.timestamp() / tables.SECONDS_A_DAY)
        if not len(new):
            return None, f"the index of {as_of:%Y-%m-%d %H:%M} holds no new listings"
        rows = stock.take(pa.array(new))
        size = self.settings.window_rows
        frame = tables.listings_frame(rows, vectors[new], listed[new], size, self.settings)
        return frame, f"listed since {since:%Y-%m-%d %H:%M}"

    def _find_listing_times(self, item_ids: pa.ChunkedArray) -> Floats:
        """[n] when items were listed, in days; NaN where the items table does not say."""
        if self.data.items is None:
            raise DataValidationError("no items table was given, so new listings are not known")
        if "listed_at" not in pq.read_schema(self.data.items).names:
            raise DataValidationError("the items table has no listed_at: new listings not known")
        items = pq.read_table(self.data.items, columns=["item_id", "listed_at"])
        row = pc.index_in(combine(item_ids), value_set=combine(items["item_id"]))
        return tables.to_days(items["listed_at"].take(row))

    def _read_items(self, window: Window, is_last: bool) -> WindowTable | None:
        if self.data.items is None:
            return None, "no items table was given"
        timed = "listed_at" in pq.read_schema(self.data.items).names
        if not timed and not is_last:
            return None
        size = self.settings.window_rows
        frame = tables.read_table(self.data.items, "listed_at", window, size, self.settings)
        return frame, "new listings" if timed else "all items"

    def _read_events(self, window: Window) -> WindowTable:
        if self.data.events is None:
            return None, "no events were given"
        size = self.settings.window_rows
        frame = tables.read_table(self.data.events, "event_time", window, size, self.settings)
        if not self.reference.manifest.organic_events:
            return frame, ""
        return tables.select_organic(frame), "events that did not follow from an answer"
