"""The index folder: vectors and attributes of the live items, histories and popular items.

Rows 0..N-1 are live items, in the order of their vectors; rows N..M-1 are items that are no longer
live but occur in a user's history. Numbers M..K-1 are all other items that a user has bought or
hidden; only their ids are stored, in case one of them is listed again.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from refit.errors import RefitError
from refit.files import read_json, write_json
from refit.settings import Settings

INDEX_FILE = "index.faiss"
VECTORS_FILE = "vectors.npy"
CONTENT_FILE = "content.npy"
ITEMS_FILE = "items.parquet"
HISTORIES_FILE = "histories.parquet"
PURCHASES_FILE = "purchases.parquet"
HIDES_FILE = "hides.parquet"
"""Items that each user has bought, or hidden: ``user_row`` in the histories, and ``item_row``."""
DELISTED_FILE = "delisted_items.parquet"
"""``item_id`` of items M..K-1, sorted."""
POPULARITY_FILE = "popularity.parquet"
SERVED_FILE = "served.arrow"
"""These tables, without the popularity, as the server maps them; see ``refit.served``."""
MANIFEST_FILE = "index.json"

SCAN_ROWS = 20_000
"""Up to this many allowed items, scanning them is as fast as the index, and exact."""
SCAN_COST = 8
"""Scanning one allowed item takes about as long as visiting so many in the index."""
COPY_COST = 4
"""Where one of so many rows is allowed, to score all costs less than to copy the allowed ones."""
GROUP_ROWS = 16
"""So many scores are compared at once to find how high the best ones are; see ``_find_floor``."""
OVERSAMPLING = 2
"""An index of fewer bits finds so many times as many items, which the vectors then rank."""

LEAST = np.float32(-np.inf)

VectorType = Literal["float32", "float16", "int8"]


class IndexManifest(Settings):
    """The contents and the quality of an index.

    Attributes:
        embedding_version: The towers whose vectors these are.
        kind: ``flat`` searches every vector; ``ivf`` those in the nearest ``n_probe`` of
            ``n_lists`` clusters.
        vectors: How the clusters store vectors; with fewer bits than ``float32``, what they find is
            ranked again by the vectors themselves.
        n_live: N, the number of live items.
        n_items: M, the number of items with attributes and content.
        recall_at_100: Share of the exact 100 nearest items that the index finds, for vectors of
            the trained query tower; None if there was no query to measure with.
        latency_ms: p50 and p99 of one query on one thread, for the index and for the exact scan.
        as_of: The time at which the items are live.
    """

    embedding_version: str
    kind: Literal["flat", "ivf"]
    metric: Literal["inner product"] = "inner product"
    vectors: VectorType = "float32"
    dimension: int
    n_live: int
    n_items: int
    n_lists: int = 0
    n_probe: int = 0
    recall_at_100: float | None
    n_queries: int
    latency_ms: dict[str, float]
    as_of: datetime
    dataset_fingerprint: str = ""

    @classmethod
    def read(cls, folder: Path) -> "IndexManifest":
        """Read the manifest of an index folder."""
        return cls.parse(read_json(folder / MANIFEST_FILE))

    def write(self, folder: Path) -> None:
        """Write the manifest into an index folder."""
        write_json(folder / MANIFEST_FILE, self.model_dump(mode="json"))


class ItemIndex:
    """Nearest live items by inner product; filters apply before the top k are taken.

    Args:
        index: A FAISS index over ``vectors``.
        vectors: [N, D] vectors of the live items; they need not have unit length.
        n_probe: Number of lists that an unfiltered search of an IVF index visits; 0 for a flat
            index.
    """

    def __init__(self, index: Any, vectors: NDArray[np.float32], n_probe: int = 0) -> None:
        self.index = index
        self.vectors = vectors
        self.n_probe = n_probe
        self._oversampling = OVERSAMPLING if hasattr(index, "sq") else 1

    @classmethod
    def read(cls, folder: Path) -> "ItemIndex":
        """Open the index of an index folder; its lists and the vectors are memory-mapped.

        Raises:
            RefitError: Index, vectors and manifest disagree.
        """
        manifest = IndexManifest.read(folder)
        index = _map_index(folder / INDEX_FILE, manifest.kind)
        vectors = np.asarray(np.load(folder / VECTORS_FILE, mmap_mode="r"))
        expected = (manifest.n_live, manifest.dimension)
        if vectors.shape != expected or (index.ntotal, index.d) != expected:
            raise RefitError(
                f"{folder / INDEX_FILE} holds {index.ntotal} x {index.d}, {VECTORS_FILE} "
                f"{vectors.shape}, but {MANIFEST_FILE} has {expected}; build the index again"
            )
        return cls(index, vectors, manifest.n_probe)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None = None,
        exclude: Sequence[Sequence[int] | NDArray[np.integer[Any]]] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the k best allowed items of each query; fewer only if fewer are allowed.

        Args:
            queries: [B, D] query vectors.
            k: Number of items.
            allowed: [N] mask of the items that may be returned; None allows all.
            exclude: For each of the B queries, rows that must not be returned.

        Returns:
            scores [B, k], best first, and rows [B, k]; padded with -inf and -1.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        excluded = [np.unique(np.asarray(rows, dtype=np.int64)) for rows in exclude or ()]
        wanted = k + max((len(rows) for rows in excluded), default=0)
        scores, rows = self._search(queries, wanted, allowed)
        for query, unwanted in enumerate(excluded):
            keep = ~np.isin(rows[query], unwanted)
            order = np.argsort(~keep, kind="stable")
            scores[query] = np.where(keep, scores[query], -np.inf)[order]
            rows[query] = np.where(keep, rows[query], -1)[order]
        return scores[:, :k], rows[:, :k]

    def find(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As ``search`` for one query: rows and scores, best first, only those found.

        Args:
            query: [D] the query vector.
            k: Number of items.
            allowed: [N] mask of the items that may be returned; None allows all.
        """
        total = len(self.vectors)
        n_allowed = total if allowed is None else int(np.count_nonzero(allowed))
        if n_allowed <= SCAN_ROWS and n_allowed > 0 and total <= COPY_COST * n_allowed:
            flags = None if n_allowed == total else allowed
            return _best_of_all(query, self.vectors, min(k, n_allowed), flags)
        scores, rows = self.search(query[None], k, allowed)
        found = rows[0] >= 0
        return rows[0][found], scores[0][found]

    def _search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        total = len(self.vectors)
        n_allowed = total if allowed is None else int(np.count_nonzero(allowed))
        if n_allowed == 0:
            return _nothing(len(queries), k)
        # The nearest allowed items lie further away, but not as far as there are fewer of them.
        n_probe = int(np.ceil(self.n_probe * np.sqrt(total / n_allowed)))
        share = min(n_probe / self.index.nlist, 1.0) if self.n_probe else 1.0
        if n_allowed <= max(SCAN_ROWS, share * total / SCAN_COST):
            return scan(queries, self.vectors, k, None if n_allowed == total else allowed)
        # The bitmap must outlive the selector, which only holds a pointer to it.
        bitmap = None if allowed is None else np.packbits(allowed, bitorder="little")
        selector = None if bitmap is None else faiss.IDSelectorBitmap(bitmap)
        wanted = k * self._oversampling
        scores, rows = self._search_index(queries, wanted, selector, n_probe)
        short = np.flatnonzero(rows[:, min(k, n_allowed) - 1] < 0)
        if len(short) and self.n_probe:
            scores[short], rows[short] = self._search_index(
                queries[short], wanted, selector, self.index.nlist
            )
        return (scores, rows) if wanted == k else self._rank(queries, rows, k)

    def _rank(
        self, queries: NDArray[np.float32], rows: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best of the rows found for each query, by the vectors themselves."""
        scores = np.einsum("qd,qkd->qk", queries, self.vectors[np.maximum(rows, 0)])
        scores[rows < 0] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)

    def _search_index(
        self, queries: NDArray[np.float32], k: int, selector: Any, n_probe: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self.n_probe:
            n_probe = min(n_probe, self.index.nlist)
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=n_probe)
        else:
            parameters = faiss.SearchParameters(sel=selector)
        scores, rows = self.index.search(queries, k, params=parameters)
        return np.where(rows < 0, -np.inf, scores), rows


def _map_index(path: Path, kind: str) -> Any:
    """Open a FAISS index without reading its vectors."""
    if kind == "flat":
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    # Threads that touch the lists ahead of every search cost more than they save.
    faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
    return index


def scan(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the exact k best allowed rows of ``vectors`` for each query, by brute force.

    Args:
        queries: [B, D].
        vectors: [N, D].
        k: Number of rows.
        allowed: [N] mask; None allows all.

    Returns:
        scores [B, k], best first, and rows [B, k]; padded with -inf and -1.
    """
    rows = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    found = min(k, len(rows))
    if len(queries) == 1 and found and COPY_COST * len(rows) >= len(vectors):
        flags = None if allowed is None else allowed.reshape(-1)
        return _scan_whole(queries[0], np.asarray(vectors), found, k, flags)
    scores, nearest = _nothing(len(queries), k)
    if found:
        candidates = np.ascontiguousarray(vectors if allowed is None else vectors[rows])
        best, order = faiss.knn(queries, candidates, found, metric=faiss.METRIC_INNER_PRODUCT)
        scores[:, :found] = best
        nearest[:, :found] = rows[order]
    return scores, nearest


def _scan_whole(
    query: NDArray[np.float32],
    vectors: NDArray[np.float32],
    found: int,
    k: int,
    allowed: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """As ``scan`` where many rows are allowed: to copy these costs more than to score all."""
    best, best_scores = _best_of_all(query, vectors, found, allowed)
    scores, nearest = _nothing(1, k)
    scores[0, :found], nearest[0, :found] = best_scores, best
    return scores, nearest


def _best_of_all(
    query: NDArray[np.float32],
    vectors: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and scores of the k best of at least k allowed rows, best first."""
    every = vectors @ query
    if allowed is not None:
        every = np.where(allowed, every, LEAST)
    (near,) = (every >= _find_floor(every, k)).nonzero()
    scores = every[near]
    order = (-scores).argsort(kind="stable")[:k]  # of equal scores the first row comes first
    return near[order], scores[order]


def _find_floor(scores: NDArray[np.float32], k: int) -> np.float32:
    """A score that at least k of the scores reach, and few others do.

    The scores are dealt out to groups. The k-th highest of the groups' best ones is reached by the
    best of k groups. To find the k-th highest of all scores takes several times as long.
    """
    n_groups = len(scores) // GROUP_ROWS
    if n_groups > k:
        best = scores[: GROUP_ROWS * n_groups].reshape(GROUP_ROWS, n_groups).max(axis=0)
        best.partition(n_groups - k)
        floor: np.float32 = best[n_groups - k]
        if floor > LEAST:
            return floor
    of_all: np.float32 = np.partition(scores, len(scores) - k)[len(scores) - k]
    return of_all


def _nothing(n_queries: int, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return (
        np.full((n_queries, k), -np.inf, dtype=np.float32),
        np.full((n_queries, k), -1, dtype=np.int64),
    )
