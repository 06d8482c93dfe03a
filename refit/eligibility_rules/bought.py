"""An item that the user has bought, however long ago; only where stock is one of a kind."""

from refit.columns import Cells
from refit.eligibility import Items, Queries, locate

ITEM_COLUMNS: tuple[str, ...] = ()
QUERY_COLUMNS: tuple[str, ...] = ()


def find_ineligible(items: Items, queries: Queries) -> Cells | None:
    """Cells of the items that each user has bought."""
    return locate(items, queries.bought)
