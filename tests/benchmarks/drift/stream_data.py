"""Public streams as the bench reads them: visits in time, and what a model sees of them.

The tables come from the shipped configs through ingestion. None of them says when an item was
listed or a person asked: an item counts as listed on the day it was first bought, and what a person
bought on a day is a visit, which asked at midnight.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.ingestion.ingest import ingest
from monitoring.settings import MeasureSettings
from pipelines.settings import read_settings
from refit.dataset import EVENTS_FILE, ITEMS_FILE
from tests.benchmarks.drift.towers import Floats, Ints, Vocabulary, running_means

LENGTHS = (1, 7, 28)
"""Days of a window, all whole in weeks but the first."""
ROWS = 4
"""A window should have this multiple of the rows that a result needs."""
FIRST_PART = 1 / 3
"""The first model is fitted when this share of the events has happened."""
HALF_LIVES = (7.0, 30.0, 120.0)
"""Of popularity, in days, as in the shipped configs."""
WORDS, BINS = 150, 8
SECONDS = 86_400
STAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Stream:
    """Purchases over years, cut into windows.

    Attributes:
        name: Which one.
        events: Purchases in order of time, ``visit`` among the columns.
        items: All items, with ``listed_at``.
        context_columns: Columns of the events that describe a request.
        days: Length of a window.
        start: Day, since 1970, on which the first window begins.
        first: The window before which the first model is fitted.
        count: Windows in all.
    """

    name: str
    events: pa.Table
    items: pa.Table
    context_columns: tuple[str, ...]
    days: int
    start: int
    first: int
    count: int

    def begin(self, window: int) -> datetime:
        """When a window begins."""
        return to_time(self.start + window * self.days)

    @cached_property
    def event_visit(self) -> Ints:
        """[E] the visit of each event."""
        return np.asarray(self.events["visit"], dtype=np.int64)

    @cached_property
    def event_item(self) -> Ints:
        """[E] the row of each event's item."""
        rows = pc.index_in(self.events["item_id"], self.items["item_id"].combine_chunks())
        return np.asarray(rows, dtype=np.int64)

    @cached_property
    def event_window(self) -> Ints:
        """[E] the window of each event."""
        return (_days(self.events["event_time"]) - self.start) // self.days

    @cached_property
    def first_event(self) -> Ints:
        """[V] the first event of each visit, ascending."""
        return np.unique(self.event_visit, return_index=True)[1].astype(np.int64)

    @cached_property
    def visit_window(self) -> Ints:
        """[V] the window of each visit, ascending."""
        return self.event_window[self.first_event]

    @cached_property
    def visit_user(self) -> Ints:
        """[V] number of the person of each visit."""
        users = self.events["user_id"].combine_chunks().dictionary_encode().indices
        return np.asarray(users, dtype=np.int64)[self.first_event]

    @cached_property
    def listed_window(self) -> Ints:
        """[N] the window in which each item was listed."""
        return (_days(self.items["listed_at"]) - self.start) // self.days

    def visits(self, window: int) -> Ints:
        """The visits of a window."""
        low, high = np.searchsorted(self.visit_window, [window, window + 1])
        return np.arange(low, high)


