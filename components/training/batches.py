"""Training batches, built with NumPy from memory-mapped examples.

The catalogue, with the versions of its items, and a few item snapshots are in memory. Examples are
encoded once, into files of fixed-width columns, from which each batch reads its rows.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
from numpy.typing import NDArray

from components.training.encoders import ItemEncoder, QueryEncoder
from components.training.settings import TrainSettings
from refit.errors import DataValidationError
from refit.feature_tables import (
    ItemTable,
    ItemVersions,
    examples_file,
    iter_examples,
    numbers,
    pad_histories,
    read_snapshot,
    read_versions,
    strings,
)
from refit.features import FeaturesManifest, FeatureSpec, Inputs, item_inputs, query_inputs

ROWS_AT_ONCE = 1 << 15
DAY_US = 86_400_000_000
SEED_RANGE = 1 << 30

Batch = dict[str, NDArray[Any]]


def encode_catalogue(
    encoder: ItemEncoder, manifest: FeaturesManifest, catalogue: ItemTable
) -> Batch:
    """Encode every item once: arrays [M, ...] with the names of ``ItemEncoder``'s outputs.

    A catalogue of ``read_contents`` has a row of its own for each older version.
    """
    spec = manifest.spec
    n = len(catalogue)
    columns: dict[str, Any] = {
        name: catalogue.strings(name)
        for name in ("item_id", *spec.item_categorical, *spec.item_text)
    }
    columns |= {name: catalogue.numbers(name) for name in spec.item_numeric}
    if spec.item_vector:
        columns[spec.item_vector] = catalogue.vectors(spec.item_vector, manifest.vector_size)
    inputs = item_inputs(spec, columns, np.zeros(n, np.float32), np.zeros((n, 0), np.float32))
    return _run_in_parts(encoder, inputs, n)


class EncodedExamples:
    """Encoded examples on disk, in time order.

    Attributes:
        item, snapshot, user, weight, time: [E] memory maps; time in microseconds since 1970.
        codes: Outputs of ``QueryEncoder``, [E, ...] each.
        history, history_event_type, history_age_days: [E, L], newest first; item -1 is padding.
    """

    def __init__(self, columns: Batch) -> None:
        self.item = columns["item"]
        self.snapshot = columns["snapshot"]
        self.user = columns["user"]
        self.weight = columns["weight"]
        self.time = columns["time"]
        self.history = columns["history"]
        self.history_event_type = columns["history_event_type"]
        self.history_age_days = columns["history_age_days"]
        self.codes = {k[6:]: v for k, v in columns.items() if k.startswith("query/")}

    def __len__(self) -> int:
        return len(self.item)

    def times(self) -> tuple[datetime, datetime]:
        """Times of the first and the last example."""
        first, last = (np.datetime64(int(t), "us") for t in (self.time[0], self.time[-1]))
        return tuple(pd.Timestamp(t, tz="UTC").to_pydatetime() for t in (first, last))


def write_examples(
    encoder: QueryEncoder,
    manifest: FeaturesManifest,
    features: Path,
    splits: Sequence[str],
    folder: Path,
) -> EncodedExamples:
    """Encode the examples of ``splits``, in this order, into memory maps in a new folder."""
    folder.mkdir(parents=True)
    total = sum(pq.ParquetFile(features / examples_file(s)).metadata.num_rows for s in splits)
    maps: Batch = {}
    at = 0
    for split in splits:
        for batch in iter_examples(features, split, ROWS_AT_ONCE):
            for name, values in _encode_examples(encoder, manifest.spec, batch).items():
                if name not in maps:
                    maps[name] = np.lib.format.open_memmap(
                        folder / f"{name.replace('/', '-')}.npy",
                        mode="w+",
                        dtype=values.dtype,
                        shape=(total, *values.shape[1:]),
                    )
                maps[name][at : at + len(values)] = values
            at += batch.num_rows
    return EncodedExamples(maps)


def _encode_examples(encoder: QueryEncoder, spec: FeatureSpec, batch: pa.RecordBatch) -> Batch:
    n = batch.num_rows
    history = pad_histories(batch, spec.history_length)
    inputs = query_inputs(
        spec,
        read_columns(batch, spec.context_categorical, spec.context_numeric),
        read_columns(batch, spec.user_categorical, spec.user_numeric),
        np.zeros((n, 0, 0), np.float32),
        np.zeros((n, 0), object),
        history.age_days,
    )
    kept = {k: v for k, v in inputs.items() if k not in ("history_content", "history_event_type")}
    users_encoded = pc.dictionary_encode(batch["user_id"])
    hashes = pd.util.hash_array(users_encoded.dictionary.to_numpy(zero_copy_only=False))
    return {
        "item": batch["item_index"].to_numpy(),
        "snapshot": batch["snapshot"].to_numpy(),
        "user": hashes[users_encoded.indices.to_numpy()],
        "weight": batch["weight"].to_numpy(),
        "time": pc.cast(batch["event_time"], pa.timestamp("us", "UTC")).to_numpy().astype(np.int64),
        "history": history.item,
        "history_event_type": encoder.event_types(tf.constant(history.event_type.astype(str)))
        .numpy()
        .astype(np.int8),
        "history_age_days": history.age_days,
        **{f"query/{name}": codes for name, codes in _run_in_parts(encoder, kept, n).items()},
    }


def read_columns(
    batch: pa.RecordBatch | pa.Table, categorical: Sequence[str], numeric: Sequence[str]
) -> dict[str, Any]:
    """Columns as ``query_inputs`` takes them: texts, "" where missing, and numbers, NaN."""
    return {c: strings(batch[c]) for c in categorical} | {c: numbers(batch[c]) for c in numeric}


def _run_in_parts(layer: tf.keras.layers.Layer, inputs: Inputs, n: int) -> Batch:
    parts = []
    for start in range(0, n, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        part = layer({name: tf.constant(values[rows]) for name, values in inputs.items()})
        parts.append({name: value.numpy() for name, value in part.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Snapshot:
    """The items of a snapshot.

    Attributes:
        item: [N] item indices, ascending.
        age_days: [N] days since listing.
        popularity: [N, P] decayed counts.
        time: In microseconds since 1970.
        versions: Which versions of the items there are.
    """

    item: NDArray[np.int32]
    age_days: NDArray[np.float32]
    popularity: NDArray[np.float32]
    time: int
    versions: ItemVersions

    def rows_of(self, items: NDArray[np.int32]) -> NDArray[np.int64]:
        """Row of each item in the snapshot; -1 where it is not live."""
        rows = np.searchsorted(self.item, items)
        found = np.isin(items, self.item)
        return np.where(found, rows, -1)

    def content_rows(self, items: NDArray[np.int32]) -> NDArray[Any]:
        """Rows of the encoded catalogue with the items as they were; -1 stays -1."""
        return self.versions.rows_at(items, self.time)


class Snapshots:
    """Item snapshots by number, with a least-recently-used cache.

    Args:
        manifest: Of the features folder.
        folder: The features folder.
        limit_mb: Memory of the cache.
        known_only: Leave out items without an event before the snapshot.
    """

    def __init__(
        self, manifest: FeaturesManifest, folder: Path, limit_mb: int, known_only: bool = False
    ) -> None:
        self.days = np.array([t.timestamp() / 86_400 for t in manifest.snapshots])
        self.versions = read_versions(folder)
        self._times = manifest.snapshot_times
        self._folder = folder
        self._free_bytes = limit_mb << 20
        self._known_only = known_only
        self._kept: OrderedDict[int, Snapshot] = OrderedDict()

    def __getitem__(self, i: int) -> Snapshot:
        if i in self._kept:
            self._kept.move_to_end(i)
            return self._kept[i]
        snapshot = self._kept[i] = self._read(i)
        self._free_bytes -= snapshot.popularity.nbytes
        while self._free_bytes < 0 and len(self._kept) > 1:
            self._free_bytes += self._kept.popitem(last=False)[1].popularity.nbytes
        return snapshot

    def live(self, i: int, items: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether each item is in snapshot ``i``."""
        return self[i].rows_of(items) >= 0

    def _read(self, i: int) -> Snapshot:
        item, age_days, popularity = read_snapshot(self._folder, i)
        known = popularity.any(axis=1) if self._known_only else slice(None)
        time = int(self._times[i])
        return Snapshot(item[known], age_days[known], popularity[known], time, self.versions)


