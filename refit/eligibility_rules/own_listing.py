"""An item that the user sells."""

from refit.columns import Cells
from refit.eligibility import ItemView, QueryView
from refit.predicates import SELLER, Not, OneOf, Predicate

ITEM_COLUMNS: tuple[str, ...] = ()
QUERY_COLUMNS: tuple[str, ...] = ()


def find_ineligible(items: ItemView, queries: QueryView) -> Cells | None:
    """Cells of each user's own listings."""
    return None if items.sellers is None else items.sellers.find(queries.user_ids)


def to_predicate(queries: QueryView) -> Predicate | None:
    """Not sold by the person who asks."""
    (user,) = queries.user_ids
    return None if user is None else Not(OneOf(SELLER, (user,)))
