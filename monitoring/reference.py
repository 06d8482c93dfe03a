"""The reference: data in which nothing drifts, and what the drift metrics learned from it.

A reference folder holds ``thresholds.json`` (the metrics and their settings), ``metrics/`` (what
each learned) and samples as Parquet: ``answers`` (query embeddings, scores and what was
recommended), ``listings`` (embeddings of the live stock), ``items``, ``events`` and ``attributes``
(columns of the live stock, which name what was recommended). It is written in one rename.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from monitoring import tables
from monitoring.calibration import INDEX_AGE, CalibratedMetric, MetricEntry, calibrate
from monitoring.drift_metrics import load_metric
from monitoring.faults.known import KnownFeed, read_known, read_listings, write_known
from monitoring.frame import Frame, combine
from monitoring.settings import MeasureSettings
from monitoring.subjects import choose_metrics, list_subjects
from refit.dataset import EVENTS_FILE, ITEMS_FILE, DatasetManifest
from refit.drift import Window
from refit.errors import DataValidationError, RefitError, UsageError
from refit.files import read_json, write_atomically, write_json
from refit.progress import log_message, timed
from refit.settings import Settings

THRESHOLDS_FILE = "thresholds.json"
METRICS_FOLDER = "metrics"
_DAY = "_day"
TABLES = ("answers", "listings", "items", "events")


class ReferenceManifest(Settings):
    """The data that a reference was built from, and the metrics calibrated on it.

    Attributes:
        embedding_version: The towers whose vectors and scores may be compared with it.
        start, end: The period of the answers; ``end`` is also where new data begins.
        settings: What the thresholds were calibrated with.
        price_edges: Ascending bounds between the price bands.
        rows: Sampled rows by table.
        context_columns: Columns of the events that describe a request.
        organic_events: Whether only events that did not follow from an answer are measured; false
            where there are hardly any.
        metrics: One for each drift metric of each subject.
    """

    embedding_version: str
    start: datetime
    end: datetime
    settings: MeasureSettings
    price_edges: tuple[float, ...]
    rows: dict[str, int]
    context_columns: tuple[str, ...] = ()
    organic_events: bool = False
    metrics: tuple[MetricEntry, ...]


@dataclass(frozen=True)
class Reference:
    """A reference folder, opened; each of its files is read once, when it is needed."""

    folder: Path
    manifest: ReferenceManifest

    @classmethod
    def read(cls, folder: Path) -> "Reference":
        """Open a reference folder.

        Raises:
            RefitError: It is missing, cannot be read, or was built by another state of Refit.
        """
        written = read_json(folder / THRESHOLDS_FILE)
        try:
            manifest = ReferenceManifest.parse(written)
        except UsageError as error:
            raise RefitError(
                f"{folder} was built by another state of Refit, which measured drift in another "
                "way: build a new bundle with refit run"
            ) from error
        return cls(folder, manifest)

    @cached_property
    def frames(self) -> Mapping[str, Frame]:
        """The sampled tables by name."""
        return {name: _read_frame(self.folder / f"{name}.parquet") for name in TABLES}

    @cached_property
    def metrics(self) -> tuple[CalibratedMetric, ...]:
        """The calibrated metrics, in the order of the manifest."""
        return tuple(CalibratedMetric.read(e, self.folder) for e in self.manifest.metrics)

    @cached_property
    def attributes(self) -> pa.Table:
        """Columns of the items that were live, ``item_id`` among them."""
        return pq.read_table(self.folder / "attributes.parquet")

    @cached_property
    def known_listings(self) -> Frame:
        """Known listings with their vectors."""
        return read_listings(self.folder)

    def known_feed(self, name: str, settings: MeasureSettings) -> KnownFeed:
        """What is known of a feed, as some settings read it."""
        key = (name, settings.faults.largest_vocabulary, settings.closings)
        if key not in self._known_feeds:
            self._known_feeds[key] = read_known(self.folder, name, settings)
        return self._known_feeds[key]

    @cached_property
    def _known_feeds(self) -> dict[tuple[Any, ...], KnownFeed]:
        return {}


def build_reference(
    settings: MeasureSettings,
    predictions: Path,
    index: Path,
    dataset: Path,
    embedding_version: str,
    out: Path,
) -> ReferenceManifest:
    """Write a reference folder.

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
        predictions, None, embedding_version, settings.reference_rows, settings, attributes
    )
    if len(answers.frame) < settings.minimum_rows:
        raise DataValidationError(
            f"{predictions} holds {len(answers.frame)} answers of towers {embedding_version} "
            f"({answers.foreign} of others, {answers.fallbacks} fallbacks); a reference needs "
            f"{settings.minimum_rows}: evaluate these towers on a longer test window"
        )
    days = _listing_days(stock, everything)
    rows = settings.reference_rows
    frames = {
        "answers": replace(answers.frame, table=_in_whole_days(answers.frame.table)),
        "listings": tables.listings_frame(stock, vectors, days, rows, settings),
        "items": tables.read_table(dataset / ITEMS_FILE, "listed_at", recent, rows, settings),
        "events": tables.read_table(dataset / EVENTS_FILE, "event_time", recent, rows, settings),
    }
    organic = tables.select_organic(frames["events"])
    if is_organic := len(organic) >= settings.minimum_rows:
        frames["events"] = organic
    # On matrices this small several threads only wait for each other: ten times slower when busy.
    with timed("metrics calibrated"), threadpool_limits(1):
        metrics = _calibrate_all(frames, manifest.context_columns, settings)
    start, last = _span(predictions, embedding_version)
    samples = {name: _sample(frame, settings) for name, frame in frames.items()}
    reference = ReferenceManifest(
        embedding_version=embedding_version,
        start=start,
        end=max(last, end),
        settings=settings,
        price_edges=edges,
        rows={name: len(frame) for name, frame in frames.items()},
        context_columns=tuple(manifest.context_columns),
        organic_events=is_organic,
        metrics=tuple(metric.entry for metric in metrics),
    )
    with write_atomically(out) as staging:
        (staging / METRICS_FOLDER).mkdir(parents=True)
        for metric in metrics:
            metric.write(staging / metric.entry.file)
        for name, frame in samples.items():
            day = pa.array(frame.day)
            pq.write_table(frame.table.append_column(_DAY, day), staging / f"{name}.parquet")
        write_known(staging, dataset, recent, settings)
        pq.write_table(_known_columns(stock, settings), staging / "attributes.parquet")
        write_json(staging / THRESHOLDS_FILE, reference.model_dump(mode="json"))
    log_message(f"reference: {len(metrics)} metrics over {reference.rows}")
    return reference


