"""Retrieval metrics, from the rank of the positive: the one item that the user chose.

With one positive per query, hit rate and recall are the same number.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from components.evaluation.data import Ints

Longs = NDArray[np.int64]
Values = NDArray[np.float64]


def hit_rate(rank: Ints, k: int) -> Values:
    """[n] 1 where the positive is among the first k, else 0."""
    return (rank <= k).astype(np.float64)


def ndcg(rank: Ints, k: int) -> Values:
    """[n] 1 / log2(rank + 1) within the first k, else 0 (Järvelin & Kekäläinen 2002).

    With one relevant item the ideal gain is 1.
    """
    return np.where(rank <= k, 1.0 / np.log2(rank + 1.0), 0.0)


def mrr(rank: Ints, k: int) -> Values:
    """[n] 1 / rank within the first k, else 0."""
    return np.where(rank <= k, 1.0 / rank, 0.0)


METRICS = {"hit_rate": hit_rate, "ndcg": ndcg, "mrr": mrr}


def per_query(rank: Ints, cuts: Iterable[int]) -> dict[str, Values]:
    """Every metric at every cut: ``hit_rate_at_10`` and so on, each [n]."""
    return {f"{name}_at_{k}": metric(rank, k) for name, metric in METRICS.items() for k in cuts}


def exposure(top: Ints, owner: Ints, n_owners: int) -> Values:
    """[n_owners] how often each owner's items are shown.

    Args:
        top: [n, k] items shown, -1 for none.
        owner: [N] the owner of each item, -1 for none; the items themselves for item exposure.
        n_owners: Number of owners.
    """
    shown = owner[top[top >= 0]]
    return np.bincount(shown[shown >= 0], minlength=n_owners).astype(np.float64)


def coverage(exposures: Values) -> float:
    """Share of candidates that are shown at least once; NaN without candidates."""
    return float(np.count_nonzero(exposures) / len(exposures)) if len(exposures) else float("nan")


def gini(exposures: Values) -> float:
    """Gini coefficient: 0 if all are shown equally often, near 1 if one is shown alone.

    NaN without candidates, or if nothing was shown.
    """
    total = exposures.sum()
    n = len(exposures)
    if not n or total == 0:
        return float("nan")
    ordered = np.sort(exposures)
    return float(2 * (np.arange(1, n + 1) @ ordered) / (n * total) - (n + 1) / n)
