"""Why an item was found: the parts of its score, and what of the person's history it is like."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.catalogue import count_running_visit, to_unit
from serving.pool import Pool
from serving.request import Request

NEAREST = 3


def explain(
    pool: Pool,
    request: Request,
    now: datetime,
    rows: Sequence[int],
    query: NDArray[np.float32] | None,
) -> list[dict[str, Any]]:
    """Explain each item of an answer.

    ``learned`` and ``popularity`` are the two parts of the towers' score and add up to it; both are
    None where the query tower gave no vector. ``nearest`` are those events of the history that the
    query tower saw whose items are most like this one, with the cosine of the content vectors, by
    which histories are represented. It is a likeness, not how much an event weighed.
    """
    shown = np.asarray(rows, dtype=np.int64)
    size = pool.catalogue.learned_size
    learned: list[float | None] = [None] * len(rows)
    popularity = learned
    nearest: list[list[dict[str, Any]]] = [[] for _ in rows]
    if query is not None:
        vectors = pool.vectors(shown)
        learned = (vectors[:, :size] @ query[:size]).tolist()
        popularity = (vectors[:, size:] @ query[size:]).tolist()
        nearest = _find_nearest(pool, request, now, shown)
    return [
        {"learned": one, "popularity": two, "nearest": three}
        for one, two, three in zip(learned, popularity, nearest, strict=True)
    ]


def _find_nearest(
    pool: Pool, request: Request, now: datetime, rows: NDArray[np.int64]
) -> list[list[dict[str, Any]]]:
    items, content = _read_history(pool, request, now)
    if not items:
        return [[] for _ in rows]
    likeness = to_unit(pool.content(rows)) @ to_unit(np.stack(content)).T
    order = np.argsort(-likeness, axis=1, kind="stable")[:, :NEAREST]
    return [
        [
            {"item_id": items[i], "likeness": float(values[i])}
            for i in order_of_item.tolist()
            if values[i] > 0
        ]
        for order_of_item, values in zip(order, likeness, strict=True)
    ]


def _read_history(
    pool: Pool, request: Request, now: datetime
) -> tuple[list[str], list[NDArray[np.float32]]]:
    """The items of the history that the query tower sees, each once, and their content vectors."""
    spec, catalogue = pool.catalogue.features.spec, pool.catalogue
    known = [
        (event, vector)
        for event in catalogue.past_events(request, pool.recent)
        if (vector := pool.content_of(event.item_id)) is not None
    ]
    if not spec.history_within_visit and not pool.reads_running_visit:
        times = np.array([event.event_time.timestamp() for event, _ in known], dtype=np.float64)
        known = known[count_running_visit(times, now, spec.visit_gap_minutes) :]
    vectors = {event.item_id: vector for event, vector in known[: spec.history_length]}
    return list(vectors), list(vectors.values())