class Inputs:
    """What towers read of a stream; nothing in it was known later than it is used.

    Attributes:
        content: [N, F] words of the title, categories, brand and price.
        histories: [V, F] means of what each person bought before each visit.
        contexts: [V, C] the context of each visit, and 1 for whether there is a history.
        popularity: [W + 1, N, H] logs of decayed purchases at the begin of each window, relative to
            those of the other items of then: a shop that grows has no more popular items.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.content = encode_items(stream.items)
        users = stream.events["user_id"].combine_chunks().dictionary_encode().indices
        user = np.asarray(users, dtype=np.int64)
        asked = stream.first_event
        ones = np.ones(len(user), dtype=np.float32)
        self.histories = running_means(user, stream.event_item, ones, self.content, asked)
        known = np.abs(self.histories).sum(axis=1, keepdims=True) > 0
        rows = stream.events.take(pa.array(asked))
        columns = [encode_column(rows[name]) for name in stream.context_columns]
        self.contexts = np.concatenate(
            [*columns, known, np.ones_like(known)], axis=1, dtype=np.float32
        )
        self.popularity = compare_with_stock(count_decayed(stream), stream.listed_window)

    def items(self, window: int) -> Floats:
        """[N, F + H] features of all items at the begin of a window."""
        return np.concatenate([self.content, self.popularity[window]], axis=1)

    def queries(self, visits: Ints) -> Floats:
        """[n, F + C] features of visits."""
        return np.concatenate([self.histories[visits], self.contexts[visits]], axis=1)


def read_online_retail(data: Path, scratch: Path) -> Stream:
    """Both files as one stream of two years.

    They come from different mirrors, whose differences are no drift of the shop: only the United
    Kingdom, which both have; titles in small letters; days without hours.
    """
    year = {"validation_start": "2010-10-01", "test_start": "2010-11-01", "end": "2010-12-01"}
    first = _ingest(
        "online_retail",
        data / "online_retail" / "transactions_uk_2010-01_2010-12.parquet",
        scratch,
        **year,
    )
    path = data / "online_retail" / "transactions_2010-12_2011-12.parquet"
    second = _ingest("online_retail", path, scratch)
    events = pa.concat_tables([first[0], second[0]])
    events = events.filter(pc.equal(events["country"], "United Kingdom")).drop_columns(["country"])
    both = pa.concat_tables([first[1], second[1]])
    _, rows = np.unique(both["item_id"].to_numpy(zero_copy_only=False), return_index=True)
    items = both.take(pa.array(rows))
    title = pc.utf8_trim_whitespace(pc.utf8_lower(items["title"]))
    items = items.set_column(items.column_names.index("title"), "title", title)
    return make_stream("Online Retail", events, items, ())


def read_renttherunway(data: Path, scratch: Path) -> Stream:
    """Rentals with the occasion and the wearer."""
    return make_stream("RentTheRunway", *_ingest("renttherunway", data / "renttherunway", scratch))


def read_vibrent(data: Path, scratch: Path) -> Stream:
    """Rentals until hardly any were left."""
    return make_stream("Vibrent", *_ingest("vibrent", data / "vibrent_partial", scratch))


STREAMS: Mapping[str, Callable[[Path, Path], Stream]] = {
    "Online Retail": read_online_retail,
    "RentTheRunway": read_renttherunway,
    "Vibrent": read_vibrent,
}
"""By name ``read(data, scratch)``: from the folder of public data sets."""


def _ingest(
    config: str, path: Path, scratch: Path, **changes: str
) -> tuple[pa.Table, pa.Table, tuple[str, ...]]:
    changed = [f"ingestion.{name}={value}" for name, value in changes.items()]
    settings = read_settings(config, (f"ingestion.path={path}", *changed)).ingestion
    out = scratch / f"ingested-{config}-{path.stem}"
    manifest = ingest(settings, out)
    tables = (pq.read_table(out / file) for file in (EVENTS_FILE, ITEMS_FILE))
    return (*tables, manifest.context_columns)


def make_stream(
    name: str, events: pa.Table, items: pa.Table, context_columns: Sequence[str]
) -> Stream:
    """Cut purchases into visits and windows; items that nobody bought are left out.

    Windows end with the last whole one. Their length is the shortest of ``LENGTHS`` of which nine
    of ten, in the four months before the first model, have ``ROWS`` times the rows that a result
    needs.
    """
    day = _days(events["event_time"])
    code = events["user_id"].combine_chunks().dictionary_encode().indices
    user = np.asarray(code, dtype=np.int64)
    order = np.lexsort((user, day))
    events, day, user = events.take(pa.array(order)), day[order], user[order]
    _, visit = np.unique(day * (int(user.max()) + 1) + user, return_inverse=True)
    noted = {"event_time": pa.array(day * SECONDS * 10**6, STAMP), "visit": pa.array(visit)}
    kept = [n for n in events.column_names if n not in (*noted, "session_id")]
    events = pa.table({**{n: events[n] for n in kept}, **noted})
    listed = pa.TableGroupBy(events, "item_id").aggregate([("event_time", "min")])
    row = pc.index_in(items["item_id"], listed["item_id"].combine_chunks())
    listed_at = listed["event_time_min"].take(row)
    place = items.column_names
    items = items.drop_columns(["listed_at"]) if "listed_at" in place else items
    items = items.append_column("listed_at", listed_at).filter(pc.is_valid(listed_at))
    turn = int(day[int(len(day) * FIRST_PART)])
    begun = day[np.unique(visit, return_index=True)[1]]
    days = choose_length(begun[(begun >= turn - 4 * LENGTHS[-1]) & (begun < turn)], turn)
    first = -(-(turn - int(day[0])) // days)
    start = turn - first * days
    count = (int(day[-1]) + 1 - start) // days
    return Stream(name, events, items, tuple(context_columns), days, start, first, count)


def choose_length(visits: Ints, end: int) -> int:
    """The length of a window, in days, by the days of the visits of the four months before."""
    needed = ROWS * MeasureSettings().minimum_rows
    for length in LENGTHS:
        windows = max(int(end - visits.min()) // length, 1)
        sizes = np.bincount((end - 1 - visits) // length, minlength=windows)[:windows]
        if (sizes >= needed).mean() >= 0.9:
            return length
    return LENGTHS[-1]


def encode_items(items: pa.Table) -> Floats:
    """[N, F] the words of titles, the values of columns, and the price."""
    parts = [np.zeros((items.num_rows, 0))]
    if "title" in items.column_names:
        parts.append(encode_words(items["title"].to_pylist()))
    parts += [encode_column(items[n]) for n in ("category_1", "brand") if n in items.column_names]
    if "price" in items.column_names:
        parts.append(encode_column(items["price"]))
    return np.concatenate(parts, axis=1, dtype=np.float32)


def encode_words(titles: Sequence[str | None]) -> NDArray[np.float64]:
    """[N, words] which of the most frequent words each title has, of unit length."""
    split = [str(title or "").lower().split() for title in titles]
    words = [word for title in split for word in set(title)]
    vocabulary = Vocabulary.of(pa.chunked_array([pa.array(words, pa.string())]), WORDS).values
    column = {word: i for i, word in enumerate(vocabulary)}
    rows = np.zeros((len(split), len(column)))
    for row, title in enumerate(split):
        rows[row, [column[word] for word in title if word in column]] = 1.0
    return rows / np.maximum(np.sqrt(rows.sum(axis=1, keepdims=True)), 1.0)


def encode_column(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """[n, values] one at each value, or in one of some equally large bands of a number.

    A value that occurs later than a model was fitted has no weight in it.
    """
    if not pa.types.is_floating(column.type):
        return Vocabulary.of(column).one_hot(column)
    numbers = np.asarray(column.to_numpy(), dtype=np.float64)
    there = np.isfinite(numbers)
    if not there.any():
        return np.zeros((len(numbers), 0))
    edges = np.unique(np.quantile(numbers[there], np.linspace(0, 1, BINS + 1)[1:-1]))
    band = np.where(there, np.searchsorted(edges, numbers, side="right"), len(edges) + 1)
    return np.eye(len(edges) + 2)[band][:, :-1]


def count_decayed(stream: Stream) -> Floats:
    """[W + 1, N, H] logs of the purchases of items before the begin of windows, the older fewer."""
    day = _days(stream.events["event_time"])
    rates = np.log(2) / np.array(HALF_LIVES)
    counts = np.zeros((stream.items.num_rows, len(rates)))
    out = np.zeros((stream.count + 1, *counts.shape), dtype=np.float32)
    for window in range(stream.count):
        out[window] = np.log1p(counts)
        counts *= np.exp(-rates * stream.days)
        low, high = np.searchsorted(stream.event_window, [window, window + 1])
        before = stream.start + (window + 1) * stream.days - day[low:high]
        weights = np.exp(-rates * before[:, None])
        np.add.at(counts, stream.event_item[low:high], weights)
    out[stream.count] = np.log1p(counts)
    return out


def compare_with_stock(popularity: Floats, listed_window: Ints) -> Floats:
    """[W, N, H] popularity in standard deviations of the items that were listed before a window."""
    out = np.zeros_like(popularity)
    for window, values in enumerate(popularity):
        stock = values[listed_window < window]
        if len(stock):
            out[window] = (values - stock.mean(axis=0)) / np.maximum(stock.std(axis=0), 0.1)
    return out


def to_time(day: int) -> datetime:
    """Midnight of a day since 1970."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=int(day))


def _days(times: pa.ChunkedArray) -> Ints:
    stamps = np.asarray(pc.cast(pc.cast(times, STAMP), pa.int64()), dtype=np.int64)
    return stamps // (SECONDS * 10**6)
