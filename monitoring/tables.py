"""Read what is monitored: answers from the prediction log, listings, items and events.

Every table is returned as a sample of bounded size with equal shares of each day, so that memory
does not grow with traffic.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from monitoring.closings import Closing
from monitoring.frame import Array, Frame, combine, find_missing
from monitoring.settings import MeasureSettings
from refit.bundle import find_build_time
from refit.drift import Window
from refit.errors import DataValidationError
from refit.files import read_json
from refit.log_parts import find_local_parts
from refit.prediction import EXPLORATION, PREDICTION_SCHEMA, keep_first_pages

SECONDS_A_DAY = 86_400
NO_INDEXES: Mapping[str, datetime] = MappingProxyType({})
REQUEST = "request_id"
LISTING_COLUMNS = ("item_id", "category_1", "brand", "price", "title")
ANSWER_COLUMNS = (
    "request_id",
    "user_id",
    "bundle_id",
    "time",
    "context",
    "query_embedding",
    "item_ids",
    "scores",
    "sources",
    "positions",
)


@dataclass(frozen=True)
class Answers:
    """A window's answers: a sample of those that can be compared, and counts of the others.

    Attributes:
        frame: Sampled answers of one pair of towers without fallbacks, see ``read_answers``.
        total: All answers in the window.
        foreign: Answers of other towers, whose vectors and scores cannot be compared.
        fallbacks: Answers of these towers' bundle that the model did not give.
    """

    frame: Frame
    total: int
    foreign: int
    fallbacks: int

    @property
    def own(self) -> int:
        """Answers of these towers, including fallbacks."""
        return self.total - self.foreign


def log_files(log: Path, window: Window | None = None) -> list[str]:
    """The Parquet files of a prediction log, a folder or a file, that may hold a window's rows."""
    if log.is_file():
        return [str(log)]
    folders = []
    for folder, below, names in os.walk(log):
        below[:] = [name for name in below if window is None or _may_hold(name, window)]
        if any(name.endswith(".parquet") for name in names):
            folders.append(Path(folder))
    return [str(path) for folder in sorted(folders) for path in find_local_parts(folder)]


def _may_hold(name: str, window: Window) -> bool:
    if not name.startswith("date="):
        return True
    try:
        day = datetime.fromisoformat(name.removeprefix("date=")).replace(tzinfo=UTC)
    except ValueError:
        return True
    return window.start - timedelta(days=1) < day < window.end


def read_log(log: Path, columns: Sequence[str], window: Window | None = None) -> pa.Table:
    """Columns of the answers in a window; of all answers without one."""
    return read_parts(log_files(log, window), columns, window)


def read_parts(
    files: Sequence[str],
    columns: Sequence[str],
    window: Window | None,
    rows: Array | None = None,
) -> pa.Table:
    """Columns of the answers of parts in a window, or of some of these rows, by their number.

    Numbers are those of the same files: of a log that is listed again they may be others.
    """
    if not files:
        return pa.schema([PREDICTION_SCHEMA.field(name) for name in columns]).empty_table()
    parts = ds.dataset(list(files), schema=PREDICTION_SCHEMA, format="parquet")
    answers = parts.scanner(columns=list(columns), filter=_within("time", window))
    return answers.to_table() if rows is None else answers.take(pa.array(rows))


def _within(column: str, window: Window | None) -> ds.Expression | None:
    if window is None:
        return None
    start, end = (pa.scalar(t, pa.timestamp("us", tz="UTC")) for t in (window.start, window.end))
    return (ds.field(column) >= start) & (ds.field(column) < end)


def _outside(column: str, closing: Closing) -> ds.Expression:
    start, end = (pa.scalar(t, pa.timestamp("us", tz="UTC")) for t in (closing.start, closing.end))
    time = ds.field(column)
    return (time < start) | (time >= end) | time.is_null()


