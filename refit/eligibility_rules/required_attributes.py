"""An item without the attributes that the request requires: a filter by value or by range."""

from collections.abc import Mapping

import numpy as np

from refit.columns import Flags, Range, Wanted
from refit.eligibility import ItemView, QueryView
from refit.predicates import Between, OneOf, Predicate, join

ITEM_COLUMNS: tuple[str, ...] = ()
QUERY_COLUMNS: tuple[str, ...] = ()


def find_ineligible(items: ItemView, queries: QueryView) -> Flags | None:
    """Flags of the items that lack a required attribute."""
    if not any(queries.required):
        return None
    return np.stack([_lacks(items, required) for required in queries.required])


def to_predicate(queries: QueryView) -> Predicate | None:
    """Each required attribute has one of the wanted values, or lies in the wanted range."""
    (required,) = queries.required
    return join(
        *(
            Between(name, wanted.min, wanted.max)
            if isinstance(wanted, Range)
            else OneOf(name, tuple(wanted))
            for name, wanted in required.items()
        )
    )


def _lacks(items: ItemView, required: Mapping[str, Wanted]) -> Flags:
    lacks = np.zeros(len(items), dtype=np.bool_)
    for name, wanted in required.items():
        lacks |= ~items.column(name).matches(wanted)
    return lacks
