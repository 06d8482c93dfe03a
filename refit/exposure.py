"""How widely lists are spread over the stock: concentration and repetition.

Of evaluated lists and of logged answers alike, so that the two can be compared.
"""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

HEAD = 0.01


def head_share(counts: NDArray[np.float64], n: int, share: float = HEAD) -> float:
    """Share of all places that the most-shown items take, 1% of the stock by default.

    Args:
        counts: How often each item is shown; those that are not shown may be left out.
        n: Size of the stock.
        share: The part of the stock that counts as most-shown.

    Returns:
        NaN without stock, or if nothing was shown.
    """
    total = counts.sum()
    if not n or total == 0:
        return float("nan")
    return float(np.sort(counts)[-max(1, round(share * n)) :].sum() / total)


def repetition(lists: Iterable[tuple[Hashable, Sequence[Hashable]]]) -> float:
    """Share of places that show an item again to the same person, in their later lists.

    Args:
        lists: Who was shown which items, in order of time.

    Returns:
        NaN if nobody was shown a second list.
    """
    seen: dict[Hashable, set[Hashable]] = {}
    repeated = places = 0
    for person, items in lists:
        before = seen.get(person)
        if before is None:
            seen[person] = set(items)
            continue
        places += len(items)
        repeated += sum(item in before for item in items)
        before.update(items)
    return repeated / places if places else float("nan")
