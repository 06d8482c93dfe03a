"""An item that the user has hidden, however long ago."""

from refit.columns import Cells
from refit.eligibility import ItemView, QueryView, locate

ITEM_COLUMNS: tuple[str, ...] = ()
QUERY_COLUMNS: tuple[str, ...] = ()


def find_ineligible(items: ItemView, queries: QueryView) -> Cells | None:
    """Cells of the items that each user has hidden."""
    return locate(items, queries.hidden)
