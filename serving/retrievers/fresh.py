"""Fresh listings: listed within ``fresh_days``, the nearest to the person first.

Without a query vector, the newest first. Items whose listing time the bundle does not hold are not
fresh; listings that are newer than the bundle are.
"""

from serving.pool import NOTHING, Found
from serving.retrieval import Search


def retrieve(search: Search) -> Found:
    """Find fresh listings."""
    fresh = search.pool.listed_within(search.settings.fresh_days, search.now)
    if not fresh.any():
        return NOTHING
    if search.query is None:
        return search.pool.newest(search.k, fresh)
    return search.pool.search(search.query, search.k, fresh)
