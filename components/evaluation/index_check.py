"""Whether the index was built with the model, and its recall and latency on test queries."""

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from components.evaluation.data import EvaluationData, Floats
from components.evaluation.ranking import spread
from components.evaluation.results import IndexResult
from components.evaluation.towers import TowerScorer
from refit.errors import RefitError
from refit.index import ITEMS_FILE, IndexManifest, ItemIndex, scan

SEARCHES = 500
LENGTH = 100
SAMPLED_VECTORS = 500


def check_index(
    folder: Path, data: EvaluationData, model: TowerScorer, queries: Floats
) -> IndexResult:
    """Measure an index folder; values that cannot be measured are None, with the reason.

    Args:
        folder: The index folder.
        data: The features folder that it was built from.
        model: The towers that it must have been built with.
        queries: [n, D] vectors of test queries.
    """
    try:
        manifest = IndexManifest.read(folder)
        index = ItemIndex.read(folder)
    except (RefitError, OSError, RuntimeError) as error:
        return IndexResult(why=f"the index cannot be read: {error}")
    recorded = IndexResult(
        embedding_version=manifest.embedding_version, recorded_recall=manifest.recall_at_100
    )
    if queries.shape[1] != index.vectors.shape[1]:
        sizes = f"{index.vectors.shape[1]}, the query tower returns {queries.shape[1]}"
        return recorded.model_copy(update={"why": f"the index has vectors of length {sizes}"})
    sample = queries[spread(np.arange(len(queries)), SEARCHES)]
    milliseconds, found = [], []
    for query in sample:
        start = time.perf_counter()
        _, rows = index.search(query[None, :], LENGTH)
        milliseconds.append(1000 * (time.perf_counter() - start))
        found.append(rows[0])
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return IndexResult(
        embedding_version=manifest.embedding_version,
        recorded_recall=manifest.recall_at_100,
        recall=_recall(sample, np.stack(found), np.asarray(index.vectors)),
        p50_ms=float(p50),
        p99_ms=float(p99),
        vector_gap=_vector_gap(folder, index.vectors, data, model),
        n=len(sample),
    )


def _recall(queries: Floats, found: np.ndarray, vectors: Floats) -> float:
    """Share of the exact best that the index found; ties with the last of them count as found."""
    best, _ = scan(queries, vectors, LENGTH)
    n_best = np.isfinite(best).sum(axis=1)
    scores = np.einsum("qd,qkd->qk", queries, vectors[np.maximum(found, 0)])
    last = best[np.arange(len(best)), n_best - 1]
    hits = ((found >= 0) & (scores >= last[:, None] - 1e-5)).sum(axis=1)
    return float((np.minimum(hits, n_best) / n_best).mean())


def _vector_gap(
    folder: Path, vectors: Floats, data: EvaluationData, model: TowerScorer
) -> float | None:
    """Largest difference between sampled index vectors and the item tower's output.

    None where index and features do not have the same live items.
    """
    item_ids = pq.read_table(folder / ITEMS_FILE, columns=["item_id"])["item_id"].to_pylist()
    row_of = {item_id: row for row, item_id in enumerate(item_ids[: len(vectors)])}
    live = data.read_candidates(len(data.manifest.snapshots) - 1)
    rows = np.array([row_of.get(i, -1) for i in data.catalogue.item_id[live.items]])
    if len(rows) != len(vectors) or (rows < 0).any():
        return None
    sample = spread(np.arange(len(rows)), SAMPLED_VECTORS)
    embedded = model.embed_items(live.take(sample))
    return float(np.abs(embedded - vectors[rows[sample]]).max())
