"""Vocabularies and scales of the training data, from which the towers are built."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refit.errors import UsageError
from refit.feature_tables import (
    ItemTable,
    examples_file,
    iter_examples,
    numbers,
    read_versions,
    strings,
)
from refit.features import FeaturesManifest

MISSING = ""
ROWS_AT_ONCE = 1 << 16
LATEST = 0.1
"""Share of the examples, the latest ones, that say whether items recur."""
EXAMPLES_TO_RECUR = 10
"""Earlier examples from which an item recurs: enough that its id can tell more than its content."""
RECURRING_SHARE = 0.5
"""Share of recurring items from which a model has ids, unless the settings say so or not."""


@dataclass(frozen=True)
class Vocabulary:
    """Values and scales of the columns in the training examples.

    Attributes:
        values: By tower input name: the known strings, most frequent first.
        scales: By tower input name: mean and standard deviation of the known numbers.
        shares: By column of ``popularity_by``: the share of each counted value; they sum to 1.
        n_examples: Number of examples.
    """

    values: dict[str, tuple[str, ...]]
    scales: dict[str, tuple[float, float]]
    shares: dict[str, NDArray[np.float32]]
    n_examples: int


def check_popularity_columns(manifest: FeaturesManifest) -> None:
    """Check that every column of ``popularity_by`` is an input of the query tower.

    Raises:
        UsageError: One is not a context column, or is a number without bins, or there is no
            half-life.
    """
    spec = manifest.spec
    if not spec.popularity_half_lives_days:
        raise UsageError("popularity_half_lives_days is empty; the item tower needs at least one")
    for column in spec.popularity_by:
        binned = column in spec.context_numeric and column in spec.popularity_bins
        if not binned and column not in spec.context_categorical:
            raise UsageError(
                f"popularity_by names {column!r}: put it in context_categorical, or in "
                "context_numeric with its edges in popularity_bins"
            )


def learn_vocabulary(
    manifest: FeaturesManifest,
    folder: Path,
    catalogue: ItemTable,
    splits: Iterable[str],
    popularity: NDArray[np.float32],
    limit: int,
    ids: bool = True,
) -> Vocabulary:
    """Learn vocabulary and scales in one pass over the examples of ``splits``.

    Items are weighted by their number of examples. Values and scales are then those of the items
    that users act on, in the versions that the examples read; what is later has no influence.

    Args:
        manifest: Of the features folder.
        folder: The features folder.
        catalogue: Its items, with their older versions.
        splits: The splits whose examples are read.
        popularity: [N, P] counts of the latest training snapshot.
        limit: At most this many values per column; item ids are not limited.
        ids: Whether item ids are known.
    """
    spec = manifest.spec
    text = {f"context_{c}": c for c in spec.context_categorical}
    text |= {f"user_{c}": c for c in spec.user_categorical}
    numeric = {f"context_{c}": c for c in spec.context_numeric}
    numeric |= {f"user_{c}": c for c in spec.user_numeric}
    counts: dict[str, Counter[str]] = {name: Counter() for name in text}
    moments = {name: np.zeros(3) for name in numeric}
    n_examples_of = np.zeros(len(catalogue), dtype=np.int64)
    versions, snapshot_times = read_versions(folder), manifest.snapshot_times
    columns = [*dict.fromkeys([*text.values(), *numeric.values()]), "item_index", "snapshot"]
    for split in splits:
        for batch in iter_examples(folder, split, ROWS_AT_ONCE, columns):
            times = snapshot_times[batch["snapshot"].to_numpy()]
            rows = versions.rows_at(batch["item_index"].to_numpy(), times)
            n_examples_of += np.bincount(rows, minlength=len(catalogue))
            for name, column in text.items():
                counts[name].update(_count(batch[column]))
            for name, column in numeric.items():
                moments[name] += _moments(numbers(batch[column]), 1)
    for column in spec.item_categorical:
        counts[f"item_{column}"] = _count_items(catalogue.strings(column), n_examples_of)
    counts["item_id"] = (
        _count_items(catalogue.strings("item_id"), n_examples_of) if ids else Counter()
    )
    for column in spec.item_numeric:
        moments[f"item_{column}"] = _moments(catalogue.numbers(column), n_examples_of)
    return Vocabulary(
        values={
            name: _frequent(c, None if name == "item_id" else limit) for name, c in counts.items()
        },
        scales={name: _scale(m) for name, m in moments.items()},
        shares=_shares(manifest, popularity),
        n_examples=int(n_examples_of.sum()),
    )


def measure_recurrence(folder: Path, splits: Sequence[str]) -> float:
    """Share of the latest examples whose item had ``EXAMPLES_TO_RECUR`` examples before those.

    Args:
        folder: The features folder.
        splits: The splits whose examples are read, in the order of time.
    """
    n = sum(pq.read_metadata(folder / examples_file(split)).num_rows for split in splits)
    seen = np.zeros(read_versions(folder).n_items, dtype=np.int32)
    latest_from, at, recurring = int(n * (1 - LATEST)), 0, 0
    for split in splits:
        for batch in iter_examples(folder, split, ROWS_AT_ONCE, ["item_index"]):
            items = batch["item_index"].to_numpy()
            earlier, latest = np.split(items, [max(latest_from - at, 0)])
            seen += np.bincount(earlier, minlength=len(seen)).astype(np.int32)
            recurring += int((seen[latest] >= EXAMPLES_TO_RECUR).sum())
            at += len(items)
    return recurring / max(n - latest_from, 1)


def _count(values: pa.Array) -> dict[str, int]:
    counted = pc.value_counts(pc.fill_null(pc.cast(values, pa.string()), MISSING))
    names, times = strings(counted.field("values")), counted.field("counts").to_numpy()
    return dict(zip(names, times.tolist(), strict=True))


def _count_items(values: NDArray[Any], n_examples_of: NDArray[np.int64]) -> Counter[str]:
    counter: Counter[str] = Counter()
    for i in np.flatnonzero(n_examples_of):
        counter[values[i]] += int(n_examples_of[i])
    return counter


def _frequent(counter: Counter[str], limit: int | None) -> tuple[str, ...]:
    ordered = sorted((v for v in counter if v != MISSING), key=lambda v: (-counter[v], v))
    return tuple(ordered[:limit])


def _moments(values: NDArray[np.float32], weights: Any) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    weight = np.broadcast_to(weights, values.shape)[known].astype(np.float64)
    kept = values[known].astype(np.float64)
    return np.array([weight.sum(), (weight * kept).sum(), (weight * kept**2).sum()])


def _scale(moments: NDArray[np.float64]) -> tuple[float, float]:
    n, total, squares = moments
    if n == 0:
        return 0.0, 1.0
    variance = squares / n - (total / n) ** 2
    return float(total / n), float(np.sqrt(variance)) if variance > 1e-12 else 1.0


def _shares(
    manifest: FeaturesManifest, popularity: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Shares with the longest half-life, the most stable one; 1 is added to each count."""
    half_lives = manifest.spec.popularity_half_lives_days
    by_value = popularity.reshape(len(popularity), len(half_lives), -1).sum(0)
    totals = by_value[int(np.argmax(half_lives)), 1:]
    shares, start = {}, 0
    for column in manifest.spec.popularity_by:
        stop = start + len(manifest.popularity_values[column])
        counts = totals[start:stop] + 1
        shares[column] = (counts / counts.sum()).astype(np.float32)
        start = stop
    return shares
