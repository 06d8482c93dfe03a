"""The items with the highest scores by the towers.

A score is the dot product of query and item embedding, and what the history adds for its own items.
"""

from serving.pool import NOTHING, Found
from serving.retrieval import Search


def retrieve(search: Search) -> Found:
    """Search the index, and the newer listings exactly; nothing without a query vector."""
    return NOTHING if search.query is None else search.pool.recommend(search.query, search.k)
