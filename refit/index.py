"""The index folder: live items by vector, their attributes, histories and popular items.

Rows 0..N-1 are live items, in the order of their vectors; rows N..M-1 are items that are not live
any more but are part of a user's history. Numbers M..K-1 are items that a user has bought or hidden
and that are neither: of these only the ids are kept, in case that one is listed again.
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
"""What each user has bought, or hidden: ``user_row``, a row of the histories, and ``item_row``."""
DELISTED_FILE = "delisted_items.parquet"
"""``item_id`` of the items M..K-1, sorted."""
POPULARITY_FILE = "popularity.parquet"
MANIFEST_FILE = "index.json"

SCAN_ROWS = 20_000
"""Up to this many allowed items a scan of just these is as quick as the index, and exact."""


class IndexManifest(Settings):
    """What an index holds and how well it answers.

    Attributes:
        embedding_version: The towers whose vectors these are.
        kind: ``flat`` compares with every vector; ``ivf`` with those of the nearest ``n_probe``
            of ``n_lists`` clusters.
        n_live: N, items that can be recommended.
        n_items: M, items with attributes and content.
        recall_at_100: Share of the exact 100 nearest that the index finds, on trained query
            vectors; None when there was no query to measure with.
        latency_ms: p50 and p99 of one query on one thread, and the same of the exact scan.
        as_of: The time that the items are live at.
    """

    embedding_version: str
    kind: Literal["flat", "ivf"]
    metric: Literal["inner product"] = "inner product"
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
    """Nearest live items by inner product, filtered before the cut.

    Args:
        index: A FAISS index over ``vectors``.
        vectors: [N, D] unit or other vectors of the live items.
        n_probe: For an IVF index, how many lists an unfiltered search visits.
    """

    def __init__(self, index: Any, vectors: NDArray[np.float32], n_probe: int = 0) -> None:
        self.index = index
        self.vectors = vectors
        self.n_probe = n_probe

    @classmethod
    def read(cls, folder: Path) -> "ItemIndex":
        """Open the index of an index folder; the vectors are memory-mapped.

        Raises:
            RefitError: Index, vectors and manifest do not go together.
        """
        manifest = IndexManifest.read(folder)
        index = faiss.read_index(str(folder / INDEX_FILE))
        vectors = np.load(folder / VECTORS_FILE, mmap_mode="r")
        expected = (manifest.n_live, manifest.dimension)
        if vectors.shape != expected or (index.ntotal, index.d) != expected:
            raise RefitError(
                f"{folder / INDEX_FILE} holds {index.ntotal} x {index.d}, {VECTORS_FILE} "
                f"{vectors.shape}, but {MANIFEST_FILE} says {expected}; build the index anew"
            )
        return cls(index, vectors, manifest.n_probe)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None = None,
        exclude: Sequence[Sequence[int] | NDArray[np.integer[Any]]] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the k best allowed items of each query; k come back whenever k exist.

        Args:
            queries: [B, D] query vectors.
            k: How many items.
            allowed: [N] mask of the items that may come back; None allows all.
            exclude: For each of the B queries, rows that must not come back.

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

    def _search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        total = len(self.vectors)
        n_allowed = total if allowed is None else int(np.count_nonzero(allowed))
        if n_allowed == 0:
            return _nothing(len(queries), k)
        if n_allowed <= SCAN_ROWS:
            return scan(queries, self.vectors, k, None if n_allowed == total else allowed)
        # The bitmap must outlive the selector, which only points at it.
        bitmap = None if allowed is None else np.packbits(allowed, bitorder="little")
        selector = None if bitmap is None else faiss.IDSelectorBitmap(bitmap)
        # A filter hits every list alike at best: visit as many more as it takes away.
        n_probe = int(np.ceil(self.n_probe * total / n_allowed))
        scores, rows = self._ask(queries, k, selector, n_probe)
        short = np.flatnonzero(rows[:, min(k, n_allowed) - 1] < 0)
        if len(short) and self.n_probe:
            scores[short], rows[short] = self._ask(queries[short], k, selector, self.index.nlist)
        return scores, rows

    def _ask(
        self, queries: NDArray[np.float32], k: int, selector: Any, n_probe: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self.n_probe:
            n_probe = min(n_probe, self.index.nlist)
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=n_probe)
        else:
            parameters = faiss.SearchParameters(sel=selector)
        scores, rows = self.index.search(queries, k, params=parameters)
        return np.where(rows < 0, -np.inf, scores), rows


def scan(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the exact k best allowed rows of ``vectors`` for each query: the index's exact twin.

    Args:
        queries: [B, D].
        vectors: [N, D].
        k: How many rows.
        allowed: [N] mask; None allows all.

    Returns:
        scores [B, k], best first, and rows [B, k]; padded with -inf and -1.
    """
    rows = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    found = min(k, len(rows))
    scores, nearest = _nothing(len(queries), k)
    if found:
        candidates = np.ascontiguousarray(vectors if allowed is None else vectors[rows])
        best, order = faiss.knn(queries, candidates, found, metric=faiss.METRIC_INNER_PRODUCT)
        scores[:, :found] = best
        nearest[:, :found] = rows[order]
    return scores, nearest


def _nothing(n_queries: int, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return (
        np.full((n_queries, k), -np.inf, dtype=np.float32),
        np.full((n_queries, k), -1, dtype=np.int64),
    )