def _sample(frame: Frame, settings: MeasureSettings) -> Frame:
    return frame.take(np.sort(tables.stratify(frame.day, settings.sample_rows, settings.seed)))


def _in_whole_days(answers: pa.Table) -> pa.Table:
    """Ages of indexes without fractions: any effect could be fitted to a hardly different age."""
    place = answers.column_names.index(INDEX_AGE)
    return answers.set_column(place, INDEX_AGE, pc.floor(answers[INDEX_AGE]))


def _calibrate_all(
    frames: Mapping[str, Frame], context_columns: Sequence[str], settings: MeasureSettings
) -> tuple[CalibratedMetric, ...]:
    """Every drift metric of every subject that the reference has enough rows for.

    Raises:
        DataValidationError: An extra metric can measure none of its subjects.
        RefitError: A metric failed.
    """
    metrics = {name: load_metric(name) for name in settings.metric_names}
    calibrated: list[CalibratedMetric] = []
    reasons: dict[tuple[str, str], str] = {}
    subjects = list_subjects(frames, context_columns, settings)
    for subject, name in choose_metrics(subjects, settings):
        file = f"{METRICS_FOLDER}/{len(calibrated)}.npz"
        try:
            done = calibrate(subject, metrics[name], frames[subject.table], settings, file)
        except DataValidationError as error:
            log_message(f"no metric {name} of {subject.name}: {error}")
            reasons[subject.name, name] = str(error)
        else:
            calibrated.append(done)
    for extra in settings.extra_metrics:
        entries = [m.entry for m in calibrated]
        if not any(e.statistic == extra.metric and extra.measures(e.subject) for e in entries):
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


def _listing_days(stock: pa.Table, everything: pa.Table) -> NDArray[np.float64]:
    """[n] the day on which each live item was listed, NaN where it is unknown."""
    if "listed_at" not in everything.column_names:
        return np.full(stock.num_rows, np.nan)
    row = pc.index_in(combine(stock["item_id"]), value_set=combine(everything["item_id"]))
    return tables.to_days(everything["listed_at"].take(row))


def _span(predictions: Path, embedding_version: str) -> tuple[datetime, datetime]:
    times = tables.read_log(predictions, ("embedding_version", "time"))
    own = times.filter(pc.equal(times["embedding_version"], embedding_version))["time"]
    span = pc.min_max(own).as_py()
    return span["min"], span["max"]


def _known_columns(stock: pa.Table, settings: MeasureSettings) -> pa.Table:
    """The live stock's columns that describe what is recommended."""
    wanted = {"item_id", "price", "category_1", "brand", "title", *settings.mix_columns}
    return stock.select([name for name in stock.column_names if name in wanted])


def _read_frame(path: Path) -> Frame:
    table = pq.read_table(path)
    return Frame(table.drop_columns([_DAY]), tables.to_numbers(table[_DAY]))
