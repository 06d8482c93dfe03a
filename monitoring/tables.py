"""Read what is monitored: answers from the prediction log, listings, items and events.

Every table is returned as a sample of bounded size with equal shares of each day, so that memory
does not grow with traffic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from monitoring.frame import Array, Frame
from monitoring.settings import MeasureSettings
from refit.drift import Window
from refit.errors import DataValidationError
from refit.files import read_json
from refit.prediction import PREDICTION_SCHEMA

DAY = 86_400_000_000
"""Microseconds in a day."""
LISTING_COLUMNS = ("item_id", "category_1", "brand", "price")
ANSWER_COLUMNS = ("request_id", "user_id", "context", "query_embedding", "item_ids", "scores")


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
    parts = (path for path in log.rglob("*.parquet") if not path.name.startswith("."))
    return sorted(str(path) for path in parts if window is None or _may_hold(path, window))


def _may_hold(path: Path, window: Window) -> bool:
    name = path.parent.name
    if not name.startswith("date="):
        return True
    try:
        day = datetime.fromisoformat(name.removeprefix("date=")).replace(tzinfo=UTC)
    except ValueError:
        return True
    return window.start - timedelta(days=1) < day < window.end


def read_log(
    log: Path, columns: Sequence[str], window: Window | None = None, rows: Array | None = None
) -> pa.Table:
    """Columns of the answers in a window (of all answers without one), or of some of its rows."""
    files = log_files(log, window)
    if not files:
        return pa.schema([PREDICTION_SCHEMA.field(name) for name in columns]).empty_table()
    parts = ds.dataset(files, schema=PREDICTION_SCHEMA, format="parquet")
    answers = parts.scanner(columns=list(columns), filter=_within("time", window))
    return answers.to_table() if rows is None else answers.take(pa.array(rows))


def _within(column: str, window: Window | None) -> ds.Expression | None:
    if window is None:
        return None
    start, end = (pa.scalar(t, pa.timestamp("us", tz="UTC")) for t in (window.start, window.end))
    return (ds.field(column) >= start) & (ds.field(column) < end)


def read_answers(
    log: Path,
    window: Window | None,
    embedding_version: str,
    size: int,
    settings: MeasureSettings,
    attributes: "Attributes",
) -> Answers:
    """Read a window's answers.

    The frame holds one row per answer: ``request_id``, ``user_id``, ``context``,
    ``query_embedding``, ``item_ids`` and ``scores`` (the first ``depth``), ``score`` (their
    mean), and for each mix column the list of its values among those items.
    """
    narrow = read_log(log, ("request_id", "embedding_version", "time", "fallback"), window)
    own = np.asarray(pc.equal(narrow["embedding_version"], embedding_version))
    fallback = own & np.asarray(pc.is_valid(narrow["fallback"]))
    rows = np.flatnonzero(own & ~fallback)
    days = to_days(narrow["time"])
    sampled = np.sort(rows[stratify(days[rows], size, settings.seed)])
    wide = read_log(log, ANSWER_COLUMNS, window, sampled)
    frame = _answers_frame(wide, days[sampled], settings, attributes)
    return Answers(frame, narrow.num_rows, int((~own).sum()), int(fallback.sum()))


def _answers_frame(
    table: pa.Table, days: NDArray[np.int64], settings: MeasureSettings, attributes: "Attributes"
) -> Frame:
    columns = {
        name: to_objects(table[name])
        for name in ("request_id", "user_id", "context", "query_embedding")
    }
    depth = settings.depth
    items = [ids[:depth] for ids in table["item_ids"].to_pylist()]
    scores = [np.array(s[:depth], dtype=np.float64) for s in table["scores"].to_pylist()]
    columns["item_ids"], columns["scores"] = _cells(items), _cells(scores)
    columns["score"] = np.array([s.mean() if len(s) else np.nan for s in scores])
    listed = [item_id for ids in items for item_id in ids]
    unknown = sum(item_id not in attributes.known for item_id in listed)
    if unknown > settings.unknown_items * len(listed):
        why = f"{unknown} of {len(listed)} recommended items are not in the items table"
        return Frame(columns, days, dict.fromkeys(settings.mix_columns, why))
    for name in settings.mix_columns:
        if name in attributes.columns:
            columns[name] = _cells([attributes.look_up(name, ids) for ids in items])
    return Frame(columns, days)


@dataclass(frozen=True)
class Attributes:
    """Columns of items, from which the mix of recommended items is computed.

    Attributes:
        known: Ids of all items in the tables.
        columns: By column, the value of each item.
    """

    known: set[str]
    columns: dict[str, dict[str, Any]]

    def look_up(self, column: str, item_ids: Sequence[str]) -> list[Any]:
        """The column's value of each item; None where it is unknown."""
        values = self.columns[column]
        return [values.get(item_id) for item_id in item_ids]

    @classmethod
    def of(
        cls, tables: Sequence[pa.Table], columns: Sequence[str], price_edges: Sequence[float]
    ) -> "Attributes":
        """Attributes from items tables; for a repeated item the later table's values count."""
        known: set[str] = set()
        found: dict[str, dict[str, Any]] = {}
        for table in tables:
            ids = table["item_id"].to_pylist()
            known.update(ids)
            for name in columns:
                if name == "price_band" and "price" in table.column_names and price_edges:
                    values = price_bands(to_numbers(table["price"]), price_edges)
                elif name in table.column_names:
                    values = table[name].to_pylist()
                else:
                    continue
                found.setdefault(name, {}).update(zip(ids, values, strict=True))
        return cls(known, found)


