"""An item that the request excludes, such as one that the page already shows."""

from refit.columns import Cells
from refit.eligibility import Items, Queries, locate

ITEM_COLUMNS: tuple[str, ...] = ()
QUERY_COLUMNS: tuple[str, ...] = ()


def find_ineligible(items: Items, queries: Queries) -> Cells | None:
    """Cells of the items that each request excludes."""
    return locate(items, queries.excluded)