class Batches:
    """The batches of each epoch; the same seed and epoch give the same batches."""

    def __init__(
        self,
        settings: TrainSettings,
        examples: EncodedExamples,
        snapshots: Snapshots,
        catalogue: Batch,
    ) -> None:
        self._settings = settings
        self._examples = examples
        self._snapshots = snapshots
        self._catalogue = catalogue
        age_days = (examples.time[-1] - np.asarray(examples.time)) / DAY_US
        weight = examples.weight * 0.5 ** (age_days / settings.recency_half_life_days)
        self._weight = (weight / weight.mean()).astype(np.float32)

    def of_epoch(self, epoch: int) -> Iterator[Batch]:
        """Every example once, in batches of one snapshot each, in random order."""
        rng = np.random.default_rng([self._settings.seed, epoch])
        plan = self._plan(rng)
        for i in rng.permutation(len(plan)):
            snapshot, rows, shares = plan[i]
            yield self._build(self._snapshots[snapshot], rows, shares, rng)

    @cached_property
    def first(self) -> Batch:
        """The first batch, from which the model's variables are built.

        Raises:
            DataValidationError: There is no batch.
        """
        batch = next(self.of_epoch(0), None)
        if batch is None:
            raise DataValidationError(
                "no training example has an item of its snapshot; set known_items_only "
                "to false, or take snapshots more often"
            )
        return batch

    def signature(self) -> dict[str, tf.TensorSpec]:
        """Shapes and types of every batch, so that a step is traced once."""
        batch = self.first
        shapes = {name: (None, *values.shape[1:]) for name, values in batch.items()}
        return {
            name: tf.TensorSpec((2,) if name == "seed" else shape, batch[name].dtype)
            for name, shape in shapes.items()
        }

    def _plan(self, rng: np.random.Generator) -> list[tuple[int, NDArray[Any], "_Shares"]]:
        snapshot_of = self._draw_snapshots(rng)
        plan = []
        for snapshot in np.unique(snapshot_of):
            rows = np.flatnonzero(snapshot_of == snapshot)
            rows = rows[self._snapshots.live(int(snapshot), self._examples.item[rows])]
            if not len(rows):
                continue
            rows = rng.permutation(rows)
            shares = _Shares.of(self._examples.item[rows])
            n_batches = -(-len(rows) // self._settings.batch_size)
            plan += [(int(snapshot), part, shares) for part in np.array_split(rows, n_batches)]
        return plan

    def _draw_snapshots(self, rng: np.random.Generator) -> NDArray[Any]:
        """Snapshot of each example: its own, or an older one drawn at random.

        Items listed after the older snapshot are no candidates, and their examples are left out. If
        those kept their own snapshot, the model would learn to prefer new items.
        """
        own = np.array(self._examples.snapshot)
        if not self._settings.max_staleness_days:
            return own
        back = rng.uniform(0, self._settings.max_staleness_days, len(own))
        days = self._snapshots.days
        return np.maximum(np.searchsorted(days, days[own] - back, "right") - 1, 0)

    def _build(
        self,
        snapshot: Snapshot,
        rows: NDArray[Any],
        shares: "_Shares",
        rng: np.random.Generator,
    ) -> Batch:
        examples, settings = self._examples, self._settings
        rows = np.sort(rows)
        positives = examples.item[rows]
        candidates = self._draw(snapshot, positives, rng)
        live = snapshot.rows_of(candidates)
        history = examples.history[rows]
        not_candidates = np.setdiff1d(history[history >= 0], candidates)
        items = np.concatenate([candidates, not_candidates])
        row_of_history = _positions(items, history)
        rows_of_items = snapshot.content_rows(items)
        label = np.searchsorted(candidates, positives).astype(np.int32)
        probability = shares.probability(candidates, len(rows), len(snapshot.item), settings)
        return {
            **{f"item/{k}": v[rows_of_items] for k, v in self._catalogue.items()},
            **{f"query/{k}": v[rows] for k, v in examples.codes.items()},
            "age_days": snapshot.age_days[live],
            "popularity": snapshot.popularity[live],
            "history_row": row_of_history,
            "history_event_type": examples.history_event_type[rows].astype(np.int32),
            "history_age_days": examples.history_age_days[rows],
            "label": label,
            "weight": self._weight[rows],
            "log_probability": np.log(probability).astype(np.float32),
            "masked": same_user_positives(examples.user[rows], label),
            "seed": rng.integers(SEED_RANGE, size=2, dtype=np.int32),
        }

    def _draw(
        self, snapshot: Snapshot, positives: NDArray[np.int32], rng: np.random.Generator
    ) -> NDArray[np.int32]:
        """Distinct candidates, ascending: positives and a uniform sample, or all live items."""
        n = len(snapshot.item)
        if self._settings.uniform_negatives >= n:
            return snapshot.item
        uniform = snapshot.item[rng.integers(n, size=self._settings.uniform_negatives)]
        return np.union1d(positives, uniform)


@dataclass(frozen=True)
class _Shares:
    """Each item's share of the examples that a batch is drawn from."""

    item: NDArray[np.int32]
    share: NDArray[np.float64]

    @classmethod
    def of(cls, items: NDArray[np.int32]) -> "_Shares":
        item, count = np.unique(items, return_counts=True)
        return cls(item, count / count.sum())

    def probability(
        self, candidates: NDArray[np.int32], batch: int, live: int, settings: TrainSettings
    ) -> NDArray[np.float64]:
        """Probability that each candidate is in a batch, as a positive or in the uniform sample."""
        if settings.uniform_negatives >= live or not settings.correct_sampling:
            return np.ones(len(candidates))
        at = np.minimum(np.searchsorted(self.item, candidates), len(self.item) - 1)
        share = np.where(self.item[at] == candidates, self.share[at], 0.0)
        missed = (1 - share) ** batch * (1 - 1 / live) ** settings.uniform_negatives
        return 1 - missed


def same_user_positives(users: NDArray[np.uint64], label: NDArray[np.int32]) -> NDArray[np.int32]:
    """Pairs (query, candidate) [K, 2] of a query and the positive of another by the same user.

    Args:
        users: [B] user of each query.
        label: [B] candidate row of each query's positive.
    """
    order = np.argsort(users, kind="stable")
    _, start, size = np.unique(users[order], return_index=True, return_counts=True)
    group = np.repeat(np.arange(len(size)), size)
    group_size = size[group]
    query = np.repeat(np.arange(len(users)), group_size)
    offset = np.arange(len(query)) - np.repeat(np.cumsum(group_size) - group_size, group_size)
    other = np.repeat(start[group], group_size) + offset
    pairs = np.stack([order[query], label[order[other]]], axis=1).astype(np.int32)
    return pairs[label[pairs[:, 0]] != pairs[:, 1]]


def _positions(items: NDArray[np.int32], wanted: NDArray[np.int32]) -> NDArray[np.int32]:
    """Position of each wanted item in ``items``; -1 for padding."""
    order = np.argsort(items)
    found = order[np.minimum(np.searchsorted(items[order], wanted), len(items) - 1)]
    return np.where(wanted >= 0, found, -1).astype(np.int32)
