"""Training batches, built with NumPy from memory-mapped examples.

The catalogue, with the versions of its items, and a few item snapshots are in memory. Examples are
encoded once, into files of fixed-width columns, from which each batch reads its rows.
"""

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

from components.training.encoders import ItemEncoder, QueryEncoder, Tensors
from components.training.settings import TrainSettings
from components.training.snapshots import Snapshots
from refit.errors import DataValidationError
from refit.feature_tables import (
    ItemTable,
    examples_file,
    iter_examples,
    numbers,
    pad_histories,
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
    encoded = _run_in_parts(encoder, inputs, n)
    return encoded | {"words": _trim(encoded["words"], len(spec.item_text))}


def _trim(words: NDArray[np.int32], n_texts: int) -> NDArray[np.int32]:
    """Words [M, #text * words] without the places that every text leaves empty."""
    by_text = words.reshape(len(words), max(n_texts, 1), -1)
    used = np.flatnonzero(by_text.any(axis=(0, 1)))
    kept = by_text[:, :, : used[-1] + 1 if len(used) else 1]
    return np.ascontiguousarray(kept.reshape(len(words), -1)) if n_texts else words


def to_tensors(batch: Batch) -> Tensors:
    """The arrays of a batch as tensors."""
    return {name: tf.constant(values) for name, values in batch.items()}


def read_items(batch: Tensors, catalogue: Tensors) -> Tensors:
    """A batch with the encoded items, ``item/<name>``, in the place of their rows, ``item``."""
    codes = {}
    for name, values in catalogue.items():
        # TensorFlow keeps int32 in the host's memory; a GPU would be sent the whole column.
        with tf.device(values.device):
            codes[f"item/{name}"] = tf.gather(values, batch["item"])
    return {name: value for name, value in batch.items() if name != "item"} | codes


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


class Batches:
    """The batches of each epoch; the same seed and epoch give the same batches.

    Args:
        settings: How to train.
        examples: The examples.
        snapshots: The items that are live at the examples.
    """

    def __init__(
        self, settings: TrainSettings, examples: EncodedExamples, snapshots: Snapshots
    ) -> None:
        self._settings = settings
        self._examples = examples
        self._snapshots = snapshots
        self._weight = _weights(examples, settings.recency_half_life_days)
        self._shares_histories = settings.history == "sequence"

    def of_epoch(self, epoch: int) -> Iterator[Batch]:
        """Every example once, in batches of one snapshot each, in random order.

        If the cache has not room for all snapshots, they are taken in random groups for which it
        has: each is then read once.
        """
        rng = np.random.default_rng([self._settings.seed, epoch])
        places = _Places(self._snapshots.versions.n_items)
        rows_of = _group(self._draw_snapshots(rng))
        order = rng.permutation(np.array(list(rows_of), dtype=np.int64))
        for group in self._snapshots.groups(order.tolist()):
            plan = [part for i in group for part in self._plan(i, rows_of[i], rng)]
            for j in rng.permutation(len(plan)):
                yield self._build(plan[j], places, rng)

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

    def _plan(
        self, number: int, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> list["_Part"]:
        """The batches of a snapshot."""
        snapshot = self._snapshots[number]
        if self._settings.with_history_only:
            rows = rows[self._n_events[rows] > 0]
        live = snapshot.rows_of(self._examples.item[rows])
        rows, live = rows[live >= 0], live[live >= 0]
        if not len(rows):
            return []
        count = np.bincount(live, minlength=len(snapshot.item))
        share = count / len(rows)
        n_batches = -(-len(rows) // self._settings.batch_size)
        parts = (
            _split_runs(self._find_runs(rows), n_batches, rng)
            if self._shares_histories
            else np.array_split(rng.permutation(len(rows)), n_batches)
        )
        return [_Part(number, rows[part], live[part], share) for part in map(np.sort, parts)]

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

    def _build(self, part: "_Part", places: "_Places", rng: np.random.Generator) -> Batch:
        examples, rows = self._examples, part.rows
        snapshot = self._snapshots[part.snapshot]
        candidates, label = self._draw(len(snapshot.item), part.live, rng)
        read, runs = self._share_histories(rows) if self._shares_histories else (rows, {})
        items, history_row = places.join(snapshot.item[candidates], examples.history[read])
        return {
            "item": snapshot.content_rows(items).astype(np.int32),
            **{f"query/{k}": v[rows] for k, v in examples.codes.items()},
            "age_days": snapshot.age_days[candidates],
            "popularity": snapshot.counts.rows(candidates),
            "history_row": history_row,
            "history_event_type": examples.history_event_type[read].astype(np.int32),
            "history_age_days": examples.history_age_days[read],
            **runs,
            "label": label,
            "weight": self._weight[rows],
            "log_probability": self._log_probability(part, candidates),
            "masked": same_user_positives(examples.user[rows], label),
            "seed": rng.integers(SEED_RANGE, size=2, dtype=np.int32),
        }

    def _find_runs(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """[B] the run of each of these examples; those of one run read the same history.

        A history that is full leaves older events out, and is read by its own example alone.
        """
        _, user = np.unique(self._examples.user[rows], return_inverse=True)
        is_full = self._n_events[rows] == self._examples.history.shape[1]
        own = len(rows) + np.arange(len(rows))
        return np.unique(np.where(is_full, own, user), return_inverse=True)[1]

    def _share_histories(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Batch]:
        """Of each run the example whose history is read, the longest; and ``sequence.Runs``."""
        run, n_events = self._find_runs(rows), self._n_events[rows]
        order = np.lexsort((n_events, run))
        last = order[np.flatnonzero(np.diff(run[order], append=-1))]
        time = self._examples.time[rows]
        return rows[last], {
            "run": run.astype(np.int32),
            "newer": n_events[last][run] - n_events,
            "lag_days": ((time[last][run] - time) / DAY_US).astype(np.float32),
        }

    @cached_property
    def _n_events(self) -> NDArray[np.int32]:
        """[E] how many events each history holds."""
        history = self._examples.history
        counts = np.empty(len(history), np.int32)
        for start in range(0, len(history), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            counts[rows] = np.count_nonzero(history[rows] >= 0, axis=1)
        return counts

    def _draw(
        self, live: int, positives: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Distinct rows of a snapshot, ascending, and the place of each positive among them.

        They are the positives and a uniform sample, or all live items.
        """
        if self._settings.uniform_negatives >= live:
            return np.arange(live), positives.astype(np.int32)
        chosen = np.zeros(live, dtype=np.bool_)
        chosen[positives] = True
        chosen[rng.integers(live, size=self._settings.uniform_negatives)] = True
        candidates = np.flatnonzero(chosen)
        return candidates, np.searchsorted(candidates, positives).astype(np.int32)

    def _log_probability(self, part: "_Part", candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        """Log of the probability that each candidate is in a batch, positive or drawn."""
        settings, live = self._settings, len(part.share)
        if settings.uniform_negatives >= live or not settings.correct_sampling:
            return np.zeros(len(candidates), np.float32)
        missed = len(part.rows) * np.log1p(-np.minimum(part.share[candidates], 1 - 1e-12))
        missed += settings.uniform_negatives * np.log1p(-1 / live)
        return np.log(-np.expm1(missed)).astype(np.float32)


@dataclass(frozen=True)
class _Part:
    """The examples of one batch.

    Attributes:
        snapshot: Its number.
        rows: [B] rows of the examples, ascending.
        live: [B] row of each example's item in the snapshot.
        share: [N] each item's share of the examples that the batch was drawn from.
    """

    snapshot: int
    rows: NDArray[np.int64]
    live: NDArray[np.int64]
    share: NDArray[np.float64]


class _Places:
    """Finds the items of histories among others, with a table instead of sorting."""

    def __init__(self, n_items: int) -> None:
        self._place = np.full(n_items, -1, dtype=np.int32)

    def join(
        self, candidates: NDArray[np.int32], history: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The distinct items, candidates first, and the place of each item of the histories.

        Args:
            candidates: [N] distinct items.
            history: [B, L] items; -1 is padding, and stays -1.
        """
        place = self._place
        place[candidates] = np.arange(len(candidates), dtype=np.int32)
        past = history[history >= 0]
        others = past[place[past] < 0]
        # Of several writes to one place the last one stays, so that one of each item is kept.
        order = np.arange(len(others), dtype=np.int32)
        place[others] = order
        others = others[place[others] == order]
        items = np.concatenate([candidates, others])
        place[others] = np.arange(len(candidates), len(items), dtype=np.int32)
        rows = np.full(history.shape, -1, dtype=np.int32)
        rows[history >= 0] = place[past]
        place[items] = -1
        return items, rows


def _split_runs(
    run: NDArray[np.int64], n_batches: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Cut examples into batches of about the same size, in random order but runs in one piece."""
    size = np.bincount(run)
    order = rng.permutation(len(size))
    before = np.cumsum(size[order]) - size[order]
    batch = np.empty(len(size), np.int64)
    batch[order] = before * n_batches // len(run)
    return list(_group(batch[run]).values())


def _weights(examples: EncodedExamples, half_life_days: float) -> NDArray[np.float32]:
    """[E] weight of each example, halved with its age; 1 on average."""
    weights = np.empty(len(examples), np.float32)
    for start in range(0, len(examples), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        age_days = (examples.time[-1] - np.asarray(examples.time[rows])) / DAY_US
        weights[rows] = examples.weight[rows] * 0.5 ** (age_days / half_life_days)
    return weights / weights.mean(dtype=np.float64).astype(np.float32)


def _group(numbers: NDArray[Any]) -> dict[int, NDArray[np.int64]]:
    """By number, ascending: the rows that have it, ascending."""
    order = np.argsort(numbers, kind="stable")
    found, start = np.unique(numbers[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, start[1:]), strict=True))


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
