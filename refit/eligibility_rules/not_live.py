"""An item that is not on sale when the query is made: sold, withdrawn, or not listed yet."""

from refit.columns import Flags
from refit.eligibility import ItemView, QueryView

ITEM_COLUMNS: tuple[str, ...] = ()
QUERY_COLUMNS: tuple[str, ...] = ()


def find_ineligible(items: ItemView, queries: QueryView) -> Flags | None:
    """Flags of the items that are not live."""
    return items.not_live_at(queries.times)
