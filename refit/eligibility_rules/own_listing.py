"""An item that the user sells."""

from refit.columns import Cells
from refit.eligibility import Items, Queries

ITEM_COLUMNS: tuple[str, ...] = ()
QUERY_COLUMNS: tuple[str, ...] = ()


def find_ineligible(items: Items, queries: Queries) -> Cells | None:
    """Cells of each user's own listings."""
    return None if items.sellers is None else items.sellers.find(queries.user_ids)
