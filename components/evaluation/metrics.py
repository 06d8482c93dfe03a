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


def head_share(exposures: Values, share: float = 0.01) -> float:
    """Share of all places that go to the most-shown candidates, 1% of them by default.

    NaN without candidates, or if nothing was shown.
    """
    total, n = exposures.sum(), len(exposures)
    if not n or total == 0:
        return float("nan")
    return float(np.sort(exposures)[-max(1, round(share * n)) :].sum() / total)


def repetition(top: Ints, user: Ints, time: Longs) -> float:
    """Share of places that show an item again to the same user, in their later lists.

    Args:
        top: [n, k] items shown, -1 for none.
        user: [n] who was shown them.
        time: [n] when.

    Returns:
        NaN if nobody was shown a second list.
    """
    order = np.lexsort((time, user))
    seen: set[int] = set()
    repeated = places = 0
    previous = None
    for row in order.tolist():
        shown = top[row][top[row] >= 0].tolist()
        if user[row] != previous:
            seen, previous = set(), user[row]
        else:
            places += len(shown)
            repeated += sum(item in seen for item in shown)
        seen.update(shown)
    return repeated / places if places else float("nan")
