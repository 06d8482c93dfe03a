"""Items similar to an item: those that the same people choose, by the learned part of embeddings.

For a request about items these are the items; otherwise the latest of the person's own. An item
of which only the content vector is known is compared by that.
"""

import numpy as np

from serving.catalogue import to_unit
from serving.pool import NOTHING, Found, Pool
from serving.retrieval import Search


def retrieve(search: Search) -> Found:
    """Find the items that are most similar to any of the given ones, without these."""
    events = search.catalogue.past_events(search.request, search.pool.recent)
    own = [event.item_id for event in events]
    items = search.about or tuple(dict.fromkeys(own))[: search.settings.similar_to]
    best: dict[int, float] = {}
    for item in items:
        found = find_similar(search.pool, item, search.k + len(items))
        for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
            best[row] = max(score, best.get(row, -np.inf))
    kept = [
        row
        for row in sorted(best, key=lambda row: (-best[row], row))
        if search.pool.item_id(row) not in items
    ][: search.k]
    scores = np.array([best[row] for row in kept], dtype=np.float32)
    return Found(np.array(kept, dtype=np.int64), scores)


def knows(pool: Pool, item_id: str) -> bool:
    """Whether there is a vector of an item to compare with."""
    return pool.row_of(item_id) is not None or pool.content_of(item_id) is not None


def find_similar(pool: Pool, item_id: str, k: int) -> Found:
    """The k eligible items with the largest cosine to one item; nothing if it is unknown."""
    catalogue = pool.catalogue
    size = catalogue.learned_size
    row = pool.row_of(item_id)
    if row is not None:
        learned = np.zeros(catalogue.size, dtype=np.float32)
        learned[:size] = to_unit(pool.vectors(np.array([row]))[0, :size])
        return pool.search(learned, k)
    known = pool.content_of(item_id)
    if known is None:
        return NOTHING
    content = to_unit(known)
    newer = to_unit(pool.fresh.content_vectors) @ content
    return pool.best(catalogue.likeness(content), newer, k)
