"""An item that the user sells."""

from refit.columns import Cells
from refit.eligibility import ItemView, QueryView

ITEM_COLUMNS: tuple[str, ...] = ()
QUERY_COLUMNS: tuple[str, ...] = ()


def find_ineligible(items: ItemView, queries: QueryView) -> Cells | None:
    """Cells of each user's own listings."""
    return None if items.sellers is None else items.sellers.find(queries.user_ids)
