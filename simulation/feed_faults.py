"""Faults of the feeds that a team exports: pure functions over the events, items and users tables.

A fault is in effect from a time on. What a table holds then depends on its true rows, the fault and
the time of the export alone: the same rows are hit in every export, whatever else the table holds.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import AwareDatetime, Field, field_validator, model_validator

from refit.errors import UsageError
from refit.settings import Settings

Feeds = Mapping[str, pa.Table]
"""``events``, ``items`` and ``users`` in the columns of the contract."""
Mask = NDArray[np.bool_]

TIME_COLUMNS = {"events": "event_time", "items": "listed_at"}
ID_COLUMNS = {"events": "user_id", "items": "item_id"}
"""Whose rows a share of a feed is: the events of some users, or some of the listings."""
NULL_WORDS = ("N/A", "-", "none")
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class FaultNote:
    """What a fault does, and what a person would see.

    Attributes:
        does: The effect.
        sign: What a person who looks at the feed sees.
        tables: The tables that it can be a fault of; the first is the default.
        column: The default column; empty where the fault is one of whole rows.
        defaults: Default values of other fields of ``FeedFault``.
    """

    does: str
    sign: str
    tables: tuple[str, ...] = ("items",)
    column: str = ""
    defaults: tuple[tuple[str, Any], ...] = ()


class FeedFault(Settings):
    """One fault of one feed.

    It is called with the true tables and the time of an export, and returns what is exported.

    Attributes:
        name: One of ``FAULTS``.
        since: Rows from this time on are hit, by ``listed_at`` or ``event_time``.
        days: The fault lasts this long; None is for ever.
        mended: Whether the rows of those days are right in exports after them.
        whole: Whether earlier rows are hit too, in exports from ``since`` on, as when a team
            exports the whole table every time.
        table: ``items`` or ``events``; empty takes the fault's own.
        column: The column; empty takes the fault's own.
        other: The second column of ``columns_swapped``.
        value: Only rows with this value in ``by`` are hit, such as one surface.
        by: The column of ``value``; ``country`` is that of the event's user or of the seller.
        share: Share of the listings, or of the users with their events, that are hit.
        factor: Of ``number_scaled`` and ``vectors_scaled``.
        hours: Of ``clock_shifted``, ``clock_ahead`` and ``rows_late``.
        words: What values become in ``values_renamed``: ``upper``, ``translated`` or ``prefixed``.
        length: Characters that ``text_cut`` leaves.
        lag_days: How old the rows are that ``rows_replayed`` sends again.
        new_ids: Whether the second row of ``rows_doubled`` has an id of its own.
        seed: Which rows are hit.
    """

    name: str
    since: AwareDatetime
    days: float | None = Field(default=None, gt=0.0)
    mended: bool = False
    whole: bool = False
    table: str = ""
    column: str = ""
    other: str = ""
    by: str = ""
    value: str = ""
    share: float = Field(default=1.0, gt=0.0, le=1.0)
    factor: float = 100.0
    hours: float = 2.0
    words: str = "upper"
    length: int = Field(default=12, ge=1)
    lag_days: float = Field(default=7.0, gt=0.0)
    new_ids: bool = False
    seed: int = 0

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in FAULTS:
            raise ValueError(f"unknown fault; known faults: {', '.join(sorted(FAULTS))}")
        return name

    @field_validator("words")
    @classmethod
    def _is_a_spelling(cls, words: str) -> str:
        if words not in _SPELLINGS:
            raise ValueError(f"choose from {', '.join(_SPELLINGS)}")
        return words

    @model_validator(mode="before")
    @classmethod
    def _take_defaults(cls, values: Any) -> Any:
        note = FAULTS.get(values.get("name", "")) if isinstance(values, Mapping) else None
        if note is None:
            return values
        own = {name: value for name, value in values.items() if value != ""}
        return {"table": note.tables[0], "column": note.column, **dict(note.defaults), **own}

    @model_validator(mode="after")
    def _has_a_table(self) -> "FeedFault":
        tables = FAULTS[self.name].tables
        if self.table not in tables:
            raise ValueError(f"{self.name} is a fault of {' or '.join(tables)}, not {self.table!r}")
        return self

    @property
    def feed(self) -> str:
        """Where it begins: the table, with the column where the fault is one of a column."""
        return f"{self.table}.{self.column}" if self.column else self.table

    def __call__(self, feeds: Feeds, now: datetime) -> Feeds:
        """What is exported at a time.

        Args:
            feeds: The true tables as known then.
            now: The time of the export.

        Raises:
            UsageError: The table has no such column, or its values are of another type.
        """
        if now < self.since or self._is_mended(now):
            return feeds
        table = feeds[self.table]
        for name in (self.column, self.other):
            if name and name not in table.column_names:
                raise UsageError(
                    f"{self.name}: {self.table} has no column {name!r}; "
                    f"there are {', '.join(table.column_names)}"
                )
        return {**feeds, self.table: _APPLY[self.name](self, table, self._hit(feeds), now)}

    def _is_mended(self, now: datetime) -> bool:
        return self.mended and self.days is not None and now >= self.since + _days(self.days)

    def _hit(self, feeds: Feeds) -> Mask:
        """[N] which rows of the table are hit."""
        table = feeds[self.table]
        time = _stamps(table[TIME_COLUMNS[self.table]])
        end = np.inf if self.days is None else _stamp(self.since + _days(self.days))
        hit = (time >= _stamp(self.since)) & (time < end)
        if self.whole:
            hit |= time < _stamp(self.since)
        if self.value:
            hit &= np.asarray(pc.fill_null(pc.equal(_source(self, feeds), self.value), False))
        if self.share < 1.0:
            rows = np.flatnonzero(hit)
            ids = table[ID_COLUMNS[self.table]].take(pa.array(rows)).to_pylist()
            hit[rows] = draw(ids, f"{self.name} {self.seed}") < self.share
        return np.asarray(hit, dtype=np.bool_)


def draw(ids: Iterable[str], purpose: str) -> NDArray[np.float64]:
    """[N] a number from 0 to 1 for each id, which is always the same for one purpose.

    Source of the mixing: Steele, Lea and Flood, 2014 (SplitMix64).
    """
    mixed = np.array([zlib.crc32(i.encode()) for i in ids], dtype=np.uint64)
    mixed += np.uint64(zlib.crc32(purpose.encode())) << np.uint64(32)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) / 2.0**64, dtype=np.float64)


def encode_again(
    items: pa.Table, item_ids: Sequence[str], faults: Sequence[Any], now: datetime
) -> pa.Table:
    """The image vectors that the encoder of a time gives for known listings.

    Without a fault of the encoder they are the vectors that the listings had from the start.

    Args:
        items: The true items table.
        item_ids: Known listings, of any age.
        faults: Faults of the feeds; those that are not of the encoder change nothing.
        now: When they are encoded.

    Returns:
        ``item_id`` and ``image_embedding`` of those that are in the items table, in their order.
    """
    rows = pc.index_in(pa.array(item_ids, pa.string()), items["item_id"].combine_chunks())
    again = items.take(rows.drop_null())
    feeds: Feeds = {"items": again}
    for fault in faults:
        if isinstance(fault, FeedFault) and fault.name in ENCODER_FAULTS:
            end = None if fault.days is None else fault.since + _days(fault.days)
            if fault.since <= now and (end is None or now < end):
                feeds = fault.model_copy(update={"whole": True})(feeds, now)
    return feeds["items"].select(["item_id", "image_embedding"])


def _number_scaled(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    values = _numbers(fault, table)
    return _replace(table, fault.column, hit, np.round(values * fault.factor, 2))


def _number_overflows(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    """Thousandths in 16 bits: 33 becomes -32.536."""
    values = np.nan_to_num(_numbers(fault, table))
    wrapped = (np.round(values * 1000).astype(np.int64) + 2**15) % 2**16 - 2**15
    return _replace(table, fault.column, hit, wrapped / 1000.0)


def _values_renamed(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    return _respell(fault, table, hit, _SPELLINGS[fault.words])


def _null_spelled(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    _strings(fault, table)
    ids = table[ID_COLUMNS[fault.table]].filter(pa.array(hit)).to_pylist()
    words = [NULL_WORDS[int(word * len(NULL_WORDS))] for word in draw(ids, "words")]
    return _replace_some(table, fault.column, hit, pa.array(words, pa.string()))


def _column_null(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    kind = table.schema.field(fault.column).type
    return _replace_some(table, fault.column, hit, pa.nulls(int(hit.sum()), kind))


def _text_cut(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    return _respell(fault, table, hit, lambda text: text[: fault.length])


def _text_garbled(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    """UTF-8 read as UTF-16."""
    return _respell(
        fault, table, hit, lambda text: text.encode().decode("utf-16-le", errors="replace")
    )


def _columns_swapped(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    first, second = table[fault.column], table[fault.other]
    mask = pa.array(hit)
    table = _with(table, fault.column, pc.if_else(mask, second, first))
    return _with(table, fault.other, pc.if_else(mask, first, second))


def _feed_stale(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    """The table as it was when it stopped: later rows and later sales are unknown."""
    if fault.days is not None and now >= fault.since + _days(fault.days):
        return table
    kept = table.filter(pa.array(~hit))
    if "delisted_at" not in kept.column_names:
        return kept
    late = _stamps(kept["delisted_at"]) >= _stamp(fault.since)
    return _replace_some(kept, "delisted_at", late, pa.nulls(int(late.sum()), TIME))


def _rows_lost(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    return table.filter(pa.array(~hit))


def _rows_late(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    time = _stamps(table[TIME_COLUMNS[fault.table]])
    return table.filter(pa.array(~(hit & (time >= _stamp(now - timedelta(hours=fault.hours))))))


def _rows_doubled(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    again = table.filter(pa.array(hit))
    if fault.new_ids:
        name = "item_id" if fault.table == "items" else "session_id"
        again = _with(again, name, pc.binary_join_element_wise(again[name], "copy", "-"))
    return _by_time(fault, pa.concat_tables([table, again]))


def _rows_replayed(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    """Every day's rows are those of one earlier day, with today's dates."""
    name = TIME_COLUMNS[fault.table]
    time, day = _stamps(table[name]), _stamp(fault.since) - _micros(_days(fault.lag_days))
    source = table.filter(pa.array((time >= day) & (time < day + _micros(_days(1)))))
    parts = [table.filter(pa.array(~hit))]
    end = now if fault.days is None else min(now, fault.since + _days(fault.days))
    for ahead in range(max(0, (end - fault.since).days)):
        moved = _stamps(source[name]) + _micros(_days(fault.lag_days + ahead))
        part = _with(source, name, pa.array(moved, TIME))
        if "delisted_at" in part.column_names:
            part = _with(part, "delisted_at", pa.nulls(part.num_rows, TIME))
        parts.append(part)
    return _by_time(fault, pa.concat_tables(parts))


def _clock_shifted(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    name = TIME_COLUMNS[fault.table]
    time = _stamps(table[name])
    moved = np.where(hit, time + _micros(timedelta(hours=fault.hours)), time)
    mask = np.asarray(pc.is_null(table[name]))
    return _by_time(fault, _with(table, name, pa.array(moved, TIME, mask=mask)))


def _vectors_rotated(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    def rotate(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        width = vectors.shape[1]
        drawn = np.random.default_rng([fault.seed, 1]).normal(size=(width, width))
        return np.asarray(vectors @ np.linalg.qr(drawn)[0], dtype=np.float32)

    return _map_vectors(fault, table, hit, rotate)


def _vectors_scaled(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    return _map_vectors(fault, table, hit, lambda vectors: np.float32(fault.factor) * vectors)


def _vectors_zero(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    return _map_vectors(fault, table, hit, np.zeros_like)


def _vectors_shuffled(fault: FeedFault, table: pa.Table, hit: Mask, now: datetime) -> pa.Table:
    """Every listing gets the vector of another one of its batch: a day's listings, or all."""

    def shuffle(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        days = _stamps(table[TIME_COLUMNS[fault.table]])[hit] // _micros(_days(1))
        days = np.zeros_like(days) if fault.whole else days
        order = np.argsort(days, kind="stable")
        starts = np.flatnonzero(np.diff(days[order], prepend=days.min(initial=0) - 1))
        source = np.empty_like(order)
        for rows in np.split(order, starts[1:]):
            source[rows] = np.roll(rows, 1)
        return vectors[source]

    return _map_vectors(fault, table, hit, shuffle)


def _map_vectors(
    fault: FeedFault,
    table: pa.Table,
    hit: Mask,
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> pa.Table:
    if not hit.any():
        return table
    kind = table.schema.field(fault.column).type
    if not pa.types.is_list(kind):
        raise UsageError(f"{fault.name}: {fault.feed} does not hold vectors")
    lists = table[fault.column].filter(pa.array(hit)).combine_chunks()
    vectors = np.asarray(lists.flatten(), dtype=np.float32)
    if lists.null_count or len(vectors) % len(lists):
        raise UsageError(f"{fault.name}: vectors of {fault.feed} are missing or differ in length")
    changed = change(vectors.reshape(len(lists), -1))
    width = changed.shape[1]
    offsets = pa.array(np.arange(len(lists) + 1, dtype=np.int32) * width)
    new = pa.ListArray.from_arrays(offsets, pa.array(changed.ravel(), kind.value_type))
    return _replace_some(table, fault.column, hit, new)


def _respell(fault: FeedFault, table: pa.Table, hit: Mask, spell: Callable[[str], str]) -> pa.Table:
    values = _strings(fault, table).filter(pa.array(hit)).to_pylist()
    spelled = {value: spell(value) for value in set(values) if value is not None}
    new = [spelled.get(value) for value in values]
    return _replace_some(table, fault.column, hit, pa.array(new, pa.string()))


def _translate(text: str) -> str:
    """Words of another language: each word is spelled by a fixed rule, and is no word of ours."""
    return " ".join(word[::-1].lower() + "e" for word in text.split(" "))


_SPELLINGS: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "translated": _translate,
    "prefixed": lambda text: f"cat/{text}",
}


def _source(fault: FeedFault, feeds: Feeds) -> pa.ChunkedArray:
    """[N] the column that ``value`` is a value of."""
    table = feeds[fault.table]
    if fault.by in table.column_names:
        return table[fault.by]
    if fault.by == "country":
        users, person = feeds["users"], "user_id" if fault.table == "events" else "seller_id"
        rows = pc.index_in(table[person], users["user_id"].combine_chunks())
        return users["country"].take(rows)
    raise UsageError(
        f"{fault.name}: by must be a column of {fault.table}, or the country of its users or "
        f"sellers; got {fault.by!r}"
    )


def _numbers(fault: FeedFault, table: pa.Table) -> NDArray[np.float64]:
    kind = table.schema.field(fault.column).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise UsageError(f"{fault.name}: {fault.feed} does not hold numbers")
    return np.asarray(pc.cast(table[fault.column], pa.float64()).to_numpy(), dtype=np.float64)


def _strings(fault: FeedFault, table: pa.Table) -> pa.ChunkedArray:
    if not pa.types.is_string(table.schema.field(fault.column).type):
        raise UsageError(f"{fault.name}: {fault.feed} does not hold text")
    return table[fault.column]


def _replace(table: pa.Table, column: str, hit: Mask, values: NDArray[np.float64]) -> pa.Table:
    kind = table.schema.field(column).type
    new = pc.cast(pa.array(values[hit], from_pandas=True), kind)
    return _replace_some(table, column, hit, new)


def _replace_some(table: pa.Table, column: str, hit: Mask, values: pa.Array) -> pa.Table:
    """The table with other values where rows are hit; ``values`` are those of the hit rows."""
    if not hit.any():
        return table
    old = table[column].combine_chunks()
    place = np.arange(len(hit))
    place[hit] = len(hit) + np.arange(int(hit.sum()))
    return _with(table, column, pa.concat_arrays([old, values]).take(pa.array(place)))


def _with(table: pa.Table, column: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, values)


def _by_time(fault: FeedFault, table: pa.Table) -> pa.Table:
    return table.sort_by(TIME_COLUMNS[fault.table]) if fault.table == "events" else table


def _days(days: float) -> timedelta:
    return timedelta(days=days)


def _micros(length: timedelta) -> int:
    return length // timedelta(microseconds=1)


def _stamp(time: datetime) -> int:
    return round(time.timestamp() * 1e6)


def _stamps(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """[N] epoch microseconds; -1 for null."""
    return np.asarray(pc.fill_null(pc.cast(column, pa.int64()), -1), dtype=np.int64)


_APPLY: dict[str, Callable[[FeedFault, pa.Table, Mask, datetime], pa.Table]] = {
    "number_scaled": _number_scaled,
    "number_overflows": _number_overflows,
    "values_renamed": _values_renamed,
    "null_spelled": _null_spelled,
    "column_null": _column_null,
    "text_cut": _text_cut,
    "text_garbled": _text_garbled,
    "columns_swapped": _columns_swapped,
    "feed_stale": _feed_stale,
    "source_stopped": _rows_lost,
    "rows_lost": _rows_lost,
    "rows_late": _rows_late,
    "rows_doubled": _rows_doubled,
    "rows_replayed": _rows_replayed,
    "clock_shifted": _clock_shifted,
    "clock_ahead": _clock_shifted,
    "encoder_replaced": _vectors_rotated,
    "encoder_half_rolled": _vectors_rotated,
    "vectors_scaled": _vectors_scaled,
    "vectors_zero": _vectors_zero,
    "vectors_shuffled": _vectors_shuffled,
}

ENCODER_FAULTS = (
    "encoder_replaced",
    "encoder_half_rolled",
    "vectors_scaled",
    "vectors_zero",
    "vectors_shuffled",
)

FAULTS: dict[str, FaultNote] = {
    "number_scaled": FaultNote(
        does="A number is in another unit or currency: new values are multiplied by ``factor``.",
        sign="Prices of new listings are 100 times those of yesterday (cents), or 11 times "
        "(another currency), while nothing else about them changed.",
        column="price",
    ),
    "number_overflows": FaultNote(
        does="A number is kept as thousandths in 16 bits, and wraps around.",
        sign="No price lies above 32.767, and what was dearer is negative or far too cheap.",
        column="price",
    ),
    "values_renamed": FaultNote(
        does="The values of a column are spelled in another way, as ``words`` says.",
        sign="All values of new rows are unknown, and there are as many of them, with the same "
        "shares, as of the known ones that have disappeared.",
        tables=("items", "events"),
        column="category_1",
    ),
    "null_spelled": FaultNote(
        does="A missing value is spelled out: N/A, - or none.",
        sign="New words for nothing in a column whose other values keep their shares.",
        tables=("items", "events"),
        column="brand",
        defaults=(("share", 0.2),),
    ),
    "column_null": FaultNote(
        does="A column is null in a share of the new rows; with ``days`` and ``mended`` it is "
        "filled in later.",
        sign="A column has a larger share of nulls from one hour to the next.",
        tables=("items", "events"),
        column="brand",
    ),
    "text_cut": FaultNote(
        does="Text ends after ``length`` characters.",
        sign="No title is longer than a limit, and many end within a word.",
        column="title",
    ),
    "text_garbled": FaultNote(
        does="Text is decoded as if it was encoded in another way.",
        sign="Characters that no title had before; the words are unreadable.",
        column="title",
    ),
    "columns_swapped": FaultNote(
        does="Two columns have changed places in new rows.",
        sign="A column holds the values of another one, and that one holds its values.",
        column="brand",
        defaults=(("other", "category_2"),),
    ),
    "feed_stale": FaultNote(
        does="The table is no longer written: every export is the one of the first day.",
        sign="The newest listing grows older from day to day, and no listing is sold any more.",
        tables=("items", "events"),
    ),
    "source_stopped": FaultNote(
        does="One source sends nothing: the rows with ``value`` in ``by`` are absent.",
        sign="One surface, country or category has no rows from one hour to the next, and the "
        "others have as many as before.",
        tables=("events", "items"),
        defaults=(("by", "surface"), ("value", "search")),
    ),
    "rows_lost": FaultNote(
        does="A share of the listings, or of the users' events, is absent.",
        sign="Fewer rows; everything else keeps its shares.",
        tables=("items", "events"),
        defaults=(("share", 0.5),),
    ),
    "rows_late": FaultNote(
        does="Rows arrive ``hours`` late: the last hours of every export are empty.",
        sign="The newest row is hours old; the same hours are full in the next export.",
        tables=("events", "items"),
        defaults=(("hours", 6.0),),
    ),
    "rows_doubled": FaultNote(
        does="Rows arrive twice, with the same ids or, with ``new_ids``, with ids of their own.",
        sign="Twice as many rows as the day before, every one with a twin.",
        tables=("items", "events"),
    ),
    "rows_replayed": FaultNote(
        does="Every day is the day ``lag_days`` before the fault again, with today's dates.",
        sign="The rows of a day are those of an earlier day, ids included.",
        tables=("events", "items"),
    ),
    "clock_shifted": FaultNote(
        does="Times are ``hours`` later than they were, such as local times read as UTC.",
        sign="The hours of the day have moved; some events come before their request or after "
        "the time of the export.",
        tables=("events", "items"),
    ),
    "clock_ahead": FaultNote(
        does="The clocks of some users are more than a year ahead.",
        sign="Times in the future.",
        tables=("events", "items"),
        defaults=(("hours", 9600.0), ("share", 0.1)),
    ),
    "encoder_replaced": FaultNote(
        does="Vectors of new listings come from another encoder: the old ones, rotated.",
        sign="A known listing that is encoded again has another vector.",
        column="image_embedding",
    ),
    "encoder_half_rolled": FaultNote(
        does="Half of the new listings are encoded by another encoder.",
        sign="Every second known listing that is encoded again has another vector.",
        column="image_embedding",
        defaults=(("share", 0.5),),
    ),
    "vectors_scaled": FaultNote(
        does="Vectors of new listings are multiplied by ``factor``.",
        sign="A known listing that is encoded again has the same direction and another length.",
        column="image_embedding",
        defaults=(("factor", 2.0),),
    ),
    "vectors_zero": FaultNote(
        does="Vectors of new listings are zero.",
        sign="A known listing that is encoded again has a vector of zeros.",
        column="image_embedding",
    ),
    "vectors_shuffled": FaultNote(
        does="Every new listing has the vector of another one of the same day.",
        sign="Vectors are as before taken together; a known listing has that of another one.",
        column="image_embedding",
    ),
}
"""What can go wrong with a feed. Several entries are one mechanism with other defaults."""
