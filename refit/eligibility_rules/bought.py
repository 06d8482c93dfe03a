"""An item that the user has bought, however long ago; only where stock is one of a kind."""

from refit.columns import Cells
from refit.eligibility import ItemView, QueryView, locate

ITEM_COLUMNS: tuple[str, ...] = ()
QUERY_COLUMNS: tuple[str, ...] = ()


def find_ineligible(items: ItemView, queries: QueryView) -> Cells | None:
    """Cells of the items that each user has bought."""
    return locate(items, queries.bought)
