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
    lacking = [_lacks(items, required) for required in queries.required]
    return lacking[0][None] if len(lacking) == 1 else np.stack(lacking)


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
    has: Flags | None = None
    for name, wanted in required.items():
        matches = items.column(name).matches(wanted)
        has = matches if has is None else np.logical_and(has, matches, out=has)
    return np.zeros(len(items), dtype=np.bool_) if has is None else np.logical_not(has, out=has)