def read_answers(
    log: Path,
    window: Window | None,
    embedding_version: str,
    size: int,
    settings: MeasureSettings,
    attributes: "Attributes",
    indexed: Mapping[str, datetime] = NO_INDEXES,
) -> Answers:
    """Read a window's answers.

    Later pages of a list, and items that were drawn at random, are left out: they say nothing about
    the model. The frame holds one row per answer: ``request_id``, ``user_id``, ``context``,
    ``query_embedding``, ``item_ids`` and ``scores`` (the first ``depth``), ``score`` (their
    mean), ``index_age`` in days, and for each mix column the list of its values among those items.
    """
    files = log_files(log, window)
    narrow = read_parts(files, ("embedding_version", "time", "fallback"), window)
    own = np.asarray(pc.equal(narrow["embedding_version"], embedding_version), dtype=bool)
    fallback = own & np.asarray(pc.is_valid(narrow["fallback"]), dtype=bool)
    rows = np.flatnonzero(own & ~fallback)
    if len(rows) > size:
        rows = np.sort(rows[stratify(to_days(narrow["time"])[rows], size, settings.seed)])
    wide = read_parts(files, ANSWER_COLUMNS, window, None if len(rows) == len(own) else rows)
    frame = _answers_frame(wide, settings, attributes, indexed)
    return Answers(frame, narrow.num_rows, int((~own).sum()), int(fallback.sum()))


def _answers_frame(
    table: pa.Table,
    settings: MeasureSettings,
    attributes: "Attributes",
    indexed: Mapping[str, datetime],
) -> Frame:
    table = _leave_out_drawn(keep_first_pages(table))
    names = ("request_id", "user_id", "context", "query_embedding")
    columns = {name: combine(table[name]) for name in names}
    items, scores = (
        pc.list_slice(combine(table[name]), 0, settings.depth) for name in ("item_ids", "scores")
    )
    columns |= {"item_ids": items, "scores": scores, "score": _mean_of_lists(scores)}
    columns["index_age"] = pa.array(find_index_ages(table, indexed))
    listed = combine(pc.list_flatten(items))
    row = attributes.find(listed)
    unknown = int((row < 0).sum())
    lacking = {}
    if unknown > settings.unknown_items * len(listed):
        why = f"{unknown} of {len(listed)} recommended items are not in the items table"
        lacking = dict.fromkeys(settings.mix_columns, why)
    else:
        for name in settings.mix_columns:
            if name in attributes.columns:
                values = attributes.columns[name].take(pa.array(row, mask=row < 0))
                columns[name] = pa.ListArray.from_arrays(_find_offsets(items), values)
    return Frame(pa.table(columns), to_days(table["time"]), lacking)


def _leave_out_drawn(table: pa.Table) -> pa.Table:
    """Without the items that were drawn at random: they say nothing about the model."""
    lists = {name: combine(table[name]) for name in ("sources", "item_ids", "scores")}
    drawn = np.asarray(
        pc.fill_null(pc.equal(pc.list_flatten(lists["sources"]), EXPLORATION), False)
    )
    if not drawn.any():
        return table
    lengths = {n: pc.fill_null(pc.list_value_length(v), 0).to_numpy() for n, v in lists.items()}
    named = lengths["sources"] == lengths["item_ids"]
    row = np.repeat(np.arange(table.num_rows), lengths["item_ids"])
    kept = np.ones(len(row), dtype=bool)
    kept[named[row]] = ~drawn[np.repeat(named, lengths["sources"])]
    counts = np.bincount(row[kept], minlength=table.num_rows)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    for name in ("item_ids", "scores"):
        values = pc.list_flatten(lists[name]).filter(pa.array(kept))
        column = pa.ListArray.from_arrays(offsets, values)
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _find_offsets(lists: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def _mean_of_lists(lists: pa.Array) -> pa.Array:
    """[n] the mean of each list; NaN where it is empty."""
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    values = pc.list_flatten(lists).to_numpy(zero_copy_only=False)
    counts = np.bincount(parents, minlength=len(lists))
    sums = np.bincount(parents, weights=values, minlength=len(lists))
    return pa.array(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))


