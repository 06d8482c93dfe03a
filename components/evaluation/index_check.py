"""Whether the index belongs to the model and answers well enough, measured on test queries."""

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
    """Measure an index folder; what cannot be measured is left out, with the reason.

    Args:
        folder: The index folder.
        data: The features folder that it was made from.
        model: The towers that it must have been made with.
        queries: [n, D] vectors of test queries.
    """
    try:
        manifest = IndexManifest.read(folder)
        index = ItemIndex.read(folder)
    except (RefitError, OSError, RuntimeError) as error:
        return IndexResult(why=f"the index cannot be opened: {error}")
    known = IndexResult(
        embedding_version=manifest.embedding_version, recorded_recall=manifest.recall_at_100
    )
    if queries.shape[1] != index.vectors.shape[1]:
        sizes = f"{index.vectors.shape[1]}, the query tower gives {queries.shape[1]}"
        return known.model_copy(update={"why": f"the index holds vectors of length {sizes}"})
    asked = queries[spread(np.arange(len(queries)), SEARCHES)]
    milliseconds, found = [], []
    for query in asked:
        start = time.perf_counter()
        _, rows = index.search(query[None, :], LENGTH)
        milliseconds.append(1000 * (time.perf_counter() - start))
        found.append(rows[0])
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return IndexResult(
        embedding_version=manifest.embedding_version,
        recorded_recall=manifest.recall_at_100,
        recall=_recall(asked, np.stack(found), np.asarray(index.vectors)),
        p50_ms=float(p50),
        p99_ms=float(p99),
        vector_gap=_vector_gap(folder, index.vectors, data, model),
        n=len(asked),
    )


def _recall(queries: Floats, found: np.ndarray, vectors: Floats) -> float:
    """Share of the exact best that the index found; items that tie with the last count as found."""
    best, _ = scan(queries, vectors, LENGTH)
    wanted = np.isfinite(best).sum(axis=1)
    scores = np.einsum("qd,qkd->qk", queries, vectors[np.maximum(found, 0)])
    last = best[np.arange(len(best)), wanted - 1]
    hits = ((found >= 0) & (scores >= last[:, None] - 1e-5)).sum(axis=1)
    return float((np.minimum(hits, wanted) / wanted).mean())


def _vector_gap(
    folder: Path, vectors: Floats, data: EvaluationData, model: TowerScorer
) -> float | None:
    """Largest difference of sampled index vectors from what the item tower says now."""
    item_ids = pq.read_table(folder / ITEMS_FILE, columns=["item_id"])["item_id"].to_pylist()
    row_of = {item_id: row for row, item_id in enumerate(item_ids[: len(vectors)])}
    now = data.read_candidates(len(data.manifest.snapshots) - 1)
    rows = np.array([row_of.get(i, -1) for i in data.catalogue.item_id[now.items]])
    if len(rows) != len(vectors) or (rows < 0).any():
        return None
    sample = spread(np.arange(len(rows)), SAMPLED_VECTORS)
    answer = model.embed_items(now.take(sample))
    return float(np.abs(answer - vectors[rows[sample]]).max())
