"""The items nearest to the person: the largest dot products of query and item embedding."""

from serving.pool import NOTHING, Found
from serving.retrieval import Search


def retrieve(search: Search) -> Found:
    """Search the index, and the newer listings exactly; nothing without a query vector."""
    return NOTHING if search.query is None else search.pool.search(search.query, search.k)