def find_index_ages(
    answers: pa.Table, indexed: Mapping[str, datetime] = NO_INDEXES
) -> NDArray[np.float64]:
    """[n] days from the time of an answer's index to the answer; 0 where that is unknown.

    Args:
        answers: With ``bundle_id`` and ``time``.
        indexed: The times of bundles' indexes; of others, when the bundle was built.
    """
    bundles = combine(answers["bundle_id"]).dictionary_encode()
    names = bundles.dictionary.to_pylist()
    built = np.array([_to_days(indexed.get(name) or find_build_time(name)) for name in names])
    if not len(built):
        return np.zeros(answers.num_rows)
    ages = to_days(answers["time"]) - built[bundles.indices.to_numpy(zero_copy_only=False)]
    return np.where(np.isfinite(ages), np.maximum(ages, 0.0), 0.0)


def _to_days(time: datetime | None) -> float:
    return np.nan if time is None else time.timestamp() / SECONDS_A_DAY


@dataclass(frozen=True)
class Attributes:
    """Columns of items, from which the mix of recommended items is computed.

    Attributes:
        ids: Ids of all items.
        columns: By column, the value of each item, in the order of the ids.
    """

    ids: pa.Array
    columns: dict[str, pa.Array]

    def find(self, item_ids: pa.Array) -> NDArray[np.int64]:
        """[n] the row of each item, -1 where it is unknown."""
        rows = pc.fill_null(pc.index_in(item_ids, value_set=self.ids), -1)
        return np.asarray(rows.to_numpy(zero_copy_only=False), dtype=np.int64)

    @classmethod
    def of(
        cls, tables: Sequence[pa.Table], columns: Sequence[str], price_edges: Sequence[float]
    ) -> "Attributes":
        """Attributes from items tables; for a repeated item the later table's values count."""
        selected = [_select_attributes(table, columns, price_edges) for table in tables]
        # The first of equal ids is found, so the latest table comes first.
        joined = pa.concat_tables(reversed(selected), promote_options="permissive")
        there = [name for name in joined.column_names if name != "item_id"]
        return cls(combine(joined["item_id"]), {name: combine(joined[name]) for name in there})


def _select_attributes(
    table: pa.Table, columns: Sequence[str], price_edges: Sequence[float]
) -> pa.Table:
    found: dict[str, pa.Array] = {"item_id": combine(table["item_id"])}
    for name in columns:
        if name == "price_band" and "price" in table.column_names and price_edges:
            found[name] = price_bands(to_numbers(table["price"]), price_edges)
        elif name in table.column_names:
            found[name] = combine(table[name])
    return pa.table(found)


def price_bands(prices: NDArray[np.float64], edges: Sequence[float]) -> pa.Array:
    """[n] names of the bands of prices, such as ``10 to 25``; null where there is no price."""
    bounds = [f"{edge:.4g}" for edge in edges]
    names = [
        f"under {bounds[0]}",
        *(f"{low} to {high}" for low, high in pairwise(bounds)),
        f"{bounds[-1]} and more",
    ]
    bands = np.searchsorted(np.asarray(edges), prices, side="right")
    return pa.array(names).take(pa.array(bands, mask=~np.isfinite(prices)))


def read_listings(index: Path) -> tuple[str, datetime | None, pa.Table, NDArray[np.float32]]:
    """An index folder's embedding version, time, live items and their vectors [N, D].

    Raises:
        DataValidationError: The numbers of vectors and items differ.
    """
    manifest = read_json(index / "index.json")
    vectors = np.load(index / "vectors.npy", mmap_mode="r")
    items = pq.read_table(index / "items.parquet")
    if "live" in items.column_names:
        items = items.filter(items["live"])
    if len(vectors) != items.num_rows:
        raise DataValidationError(
            f"{index} holds {len(vectors)} vectors for {items.num_rows} live items; rebuild it"
        )
    as_of = manifest.get("as_of")
    at = datetime.fromisoformat(as_of) if as_of else None
    return str(manifest["embedding_version"]), at, items, vectors