def price_bands(prices: NDArray[np.float64], edges: Sequence[float]) -> list[str | None]:
    """Names of the bands of prices, such as ``10 to 25``; None where there is no price."""
    bounds = [f"{edge:.4g}" for edge in edges]
    names = [
        f"under {bounds[0]}",
        *(f"{low} to {high}" for low, high in pairwise(bounds)),
        f"{bounds[-1]} and more",
    ]
    bands = np.searchsorted(np.asarray(edges), prices, side="right")
    return [
        names[band] if np.isfinite(price) else None
        for band, price in zip(bands, prices, strict=True)
    ]


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
    days: NDArray[np.int64],
    size: int,
    settings: MeasureSettings,
) -> Frame:
    """A sample of the live stock: ``embedding`` and the columns that describe a listing."""
    sampled = np.sort(stratify(days, size, settings.seed))
    columns = {
        name: to_column(items[name])[sampled]
        for name in LISTING_COLUMNS
        if name in items.column_names
    }
    return Frame({**columns, "embedding": _cells(list(vectors[sampled]))}, days[sampled])


def read_table(
    path: Path, time_column: str, window: Window | None, size: int, settings: MeasureSettings
) -> tuple[Frame, int]:
    """A sample of an items or events table, and the number of rows it was drawn from.

    Without a window all rows count; without the time column too, and their days are unknown.
    """
    table = ds.dataset(str(path), format="parquet")
    timed = time_column in table.schema.names
    within = _within(time_column, window) if timed else None
    if timed:
        days = to_days(table.to_table(columns=[time_column], filter=within)[time_column])
    else:
        days = np.full(table.count_rows(), -1, dtype=np.int64)
    sampled = np.sort(stratify(days, size, settings.seed))
    rows = table.scanner(filter=within).take(pa.array(sampled))
    columns = {name: to_column(rows[name]) for name in rows.column_names}
    return Frame(columns, days[sampled]), len(days)


def stratify(days: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """Positions of at most ``size`` rows: the same number from each day, while it has that many."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(days))
    if len(days) <= size:
        return shuffled
    by_day = shuffled[np.argsort(days[shuffled], kind="stable")]
    _, starts, counts = np.unique(days[by_day], return_index=True, return_counts=True)
    rank = np.arange(len(days)) - np.repeat(starts, counts)
    return by_day[np.argsort(rank, kind="stable")[:size]]


def to_days(times: pa.ChunkedArray) -> NDArray[np.int64]:
    """[n] days since 1970 (UTC) of timestamps; -1 where there is none."""
    stamps = pc.cast(pc.cast(times, pa.timestamp("us", tz="UTC")), pa.int64())
    return np.asarray(pc.fill_null(stamps, -DAY).to_numpy(), dtype=np.int64) // DAY


def to_numbers(values: pa.ChunkedArray) -> NDArray[np.float64]:
    """[n] a numeric column, with NaN for null."""
    return np.asarray(pc.cast(values, pa.float64()).to_numpy(), dtype=np.float64)


def to_objects(values: pa.ChunkedArray) -> Array:
    """[n] a column as Python objects, vectors as arrays."""
    inner = getattr(values.type, "value_type", None)
    if inner is not None and (pa.types.is_floating(inner) or pa.types.is_integer(inner)):
        return _cells([None if v is None else np.asarray(v, float) for v in values.to_pylist()])
    return _cells(values.to_pylist())


def to_column(values: pa.ChunkedArray) -> Array:
    """[n] a column: numbers as floats, everything else as objects."""
    kind = values.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return to_numbers(values)
    return to_objects(values)


def _cells(values: Sequence[Any]) -> Array:
    """[n] an object array with one value per cell, also where the values are lists."""
    cells = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        cells[position] = value
    return cells
