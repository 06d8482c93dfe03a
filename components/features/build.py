"""The features step: write catalogue, examples, item snapshots and histories."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.features import tables
from components.features.listings import check_listings
from components.features.popularity import DecayedCounts, popularity_at
from components.features.settings import FeatureSettings
from components.features.tables import DAY_US, DatasetTables, SnapshotOf, microseconds
from components.features.versions import find_versioned, older_versions
from components.features.visits import check_visits
from refit.dataset import Split
from refit.eligibility import MarketSettings, Rules
from refit.encoding import EncodedItems, differ
from refit.errors import DataValidationError, RefitError, UsageError
from refit.feature_tables import (
    AWAY_FILE,
    CATALOGUE_FILE,
    HIDES_FILE,
    HISTORIES_FILE,
    PURCHASES_FILE,
    REQUESTS,
    SPLITS,
    VERSIONS_FILE,
    examples_file,
    read_away,
    snapshot_file,
)
from refit.features import FEATURES_FILE, FeaturesManifest, FeatureSpec
from refit.files import remove, write_atomically
from refit.health import HealthCheck, stopping
from refit.progress import log_message, timed
from refit.tables import open_tables

EVENTS_PER_BATCH = 1 << 18
OF_THE_COMPARISON = ("target_events", "snapshot_every_days")
"""What decides the queries of an evaluation, and the moments of their candidates."""


def build_features(
    settings: FeatureSettings,
    dataset: Path,
    out: Path,
    like: Path | None = None,
    has_examples: bool = False,
    encoded: Path | None = None,
) -> FeaturesManifest:
    """Write the point-in-time tables of a dataset folder to ``out``, atomically.

    Args:
        settings: Settings of the step; the spec is not used with ``like``.
        dataset: A dataset folder of the ingestion step.
        out: The features folder; features in it are replaced.
        like: A folder with the features.json that a model was trained with. Its spec, market and
            counted values are kept, and only what an index needs is written: the catalogue, one
            snapshot at the end, the histories, purchases and hides.
        has_examples: With ``like``: write all tables, with the queries, the moments and the market
            of ``settings``, so that the model can be compared with one of these settings.
        encoded: A folder of the encoding step, of the same dataset; None where there is none.

    Raises:
        UsageError: The spec or an eligibility rule names columns that do not exist, or a rule
            cannot be loaded.
        DataValidationError: A split has no example, or events and items do not belong together.
        RefitError: The vectors are not by the encoders of ``like``.
    """
    _refuse_foreign(out)
    kept = FeaturesManifest.read(like) if like else None
    spec, market = (kept.spec, kept.market) if kept else (settings.spec, settings.market)
    if has_examples:
        shared = {name: getattr(settings.spec, name) for name in OF_THE_COMPARISON}
        spec, market = spec.model_copy(update=shared), settings.market
    vectors = EncodedItems.read(encoded) if encoded else EncodedItems()
    if kept:
        _require_encoders(kept, vectors)
    rules = Rules.load(market)
    out.parent.mkdir(parents=True, exist_ok=True)
    limits = (settings.memory_limit, settings.threads)
    with (
        TemporaryDirectory(dir=out.parent, prefix=".scratch-") as scratch,
        open_tables("features", f"dataset {dataset}", *limits, Path(scratch)) as con,
        write_atomically(out) as folder,
    ):
        at = (encoded, vectors.encoding.column) if encoded and vectors.encoding else None
        source = tables.open_dataset(con, spec, rules, dataset, at)
        manifest = _write(source, settings, market, folder, kept, has_examples or not kept, vectors)
        remove(out)
    return manifest


@dataclass(frozen=True)
class _Window:
    """The time of one split, and its snapshots."""

    name: str
    start: datetime
    end: datetime
    snapshots: tuple[datetime, ...]
    numbers: SnapshotOf


def _write(
    source: DatasetTables,
    settings: FeatureSettings,
    market: MarketSettings,
    folder: Path,
    kept: FeaturesManifest | None,
    has_examples: bool,
    vectors: EncodedItems,
) -> FeaturesManifest:
    folder.mkdir()
    split = source.manifest.split
    with timed("numbered the events of each user"):
        listings = tables.find_all_listings(source, market)
        items = tables.catalogue(source, listings)
        events = tables.numbered_events(source, items)
        blocks = tables.history_blocks(source, events)
    versioned = find_versioned(source)
    undeclared = tables.find_undeclared(source, versioned)
    health = (
        *check_visits(events, source.spec),
        *check_listings(listings, market, items, source.events, split.end),
        _check_undeclared(undeclared),
    )
    _report(health, stops=kept is None)
    windows = _windows(split, source.spec, settings.frozen_at_cut) if has_examples else []
    values = kept.popularity_values if kept else tables.popularity_values(source)
    in_order = items.order_by("item_index").drop("item_index", "first_us", "last_event")
    _copy(source, in_order, folder / CATALOGUE_FILE)
    if source.versions is not None:
        with timed("wrote the older versions of the items"):
            counts = partial(_count_snapshots, windows, split.end)
            older = older_versions(source, items, listings, counts)
            _copy(source, older, folder / VERSIONS_FILE)
    manifest = FeaturesManifest(
        spec=source.spec,
        market=market,
        popularity_values=values,
        vector_size=_vector_size(source, folder, kept),
        snapshots=(*(time for window in windows for time in window.snapshots), split.end),
        dataset_fingerprint=source.manifest.fingerprint,
        dataset=source.manifest,
        health=(*health, *vectors.health),
        undeclared=undeclared,
        versioned=versioned,
        encoding=vectors.encoding,
    )
    _copy(source, tables.away_items(items, listings), folder / AWAY_FILE)
    with timed("wrote the histories"):
        # No rule reads the purchases where bought items may be recommended again.
        purchases = source.purchases.filter(ibis.literal(market.hides_bought))
        bought, hidden = (tables.first_times(t, items) for t in (purchases, source.hides))
        others = bought.select("user_id").union(hidden.select("user_id"))
        histories = tables.histories(source, events, blocks, others)
        _copy(source, histories, folder / HISTORIES_FILE)
        _copy(source, bought, folder / PURCHASES_FILE)
        _copy(source, hidden, folder / HIDES_FILE)
    for window in windows:
        with timed(f"wrote the {window.name} examples"):
            _write_examples(source, settings, events, blocks, window, folder)
    if windows:
        with timed("wrote the requests"):
            _write_requests(source, settings, events, blocks, windows, folder)
    with timed(f"wrote {len(manifest.snapshots)} snapshots"):
        _write_snapshots(source, items, events, manifest, folder)
    manifest.write(folder)
    return manifest


def _check_undeclared(undeclared: Sequence[str]) -> HealthCheck:
    return HealthCheck(
        topic="assumptions",
        name="numbers and times whose past values are not known",
        shown=", ".join(undeclared) or "none",
        measured=len(undeclared),
        look=1,
        advice="today's value may know the future, as a count of likes does, and the gate refuses"
        " the model; name in features.spec.static what never changes, leave out the rest",
    )


def _report(health: Sequence[HealthCheck], stops: bool) -> None:
    for check in health:
        log_message(str(check))
    if stops and (stopped := stopping(health)):
        raise DataValidationError("; ".join(str(check) for check in stopped))


def _windows(split: Split, spec: FeatureSpec, frozen_at_cut: bool) -> list[_Window]:
    bounds = (split.start, split.validation_start, split.test_start, split.end)
    every = timedelta(microseconds=round(spec.snapshot_every_days * DAY_US))
    windows, first = [], 0
    for name, start, end in zip(SPLITS, bounds, bounds[1:], strict=False):
        if not start < end:
            raise DataValidationError(
                f"the {name} window is empty, {start} to {end}: move the split"
            )
        frozen = frozen_at_cut and name != "train"
        n = 1 if frozen else -((start - end) // every)
        numbers = SnapshotOf(
            first, microseconds(start), None if frozen else every // tables.MICROSECOND
        )
        times = tuple(start + i * every for i in range(n))
        windows.append(_Window(name, start, end, times, numbers))
        first += n
    return windows


def _count_snapshots(
    windows: Sequence[_Window], end: datetime, at_us: ir.IntegerValue
) -> ir.IntegerValue:
    """How many snapshots, that of the end among them, there are at or before a time."""
    n = (at_us >= microseconds(end)).cast("int64")
    for window in windows:
        n += window.numbers.count_until(at_us, len(window.snapshots))
    return n


def _write_examples(
    source: DatasetTables,
    settings: FeatureSettings,
    events: ir.Table,
    blocks: ir.Table,
    window: _Window,
    folder: Path,
) -> None:
    if window.name == "train":
        wanted = events.weight > 0
    else:
        wanted = events.event_type.isin(source.spec.target_events)
        if not settings.evaluate_recommended:
            wanted = wanted & ~events.follows_answer
    path = folder / examples_file(window.name)
    n = _write_rows(source, events.filter(wanted), blocks, window, path)
    if not n:
        types = events.event_type.value_counts(name="n").execute()
        counts = ", ".join(f"{row.n} {row.event_type}" for row in types.itertuples())
        named = "event_weights" if window.name == "train" else "target_events"
        raise DataValidationError(
            f"no example for {window.name} from {window.start} to {window.end}: move the split, or"
            f" name other {named} (events that follow a recommendation are left out, unless"
            f" evaluate_recommended is set); over all time there are {counts or 'no events'}"
        )
    log_message(f"{window.name}: {n:,} examples")


def _write_rows(
    source: DatasetTables, events: ir.Table, blocks: ir.Table, window: _Window, path: Path
) -> int:
    """Write the events of a window as examples; return the number of rows."""
    path.parent.mkdir(exist_ok=True)
    rows = tables.examples(source, events, blocks, window.start, window.end, window.numbers)
    _copy(source, rows, path)
    return int(pq.read_metadata(path).num_rows)


def _write_requests(
    source: DatasetTables,
    settings: FeatureSettings,
    events: ir.Table,
    blocks: ir.Table,
    windows: Sequence[_Window],
    folder: Path,
) -> None:
    """Write the visits of the latest days, which may be in several windows."""
    end = windows[-1].end
    since = max(windows[0].start, end - timedelta(days=settings.request_days))
    parts = []
    for window in windows:
        start = max(window.start, since)
        if start < window.end:
            limit = round(settings.max_requests * ((window.end - start) / (end - since)))
            visits = tables.requests(events, start, window.end, max(limit, 1))
            parts.append(folder / f"requests-{window.name}.parquet")
            _write_rows(source, visits, blocks, window, parts[-1])
    tables_read = [pq.read_table(part) for part in parts]
    written = pa.concat_tables(tables_read, promote_options="default")
    pq.write_table(written, folder / examples_file(REQUESTS))
    for part in parts:
        part.unlink()


def _write_snapshots(
    source: DatasetTables,
    items: ir.Table,
    events: ir.Table,
    manifest: FeaturesManifest,
    folder: Path,
) -> None:
    (folder / snapshot_file(0)).parent.mkdir()
    times_us = [microseconds(time) for time in manifest.snapshots]
    lifetimes = items.order_by("item_index").select(
        known_us=tables.epoch_us(items.known_at), gone_us=tables.epoch_us(items.gone_at)
    )
    columns = lifetimes.to_pyarrow()
    known_us = columns["known_us"].to_numpy()
    gone_us = columns["gone_us"].fill_null(np.iinfo(np.int64).max).to_numpy()
    away = read_away(folder)
    orphans = _orphans(source, items, folder, len(times_us))
    spec = source.spec
    widths = [len(manifest.popularity_values[column]) for column in spec.popularity_by]
    counts = DecayedCounts(len(known_us), spec.popularity_half_lives_days, widths)
    weighted = folder / "weighted.parquet"
    _copy(source, tables.weighted_events(source, events, manifest.popularity_values), weighted)
    stream = pq.ParquetFile(weighted).iter_batches(EVENTS_PER_BATCH)
    for i, counted in enumerate(popularity_at(times_us, stream, counts)):
        is_now = i + 1 == len(times_us)
        known = known_us <= times_us[i] if is_now else known_us < times_us[i + 1]
        live = known & (gone_us > times_us[i])
        live[away.throughout(times_us[i], times_us[i] if is_now else times_us[i + 1])] = False
        live[orphans[i]] = True
        index = np.flatnonzero(live).astype(np.int32)
        age_days = np.maximum(times_us[i] - known_us[index], 0) / DAY_US
        flat = pa.array(counted.of(index).reshape(-1))
        table = pa.table(
            {
                "item_index": index,
                "age_days": age_days.astype(np.float32),
                "popularity": pa.FixedSizeListArray.from_arrays(flat, manifest.popularity_size),
            }
        )
        pq.write_table(table, folder / snapshot_file(i), compression="zstd", use_dictionary=False)
    weighted.unlink()


def _orphans(
    source: DatasetTables, items: ir.Table, folder: Path, snapshots: int
) -> list[np.ndarray]:
    """The item numbers to add to each snapshot, see ``tables.orphans``."""
    written = [folder / examples_file(name) for name in SPLITS]
    found = [source.con.read_parquet(path) for path in written if path.exists()]
    if not found:
        return [np.empty(0, np.int32)] * snapshots
    away = source.con.read_parquet(folder / AWAY_FILE)
    rows = tables.orphans(items, away, found).order_by("snapshot").to_pyarrow()
    snapshot, item_index = rows["snapshot"].to_numpy(), rows["item_index"].to_numpy()
    bounds = np.searchsorted(snapshot, np.arange(1, snapshots))
    return np.split(item_index, bounds)


def _vector_size(source: DatasetTables, folder: Path, kept: FeaturesManifest | None) -> int:
    spec, found = source.spec, set[int]()
    if not spec.item_vector:
        return 0
    for path in (folder / CATALOGUE_FILE, folder / VERSIONS_FILE):
        if path.exists():
            items = source.con.read_parquet(path)
            lengths = items[spec.item_vector].length()
            rows = items.select(n=lengths).filter(lengths.notnull()).distinct().to_pyarrow()
            found |= {*rows["n"].to_pylist()}
    sizes: Sequence[int] = sorted(found)
    if kept and sizes in ([], [kept.vector_size]):
        return kept.vector_size
    if kept or len(sizes) != 1:
        wanted = f"length {kept.vector_size}" if kept else "one length"
        raise DataValidationError(
            f"vectors of {spec.item_vector} must have {wanted}, found {sizes or 'none'}: was the"
            " encoder changed? Use one encoder for all items, or leave item_vector out of the spec"
        )
    return sizes[0]


def _copy(source: DatasetTables, table: ir.Table, path: Path) -> None:
    source.con.to_parquet(table, path, compression="zstd")


def _require_encoders(kept: FeaturesManifest, vectors: EncodedItems) -> None:
    """Check that the items' vectors are those that a model was trained with."""
    if vectors.problem:
        raise RefitError(vectors.problem)
    if differ(kept.encoding, vectors.encoding):
        raise RefitError(
            f"the items' vectors are by {vectors.encoding or 'no encoder'}, and the model was"
            f" trained with those of {kept.encoding or 'no encoder'}: vectors of different encoders"
            " cannot be compared"
        )


def _refuse_foreign(out: Path) -> None:
    """Refuse to overwrite a folder that does not contain features."""
    if out.exists() and not (out / FEATURES_FILE).exists() and any(out.iterdir()):
        raise UsageError(f"{out} does not contain features: choose another folder")
