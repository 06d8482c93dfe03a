"""Why an item was found: the parts of its score, and what of the person's history it is like."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.catalogue import to_unit
from serving.pool import Pool
from serving.query import Query
from serving.request import Request

NEAREST = 3


def explain(
    pool: Pool,
    request: Request,
    now: datetime,
    rows: Sequence[int],
    query: Query | None,
) -> list[dict[str, Any]]:
    """Explain each item of an answer.

    ``learned``, ``popularity`` and ``repeats`` are the parts of the towers' score and add up to it;
    ``repeats`` is what the person's history adds for its own items. All are None where the query
    tower gave no answer. ``nearest`` are those events of the history that the
    query tower saw whose items are most like this one, with the cosine of the content vectors, by
    which histories are represented. It is a likeness, not how much an event weighed.
    """
    shown = np.asarray(rows, dtype=np.int64)
    size = pool.catalogue.learned_size
    learned: list[float | None] = [None] * len(rows)
    popularity = repeats = learned
    nearest: list[list[dict[str, Any]]] = [[] for _ in rows]
    if query is not None:
        vectors = pool.vectors(shown)
        learned = (vectors[:, :size] @ query.vector[:size]).tolist()
        popularity = (vectors[:, size:] @ query.vector[size:]).tolist()
        repeats = pool.repeats(query, shown).tolist()
        nearest = _find_nearest(pool, request, now, shown)
    return [
        {"learned": one, "popularity": two, "repeats": three, "nearest": four}
        for one, two, three, four in zip(learned, popularity, repeats, nearest, strict=True)
    ]


def _find_nearest(
    pool: Pool, request: Request, now: datetime, rows: NDArray[np.int64]
) -> list[list[dict[str, Any]]]:
    history = pool.catalogue.read_history(
        request, now, pool.fresh.content, pool.recent, pool.reads_running_visit
    )
    vectors = dict(zip(history.item_ids, history.content, strict=True))
    if not vectors:
        return [[] for _ in rows]
    items = list(vectors)
    likeness = to_unit(pool.content(rows)) @ to_unit(np.stack(list(vectors.values()))).T
    order = np.argsort(-likeness, axis=1, kind="stable")[:, :NEAREST]
    return [
        [
            {"item_id": items[i], "likeness": float(values[i])}
            for i in order_of_item.tolist()
            if values[i] > 0
        ]
        for order_of_item, values in zip(order, likeness, strict=True)
    ]
