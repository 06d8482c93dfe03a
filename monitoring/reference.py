"""The reference: samples of data in which nothing drifts, and thresholds calibrated on them.

A reference folder holds ``thresholds.json`` (the calibrated metrics and their settings) and
samples as Parquet: ``answers`` (query embeddings, scores and what was recommended, by day),
``listings`` (embeddings of the live stock), ``items``, ``events`` and ``attributes`` (columns of
the live stock, which name what was recommended). It is written in one rename.
"""

import json
from collections.abc import Mapping, Sequence
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
from monitoring.calibration import CalibratedMetric, calibrate, day_blocks, half_splits
from monitoring.drift_metrics import load_metric
from monitoring.frame import Array, Frame
from monitoring.settings import MeasureSettings
from monitoring.subjects import choose_metrics, list_subjects
from refit.dataset import EVENTS_FILE, ITEMS_FILE, DatasetManifest
from refit.drift import Window
from refit.errors import DataValidationError
from refit.files import read_json, write_atomically, write_json
from refit.progress import log_message, timed
from refit.settings import Settings

THRESHOLDS_FILE = "thresholds.json"
TABLES = ("answers", "listings", "items", "events")


class ReferenceManifest(Settings):
    """The data that a reference was built from, and the metrics calibrated on it.

    Attributes:
        embedding_version: The towers whose vectors and scores may be compared with it.
        start, end: The period of the answers; ``end`` is also where new data begins.
        settings: What the thresholds were calibrated with.
        price_edges: Ascending bounds between the price bands.
        rows: Sampled rows by table.
        metrics: One for each drift metric of each subject.
    """

    embedding_version: str
    start: datetime
    end: datetime
    settings: MeasureSettings
    price_edges: tuple[float, ...]
    rows: dict[str, int]
    metrics: tuple[CalibratedMetric, ...]


@dataclass(frozen=True)
class Reference:
    """A reference folder, opened."""

    folder: Path
    manifest: ReferenceManifest

    @classmethod
    def read(cls, folder: Path) -> "Reference":
        """Open a reference folder.

        Raises:
            RefitError: It is missing or cannot be read.
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
        predictions: Answers without drift: a Parquet file of ``PREDICTION_SCHEMA``, as the
            offline evaluation writes it, or a prediction log folder.
        index: Index folder of the same towers.
        dataset: Dataset folder that the towers were trained on.
        embedding_version: The towers that all vectors must come from.
        out: The folder to write; it must not exist.

    Raises:
        UsageError: A drift metric cannot be loaded.
        DataValidationError: Index or predictions come from other towers, there are too few
            answers, or an extra metric can measure none of its subjects.
        RefitError: A drift metric failed.
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
    # Items recommended offline may be sold by now; the data set still holds them.
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
    # On matrices this small several threads only wait for each other: ten times slower when busy.
    with timed("thresholds calibrated"), threadpool_limits(1):
        metrics = _calibrate_all(frames, manifest.context_columns, settings)
    start, last = _span(predictions, embedding_version)
    reference = ReferenceManifest(
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
        write_json(staging / THRESHOLDS_FILE, reference.model_dump(mode="json"))
    log_message(f"reference: {len(metrics)} metrics over {reference.rows}")
    return reference


def _calibrate_all(
    frames: Mapping[str, Frame], context_columns: Sequence[str], settings: MeasureSettings
) -> tuple[CalibratedMetric, ...]:
    """Every drift metric of every subject that the reference has enough rows for.

    Raises:
        DataValidationError: An extra metric can measure none of its subjects.
        RefitError: A metric failed.
    """
    metrics = {name: load_metric(name) for name in settings.metric_names}
    blocks = {name: day_blocks(frame, settings) for name, frame in frames.items()}
    blocks["listings"] = half_splits(frames["listings"], settings)
    calibrated: list[CalibratedMetric] = []
    reasons: dict[tuple[str, str], str] = {}
    subjects = list_subjects(frames, context_columns, settings)
    for subject, name in choose_metrics(subjects, settings):
        try:
            done = calibrate(
                subject, metrics[name], frames[subject.table], settings, blocks[subject.table]
            )
        except DataValidationError as error:
            log_message(f"no metric {name} of {subject.name}: {error}")
            reasons[subject.name, name] = str(error)
        else:
            calibrated.append(done)
    for extra in settings.extra_metrics:
        if not any(m.statistic == extra.metric and extra.measures(m.subject) for m in calibrated):
            whys = [
                f"{subject}: {why}"
                for (subject, name), why in reasons.items()
                if name == extra.metric and extra.measures(subject)
            ]
            raise DataValidationError(
                f"extra_metrics: {extra.metric} can measure none of {', '.join(extra.subjects)}: "
                f"{'; '.join(whys)}"
            )
    return tuple(calibrated)


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
    """[n] the day on which each live item was listed, -1 where it is unknown."""
    if "listed_at" not in everything.column_names:
        return np.full(stock.num_rows, -1, dtype=np.int64)
    listed = everything["listed_at"]
    days = dict(zip(everything["item_id"].to_pylist(), tables.to_days(listed), strict=True))
    return np.array([days.get(i, -1) for i in stock["item_id"].to_pylist()], dtype=np.int64)


def _span(predictions: Path, embedding_version: str) -> tuple[datetime, datetime]:
    times = tables.read_log(predictions, ("embedding_version", "time"))
    own = times.filter(pc.equal(times["embedding_version"], embedding_version))["time"]
    span = pc.min_max(own).as_py()
    return span["min"], span["max"]


def _known_columns(stock: pa.Table, settings: MeasureSettings) -> pa.Table:
    """The live stock's columns that describe what is recommended."""
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
