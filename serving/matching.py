"""Which items of a pool meet a condition; what an engine on other machines finds by itself."""

from collections.abc import Callable

import numpy as np

from refit.columns import Column, Flags, Range
from refit.predicates import (
    SELLER,
    AllOf,
    AnyOf,
    Between,
    ListedAfter,
    Not,
    OneOf,
    Predicate,
    UnderShown,
)
from serving.catalogue import Catalogue
from serving.fresh import DeltaIndex


def find_matches(catalogue: Catalogue, fresh: DeltaIndex, condition: Predicate) -> Flags:
    """[N + F] whether each item meets a condition: the bundle's, then the newer listings."""
    n = catalogue.n_live
    match condition:
        case OneOf(column, values):
            return _compare(catalogue, fresh, column, lambda found: found.matches(values))
        case Between(column, least, most):
            bounds = Range.model_construct(min=least, max=most)
            return _compare(catalogue, fresh, column, lambda found: found.matches(bounds))
        case ListedAfter(time):
            flags = np.zeros(n + len(fresh), dtype=np.bool_)
            flags[catalogue.listed_since(time)] = True
            flags[n:] = fresh.listed_at > time
            return flags
        case UnderShown(share):
            flags = np.zeros(n + len(fresh), dtype=np.bool_)
            flags[:n] = catalogue.least_popular(share)
            return flags
        case Not(inner):
            return ~find_matches(catalogue, fresh, inner)
        case AllOf(conditions):
            return np.logical_and.reduce([find_matches(catalogue, fresh, c) for c in conditions])
        case AnyOf(conditions):
            return np.logical_or.reduce([find_matches(catalogue, fresh, c) for c in conditions])


def _compare(
    catalogue: Catalogue, fresh: DeltaIndex, name: str, compare: Callable[[Column], Flags]
) -> Flags:
    """Compare a column of both parts; nothing matches where there is no such column."""
    n = catalogue.n_live
    flags = np.zeros(n + len(fresh), dtype=np.bool_)
    if name == SELLER:
        if catalogue.sellers is not None:
            flags[:n] = compare(catalogue.sellers)
            flags[n:] = compare(fresh.sellers)
        return flags
    flags[:n] = compare(catalogue.attributes[name])
    if len(fresh):
        flags[n:] = compare(fresh.column(name))
    return flags
