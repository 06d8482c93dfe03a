"""More of the sellers whom the person follows: whose items they have bought, liked or carted.

As far as the bundle, the activity feed and the request's own history tell. The nearest to the
person come first.
"""

from refit.contract import EventType
from refit.predicates import SELLER, OneOf
from serving.pool import NOTHING, Found
from serving.retrieval import Search

FOLLOWS = (EventType.PURCHASE, EventType.OFFER, EventType.CART, EventType.LIKE)


def retrieve(search: Search) -> Found:
    """Find items of followed sellers; nothing without a query vector."""
    sellers = find_followed(search)
    if search.query is None or not sellers:
        return NOTHING
    return search.pool.recommend(search.query, search.k, OneOf(SELLER, tuple(sorted(sellers))))


def find_followed(search: Search) -> set[str]:
    """Ids of the sellers of what the person bought, liked, carted or made an offer for."""
    catalogue = search.catalogue
    events = catalogue.past_events(search.request, search.pool.recent)
    items = [event.item_id for event in events if event.event_type in FOLLOWS]
    items += [*catalogue.bought_by(search.request.user_id), *search.pool.recent.bought]
    return {seller for item in items if (seller := search.pool.seller_of(item)) is not None}
