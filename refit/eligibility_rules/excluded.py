"""An item that the request excludes, such as one that the page already shows."""

from refit.columns import Cells
from refit.eligibility import ItemView, QueryView, locate

ITEM_COLUMNS: tuple[str, ...] = ()
QUERY_COLUMNS: tuple[str, ...] = ()


def find_ineligible(items: ItemView, queries: QueryView) -> Cells | None:
    """Cells of the items that each request excludes."""
    return locate(items, queries.excluded)
