"""Choose the index by size, and measure it against exact search on vectors of real queries."""

import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from components.indexing.settings import IndexSettings
from refit.index import SCAN_ROWS, ItemIndex, VectorType, scan
from refit.progress import log_message

K = 100
TIMED_QUERIES = 200
TRAINING_POINTS_PER_LIST = 64
INITIAL_N_PROBE = 8


def choose_index(
    settings: IndexSettings, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> tuple[Any, dict[str, Any]]:
    """Build the index that suits the number of vectors.

    Up to SCAN_ROWS vectors every search is a scan, so the index is flat. An IVF index visits as
    many lists as the target recall needs, without a filter and with one. If half of the lists are
    not enough, or there is no query to measure with, the index is flat.

    Args:
        settings: Kind and target recall.
        vectors: [N, D] live items.
        queries: [B, D] query vectors.

    Returns:
        The FAISS index, and the measured fields of IndexManifest.
    """
    smallest = SCAN_ROWS if settings.kind == "ivf" else settings.flat_up_to
    wants_ivf = settings.kind != "flat" and len(vectors) > max(smallest, SCAN_ROWS)
    tuned = _tune_ivf(settings, vectors, queries) if wants_ivf and len(queries) else None
    if wants_ivf and tuned is None:
        log_message(
            f"no IVF index reaches recall@{K} {settings.target_recall_at_100}; the index is flat"
        )
    searcher = tuned or ItemIndex(_flat(vectors), vectors)
    lists = searcher.index.nlist if searcher.n_probe else 0
    return searcher.index, {
        "kind": "ivf" if searcher.n_probe else "flat",
        "vectors": settings.vectors if searcher.n_probe else "float32",
        "n_lists": lists,
        "n_probe": searcher.n_probe,
        "recall_at_100": measure_recall(searcher, queries) if len(queries) else None,
        "n_queries": len(queries),
        "latency_ms": _latency_ms(searcher, queries) if len(queries) else {},
    }


def measure_recall(
    searcher: ItemIndex,
    queries: NDArray[np.float32],
    k: int = K,
    allowed: NDArray[np.bool_] | None = None,
) -> float:
    """Share of the exact k best that the index finds; an equal score counts as found."""
    exact, _ = scan(queries, searcher.vectors, k, allowed)
    found, _ = searcher.search(queries, k, allowed)
    n = min(k, len(searcher.vectors) if allowed is None else int(allowed.sum()))
    good = found[:, :n] >= exact[:, n - 1 : n] - 1e-5
    return float(good.mean())


def _flat(vectors: NDArray[np.float32]) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def _tune_ivf(
    settings: IndexSettings, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> ItemIndex | None:
    n, dimension = vectors.shape
    n_lists = max(1, min(round(4 * n**0.5), n // TRAINING_POINTS_PER_LIST))
    index = _empty_ivf(settings.vectors, dimension, n_lists)
    index.cp.seed = settings.seed
    index.cp.max_points_per_centroid = TRAINING_POINTS_PER_LIST
    index.train(vectors)
    index.add(vectors)
    filters = (None, _draw_quarter(settings, vectors))
    n_probe = INITIAL_N_PROBE
    while n_probe <= n_lists // 2:
        searcher = ItemIndex(index, vectors, n_probe)
        recalls = (measure_recall(searcher, queries, allowed=allowed) for allowed in filters)
        if all(recall >= settings.target_recall_at_100 for recall in recalls):
            return searcher
        n_probe *= 2
    return None


def _draw_quarter(settings: IndexSettings, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[N] a quarter of the items that lie together: a filter that is hard for clusters."""
    rng = np.random.default_rng(settings.seed)
    along = vectors @ rng.standard_normal(vectors.shape[1], dtype=np.float32)
    return along >= np.quantile(along, 0.75)


def _empty_ivf(vectors: VectorType, dimension: int, n_lists: int) -> Any:
    lists = faiss.IndexFlatIP(dimension), dimension, n_lists
    if vectors == "float32":
        return faiss.IndexIVFFlat(*lists, faiss.METRIC_INNER_PRODUCT)
    kind = faiss.ScalarQuantizer.QT_8bit if vectors == "int8" else faiss.ScalarQuantizer.QT_fp16
    # Whole vectors, not what is left after the centre of the list: then scores need no correction.
    return faiss.IndexIVFScalarQuantizer(*lists, kind, faiss.METRIC_INNER_PRODUCT, False)


def _latency_ms(searcher: ItemIndex, queries: NDArray[np.float32]) -> dict[str, float]:
    """Percentiles of one query at a time on one thread, as a serving worker searches."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        sample = queries[:TIMED_QUERIES]
        own = _times(lambda query: searcher.search(query, K), sample)
        exact = _times(lambda query: scan(query, searcher.vectors, K), sample)
    finally:
        faiss.omp_set_num_threads(threads)
    return {"p50": own[0], "p99": own[1], "exact_p50": exact[0], "exact_p99": exact[1]}


def _times(
    search: Callable[[NDArray[np.float32]], object], queries: NDArray[np.float32]
) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds, without the first search."""
    search(queries[:1])
    durations = []
    for i in range(len(queries)):
        start = time.perf_counter()
        search(queries[i : i + 1])
        durations.append((time.perf_counter() - start) * 1e3)
    p50, p99 = np.percentile(durations, (50, 99))
    return round(float(p50), 4), round(float(p99), 4)
