"""The reference: what things looked like when all was well, and how much they may move.

A reference folder holds ``thresholds.json`` (the metrics and what they were made of) and
samples as Parquet: ``answers`` (query embeddings, scores and what was recommended, by day),
``listings`` (embeddings of the live stock), ``items``, ``events`` and ``attributes`` (the live
stock's columns, to name what was recommended). It is written in one rename.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from monitoring import tables
from monitoring.drift_metric import DriftMetric, calibrate, day_blocks, half_splits
from monitoring.settings import MeasureSettings
from monitoring.statistics import Array, Frame, is_missing
from refit.contract import EVENTS, ITEMS
from refit.dataset import EVENTS_FILE, ITEMS_FILE, DatasetManifest
from refit.drift import Window
from refit.errors import DataValidationError
from refit.files import read_json, write_atomically, write_json
from refit.progress import log_message, timed
from refit.settings import Settings

THRESHOLDS_FILE = "thresholds.json"
TABLES = ("answers", "listings", "items", "events")
UNWATCHED = frozenset({"user_id", "item_id", "seller_id", "session_id", "request_id"})
"""Identifiers: new ones every day are what a marketplace lives of."""


class ReferenceManifest(Settings):
    """What a reference was made of, and the metrics calibrated on it.

    Attributes:
        embedding_version: The towers whose vectors and scores may be compared with it.
        start, end: The stretch of answers; ``end`` is also where new data begins.
    """

    embedding_version: str
    start: datetime
    end: datetime
    settings: MeasureSettings
    price_edges: tuple[float, ...]
    rows: dict[str, int]
    metrics: tuple[DriftMetric, ...]


@dataclass(frozen=True)
class Reference:
    """A reference folder, opened."""

    folder: Path
    manifest: ReferenceManifest

    @classmethod
    def read(cls, folder: Path) -> "Reference":
        """Open a reference folder.

        Raises:
            RefitError: It is not there or cannot be read: nothing may be said without it.
        """
        return cls(folder, ReferenceManifest.parse(read_json(folder / THRESHOLDS_FILE)))

    @cached_property
    def frames(self) -> Mapping[str, Frame]:
        """The sampled tables by name."""
        return {name: _read_frame(self.folder / f"{name}.parquet") for name in TABLES}

    @cached_property
    def attributes(self) -> pa.Table:
        """Columns of the items that were live, ``item_id`` among them."""
        return pq.read_table(self.folder / "attributes.parquet")


def build_reference(
    settings: MeasureSettings,
    predictions: Path,
    index: Path,
    dataset: Path,
    embedding_version: str,
    out: Path,
) -> ReferenceManifest:
    """Write a reference folder with calibrated thresholds.

    Args:
        settings: How drift will be measured.
        predictions: Answers given when all was well: a Parquet file of ``PREDICTION_SCHEMA``, as
            offline evaluation writes it, or a prediction log folder.
        index: Index folder of the same towers.
        dataset: Dataset folder that the towers were trained on.
        embedding_version: The towers that all vectors must come from.
        out: The folder to write; it must not exist.

    Raises:
        DataValidationError: Index or predictions come from other towers, or too little is there.
    """
    index_towers, _, stock, vectors = tables.read_listings(index)
    if index_towers != embedding_version:
        raise DataValidationError(
            f"the index was built with towers {index_towers}, not {embedding_version}: rebuild it"
        )
    manifest = DatasetManifest.read(dataset)
    end = manifest.split.end
    recent = Window(start=end - timedelta(days=settings.reference_days), end=end)
    edges = _price_edges(stock, settings)
    # Items recommended offline may be sold by now; the data set still knows them.
    everything = pq.read_table(dataset / ITEMS_FILE)
    attributes = tables.Attributes.of((everything, stock), settings.mix_columns, edges)
    answers = tables.read_answers(
        predictions, None, embedding_version, settings.reference_size, settings, attributes
    )
    if len(answers.frame) < settings.minimum_rows:
        raise DataValidationError(
            f"{predictions} holds {len(answers.frame)} answers of towers {embedding_version} "
            f"({answers.foreign} of others, {answers.fallbacks} fallbacks); a reference needs "
            f"{settings.minimum_rows}: evaluate these towers on a longer test window"
        )
    sources = {
        name: (dataset / file, column)
        for name, file, column in (
            ("items", ITEMS_FILE, "listed_at"),
            ("events", EVENTS_FILE, "event_time"),
        )
    }
    frames = {
        "answers": answers.frame,
        "listings": tables.listings_frame(
            stock, vectors, _listing_days(stock, everything), settings.reference_size, settings
        ),
    } | {
        name: tables.read_table(path, column, recent, settings.reference_size, settings)[0]
        for name, (path, column) in sources.items()
    }
    # Matrices this small only wait for each other on several threads, tenfold on a busy machine.
    with timed("thresholds calibrated"), threadpool_limits(1):
        metrics = tuple(_calibrated(frames, manifest, settings))
    start, last = _span(predictions, embedding_version)
    found = ReferenceManifest(
        embedding_version=embedding_version,
        start=start,
        end=max(last, end),
        settings=settings,
        price_edges=edges,
        rows={name: len(frame) for name, frame in frames.items()},
        metrics=metrics,
    )
    with write_atomically(out) as staging:
        staging.mkdir()
        for name, frame in frames.items():
            pq.write_table(_to_table(frame), staging / f"{name}.parquet")
        pq.write_table(_known_columns(stock, settings), staging / "attributes.parquet")
        write_json(staging / THRESHOLDS_FILE, found.model_dump(mode="json"))
    log_message(f"reference: {len(metrics)} metrics over {found.rows}")
    return found


def _calibrated(
    frames: Mapping[str, Frame], manifest: DatasetManifest, settings: MeasureSettings
) -> Iterator[DriftMetric]:
    blocks = {name: day_blocks(frame, settings) for name, frame in frames.items()}
    blocks["listings"] = half_splits(frames["listings"], settings)
    for wanted in _wanted(frames, manifest, settings):
        done = calibrate(wanted, frames[wanted.table], settings, blocks[wanted.table])
        if done is None:
            log_message(f"no metric for {wanted.subject} {wanted.statistic}: too few usable rows")
        else:
            yield done


def _wanted(
    frames: Mapping[str, Frame], manifest: DatasetManifest, settings: MeasureSettings
) -> Iterator[DriftMetric]:
    """Every metric that the reference tables allow."""
    for subject, table, column in (
        ("query-embedding", "answers", "query_embedding"),
        ("listing-embedding", "listings", "embedding"),
    ):
        length = _vector_length(frames[table].column(column))
        if length:
            yield DriftMetric(
                subject=subject,
                statistic="frechet",
                table=table,
                column=column,
                values=(str(length),),
            )
    yield DriftMetric(subject="scores", statistic="wasserstein", table="answers", column="score")
    for column in settings.mix_columns:
        if column not in frames["answers"].columns:
            continue
        statistic = "concentration"
        values: tuple[str, ...] = (str(settings.depth),)
        if column not in settings.concentration_columns:
            cells = frames["answers"].column(column)
            statistic, values = "jensenshannon", _frequent(cells, settings.largest_vocabulary)
        yield DriftMetric(
            subject=f"mix:{column}",
            statistic=statistic,
            table="answers",
            column=column,
            values=values,
        )
    known = {"items": ITEMS, "events": EVENTS}
    for table, contract in known.items():
        kinds = {c.name: c.kind for c in contract if c.name not in UNWATCHED}
        if table == "events":
            kinds |= dict.fromkeys(manifest.context_columns, "string")
        for column, kind in kinds.items():
            if column in frames[table].columns and kind != "time":
                yield from _input_metrics(table, column, kind, frames[table], settings)


def _input_metrics(
    table: str, column: str, kind: str, frame: Frame, settings: MeasureSettings
) -> Iterator[DriftMetric]:
    cells = frame.column(column)
    numeric = cells.dtype != object
    length = _vector_length(cells) if kind == "vector" else 0
    if not len(cells) or is_missing(cells, length or None).all():
        return
    vocabulary = () if numeric or length else _frequent(cells, len(cells))
    closed = 0 < len(vocabulary) <= settings.largest_vocabulary
    of: dict[str, tuple[str, ...]] = {"null-share": (str(length),) if length else ()}
    if length:
        groups = _frequent(frame.columns.get("category_1", np.empty(0)), 50)
        of |= {"vector-norm": (str(length),), "centroid-shift": (str(length), *groups)}
    elif numeric:
        of |= {"wasserstein": ()}
    elif closed:
        of |= {"new-values": vocabulary, "jensenshannon": vocabulary}
    for statistic, values in of.items():
        by = "category_1" if statistic == "centroid-shift" and len(values) > 1 else ""
        yield DriftMetric(
            subject=f"input:{table}.{column}",
            statistic=statistic,
            table=table,
            column=column,
            by=by,
            # Without groups every row is of one group, named "".
            values=values if by or statistic != "centroid-shift" else (*values, ""),
        )


def _vector_length(cells: Array) -> int:
    lengths = Counter(len(v) for v in cells if isinstance(v, np.ndarray))
    return lengths.most_common(1)[0][0] if lengths else 0


def _frequent(cells: Array, most: int) -> tuple[str, ...]:
    """The most frequent values, at most ``most``, of cells that hold a value or a list of them."""
    counts: Counter[str] = Counter()
    for cell in cells:
        for value in cell if isinstance(cell, list | tuple | np.ndarray) else (cell,):
            if value is not None and value == value and value != "":
                counts[str(value)] += 1
    return tuple(value for value, _ in counts.most_common(most))


def _price_edges(stock: pa.Table, settings: MeasureSettings) -> tuple[float, ...]:
    if "price" not in stock.column_names:
        return ()
    prices = tables.to_numbers(stock["price"])
    prices = prices[np.isfinite(prices)]
    if not len(prices):
        return ()
    inner = np.linspace(0, 1, settings.price_bands + 1)[1:-1]
    return tuple(float(edge) for edge in np.unique(np.quantile(prices, inner)))


def _listing_days(stock: pa.Table, everything: pa.Table) -> Array:
    """The day each live item was listed, -1 where it is not known."""
    if "listed_at" not in everything.column_names:
        return np.full(stock.num_rows, -1, dtype=np.int64)
    listed = everything["listed_at"]
    days = dict(zip(everything["item_id"].to_pylist(), tables.to_days(listed), strict=True))
    return np.array([days.get(i, -1) for i in stock["item_id"].to_pylist()], dtype=np.int64)


def _span(predictions: Path, embedding_version: str) -> tuple[datetime, datetime]:
    times = tables.read_log(predictions, ("embedding_version", "time"))
    mine = times.filter(pc.equal(times["embedding_version"], embedding_version))["time"]
    first = pc.min_max(mine).as_py()
    return first["min"], first["max"]


def _known_columns(stock: pa.Table, settings: MeasureSettings) -> pa.Table:
    """The live stock's columns that name what is recommended."""
    wanted = {"item_id", "price", "category_1", "brand", "title", *settings.mix_columns}
    return stock.select([name for name in stock.column_names if name in wanted])


def _to_table(frame: Frame) -> pa.Table:
    columns: dict[str, Any] = {name: _arrow(cells) for name, cells in frame.columns.items()}
    return pa.table({**columns, "_day": pa.array(frame.day)})


def _arrow(cells: Array) -> pa.Array:
    if cells.dtype != object:
        return pa.array(cells)
    values = [v.tolist() if isinstance(v, np.ndarray) else v for v in cells]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if v is None else json.dumps(v, default=str) for v in values])


def _read_frame(path: Path) -> Frame:
    table = pq.read_table(path)
    days = table["_day"].to_numpy()
    columns = {name: tables.to_column(table[name]) for name in table.column_names if name != "_day"}
    return Frame(columns, days)
