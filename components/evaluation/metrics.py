"""Retrieval metrics, from the ranks of the positives: the items that the user chose.

A query has one positive, or several: then ``starts`` says where those of each query begin among the
ranks [E] of all of them. With one positive per query, hit rate and recall are the same number.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from components.evaluation.data import Ints

Longs = NDArray[np.int64]
Values = NDArray[np.float64]


def hit_rate(rank: Ints, k: int, starts: Longs | None = None) -> Values:
    """[n] 1 where a positive is among the first k, else 0."""
    return _largest((rank <= k).astype(np.float64), starts)


def recall(rank: Ints, k: int, starts: Longs | None = None) -> Values:
    """[n] share of the positives that are among the first k."""
    hits = (rank <= k).astype(np.float64)
    return hits if starts is None else np.add.reduceat(hits, starts[:-1]) / np.diff(starts)


def ndcg(rank: Ints, k: int, starts: Longs | None = None) -> Values:
    """[n] sum of 1 / log2(rank + 1) over the positives within the first k, as a share.

    Of the sum of the best possible list, with min(k, positives) of them on the first ranks; with
    one positive that is 1 (Järvelin & Kekäläinen 2002).
    """
    gain = np.where(rank <= k, 1.0 / np.log2(rank + 1.0), 0.0)
    if starts is None:
        return gain
    ideal = np.cumsum(1.0 / np.log2(np.arange(1, k + 1) + 1.0))
    return np.add.reduceat(gain, starts[:-1]) / ideal[np.minimum(np.diff(starts), k) - 1]


def mrr(rank: Ints, k: int, starts: Longs | None = None) -> Values:
    """[n] 1 / rank of the first positive within the first k, else 0."""
    return _largest(np.where(rank <= k, 1.0 / rank, 0.0), starts)


METRICS = {"hit_rate": hit_rate, "recall": recall, "ndcg": ndcg, "mrr": mrr}


def per_query(rank: Ints, cuts: Iterable[int], starts: Longs | None = None) -> dict[str, Values]:
    """Every metric at every cut: ``hit_rate_at_10`` and so on, each [n].

    Args:
        rank: [E] ranks of the positives.
        cuts: Lengths of lists.
        starts: [n + 1] first positive of each query, then E; None: each has one, and recall, which
            is the hit rate then, is left out.
    """
    names = [name for name in METRICS if name != "recall" or starts is not None]
    return {f"{name}_at_{k}": METRICS[name](rank, k, starts) for name in names for k in cuts}


def _largest(values: Values, starts: Longs | None) -> Values:
    """[n] the largest of each query's values [E]."""
    return values if starts is None else np.maximum.reduceat(values, starts[:-1])


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