def listings_frame(
    items: pa.Table,
    vectors: NDArray[np.float32],
    days: NDArray[np.float64],
    size: int,
    settings: MeasureSettings,
) -> Frame:
    """A sample of listings: ``embedding`` and the columns that describe a listing."""
    rows = np.sort(stratify(days, size, settings.seed))
    chosen = np.asarray(vectors[rows], dtype=np.float32)
    offsets = pa.array(np.arange(len(rows) + 1) * vectors.shape[1], pa.int32())
    embedding = pa.ListArray.from_arrays(offsets, pa.array(chosen.ravel()))
    names = [name for name in LISTING_COLUMNS if name in items.column_names]
    table = items.select(names).take(pa.array(rows)).append_column("embedding", embedding)
    return Frame(table, days[rows])


def read_table(
    path: Path,
    time_column: str,
    window: Window | None,
    size: int,
    settings: MeasureSettings,
    columns: Sequence[str] | None = None,
) -> Frame:
    """An items or events table; a sample of ``size`` rows where it is larger.

    Without a window all rows count; without the time column too, and their days are unknown. Rows
    of planned closings never count.
    """
    table = ds.dataset(str(path), format="parquet")
    timed = time_column in table.schema.names
    names = [n for n in table.schema.names if columns is None or n in (*columns, time_column)]
    within = _within(time_column, window) if timed else None
    for closing in settings.closings if timed else ():
        kept = _outside(time_column, closing)
        within = kept if within is None else within & kept
    count = table.count_rows(filter=within)
    if count <= size:
        rows = table.to_table(columns=names, filter=within)
    else:
        days = np.zeros(count)
        if timed:
            days = to_days(table.to_table(columns=[time_column], filter=within)[time_column])
        chosen = pa.array(np.sort(stratify(days, size, settings.seed)))
        rows = table.scanner(columns=names, filter=within).take(chosen)
    days = to_days(rows[time_column]) if timed else np.full(rows.num_rows, np.nan)
    return Frame(rows, days)


def select_organic(events: Frame) -> Frame:
    """Events that did not follow from an answer, as those that models are trained on.

    What people do with the answers changes with every model, and is live quality.
    """
    if REQUEST not in events.names:
        return events
    own = find_missing(events.column(REQUEST))
    return events if own.all() else events.take(np.flatnonzero(own))


def stratify(days: NDArray[np.float64], size: int, seed: int) -> NDArray[np.int64]:
    """Positions of at most ``size`` rows: the same number from each day, while it has that many."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(days))
    if len(days) <= size:
        return shuffled
    day = np.nan_to_num(np.floor(days), nan=-1.0)
    by_day = shuffled[np.argsort(day[shuffled], kind="stable")]
    _, starts, counts = np.unique(day[by_day], return_index=True, return_counts=True)
    rank = np.arange(len(day)) - np.repeat(starts, counts)
    return by_day[np.argsort(rank, kind="stable")[:size]]


def to_days(times: pa.ChunkedArray) -> NDArray[np.float64]:
    """[n] days since 1970 (UTC) of timestamps, with fractions; NaN where there is none."""
    stamps = pc.cast(pc.cast(times, pa.timestamp("us", tz="UTC")), pa.int64())
    return to_numbers(stamps) / (SECONDS_A_DAY * 1e6)


def to_numbers(values: pa.ChunkedArray) -> NDArray[np.float64]:
    """[n] a numeric column, with NaN for null."""
    return np.asarray(pc.cast(values, pa.float64(), safe=False).to_numpy(), dtype=np.float64)
