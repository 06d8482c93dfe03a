"""EASE over many items: each item is explained by a few others, chosen beforehand.

In EASE (Steck 2019) column j of B is the ridge regression of item j's users on all other items,

    B[S, j] = (G[S, S] + penalty I)^-1 G[S, j],    G = X'X,    S = all items but j,

so that the columns do not depend on each other. With S restricted to the items that explain j best
one by one, as in fsSLIM (Ning & Karypis 2011), a column costs |S|^3 instead of the whole an inverse
of N x N; with every other item in S the result is EASE itself.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from components.evaluation.data import Floats, Longs
from components.evaluation.item_similarity import Similarity, items_with_events

BLOCK_CELLS = 1_000_000
"""Entries of G that are looked up at once."""


def fit_sparse_ease(
    users: Any, penalties: Sequence[float], neighbours: int, most_items: int
) -> list[Similarity]:
    """EASE with at most ``neighbours`` non-zero entries in each column.

    Args:
        users: [U, N] sparse 0/1.
        penalties: L2 penalties, in units of co-occurrence counts; one result for each.
        neighbours: Size of S; the items i with the largest G[i, j]^2 / (G[i, i] + penalty).
        most_items: With more items than this, those with the most users have columns.
    """
    known = _most_used(users, most_items)
    chosen = users.tocsc()[:, known]
    gram = (chosen.T @ chosen).tocsr().astype(np.float32)
    gram.sort_indices()
    n = len(known)
    degree = gram.diagonal()
    keys = np.repeat(np.arange(n, dtype=np.int64), np.diff(gram.indptr)) * n + gram.indices
    members = _choose(gram, degree, float(np.median(penalties)), neighbours)
    values: list[list[Floats]] = [[] for _ in penalties]
    for block in _blocks(members):
        square, target = _look_up(keys, gram.data, n, members[block], block)
        for number, penalty in enumerate(penalties):
            values[number].append(_solve(square, target, members[block], penalty))
    present = members.ravel() >= 0
    column = np.repeat(np.arange(n), members.shape[1])[present]
    row = members.ravel()[present]
    return [
        Similarity(
            known, sp.csc_matrix((np.concatenate(v).ravel()[present], (row, column)), (n, n))
        )
        for v in values
    ]


def _most_used(users: Any, most: int) -> Longs:
    known = items_with_events(users)
    if len(known) <= most:
        return known
    count = np.asarray(users.sum(axis=0)).ravel()[known]
    return np.sort(known[np.argsort(-count, kind="stable")[:most]])


def _choose(gram: Any, degree: Floats, penalty: float, neighbours: int) -> Longs:
    """[n, m] the items that explain each item best, -1 where there are fewer."""
    n = gram.shape[0]
    target = np.repeat(np.arange(n), np.diff(gram.indptr))
    other = gram.indices
    score = gram.data**2 / (degree[other] + np.float32(penalty))
    apart = other != target
    target, other, score = target[apart], other[apart], score[apart]
    order = np.lexsort((-score, target))
    target, other = target[order], other[order]
    place = np.arange(len(target)) - np.searchsorted(target, target)
    kept = place < neighbours
    width = int(place[kept].max()) + 1 if kept.any() else 1
    members = np.full((n, width), -1, dtype=np.int64)
    members[target[kept], place[kept]] = other[kept]
    return members


def _blocks(members: Longs) -> Iterator[slice]:
    size = max(1, BLOCK_CELLS // members.shape[1] ** 2)
    for start in range(0, len(members), size):
        yield slice(start, min(start + size, len(members)))


def _look_up(
    keys: Longs, data: Floats, n: int, members: Longs, block: slice
) -> tuple[Floats, Floats]:
    """G[S, S] as [b, m, m] and G[S, j] as [b, m]; rows and columns of missing members are 0."""
    item = np.arange(block.start, block.stop, dtype=np.int64)

    def entries(row: NDArray[Any], column: NDArray[Any]) -> Floats:
        wanted = row * n + column
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = (keys[place] == wanted) & (row >= 0) & (column >= 0)
        return np.where(found, data[place], np.float32(0.0)).astype(np.float32)

    left, right = np.triu_indices(members.shape[1])  # G is symmetric
    square = np.zeros((len(members), members.shape[1], members.shape[1]), dtype=np.float32)
    square[:, left, right] = square[:, right, left] = entries(members[:, left], members[:, right])
    return square, entries(members, item[:, None])


def _solve(square: Floats, target: Floats, members: Longs, penalty: float) -> Floats:
    """[b, m] solutions; those of missing members are 0."""
    regular = square.copy()
    width = np.arange(members.shape[1])
    regular[:, width, width] += np.where(members >= 0, np.float32(penalty), np.float32(1.0))
    solved: Floats = np.linalg.solve(regular, target[:, :, None])[:, :, 0].astype(np.float32)
    return solved
