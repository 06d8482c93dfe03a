"""Query vectors to measure an index with: a sample of real queries, embedded."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.indexing.settings import IndexSettings
from refit.feature_tables import (
    HISTORIES_FILE,
    PaddedHistories,
    examples_file,
    numbers,
    pad_histories,
    strings,
)
from refit.features import FeaturesManifest, query_inputs
from refit.towers import load_tower, run_tower

HISTORY_NAMES = {"item_index": "history_item", "event_type": "history_event_type"}


def sample_queries(settings: IndexSettings, manifest: FeaturesManifest, features: Path) -> pa.Table:
    """Sample queries from the validation and test examples.

    Features that are built for an index alone have no examples; then users are sampled, with their
    history and without context.

    Returns:
        At most ``settings.n_queries`` rows with the history columns of examples.
    """
    paths = [features / examples_file(split) for split in ("validation", "test")]
    tables = [pq.read_table(path) for path in paths if path.exists()]
    if tables:
        return _draw(settings, pa.concat_tables(tables, promote_options="permissive"))
    users = _draw(settings, pq.read_table(features / HISTORIES_FILE))
    ages = [
        [(manifest.snapshots[-1] - time).total_seconds() / 86_400 for time in times]
        for times in users["event_time"].to_pylist()
    ]
    names = [HISTORY_NAMES.get(name, name) for name in users.column_names]
    return users.rename_columns(names).append_column(
        "history_age_days", pa.array(ages, pa.list_(pa.float32()))
    )


def query_histories(manifest: FeaturesManifest, queries: pa.Table) -> PaddedHistories:
    """Lay the histories of sampled queries out as arrays."""
    return pad_histories(queries, manifest.spec.history_length)


def embed_queries(
    manifest: FeaturesManifest,
    model: Path,
    queries: pa.Table,
    content: NDArray[np.float32],
    row_of: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Run the query tower over sampled queries.

    Args:
        manifest: Of the features.
        model: Model folder.
        queries: [B] rows from ``sample_queries``.
        content: [R, C] content vectors.
        row_of: Row in ``content`` by item_index.

    Returns:
        [B, D] query vectors.
    """
    spec = manifest.spec
    histories = query_histories(manifest, queries)
    padded = histories.item < 0
    vectors = content[row_of[np.where(padded, 0, histories.item)]]
    vectors[padded] = 0
    inputs = query_inputs(
        spec,
        _columns(queries, spec.context_categorical, spec.context_numeric),
        _columns(queries, spec.user_categorical, spec.user_numeric),
        vectors,
        histories.event_type,
        histories.age_days,
    )
    return run_tower(load_tower(model / "query_tower"), inputs)["embedding"]


def _draw(settings: IndexSettings, table: pa.Table) -> pa.Table:
    n = min(settings.n_queries, table.num_rows)
    rows = np.random.default_rng(settings.seed).choice(table.num_rows, n, replace=False)
    return table.take(pa.array(np.sort(rows)))


def _columns(
    table: pa.Table, categorical: tuple[str, ...], numeric: tuple[str, ...]
) -> dict[str, Any]:
    def column(name: str, kind: pa.DataType) -> pa.ChunkedArray:
        if name in table.column_names:
            return pc.cast(table[name], kind)
        return pa.chunked_array([pa.nulls(table.num_rows, kind)])

    return {name: strings(column(name, pa.string())) for name in categorical} | {
        name: numbers(column(name, pa.float32())) for name in numeric
    }
