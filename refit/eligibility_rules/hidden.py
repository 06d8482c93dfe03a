"""An item that the user has hidden, however long ago."""

from refit.columns import Cells
from refit.eligibility import Items, Queries, locate

ITEM_COLUMNS: tuple[str, ...] = ()
QUERY_COLUMNS: tuple[str, ...] = ()


def find_ineligible(items: Items, queries: Queries) -> Cells | None:
    """Cells of the items that each user has hidden."""
    return locate(items, queries.hidden)
