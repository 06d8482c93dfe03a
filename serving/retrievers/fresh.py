"""Fresh listings: listed within ``fresh_days``, the nearest to the person first.

Items whose listing time the bundle does not hold are not fresh.
"""

from serving.pool import NOTHING, Found
from serving.retrieval import Search, listed_within


def retrieve(search: Search) -> Found:
    """Find fresh listings; nothing without a query vector."""
    if search.query is None:
        return NOTHING
    fresh = listed_within(search.settings.fresh_days, search.now)
    return search.pool.recommend(search.query, search.k, fresh)
