"""Which items of a pool meet a condition; what an engine on other machines finds by itself."""

from collections.abc import Callable
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from serving.pool import Pool


def find_matches(pool: "Pool", condition: Predicate) -> Flags:
    """[N + F] whether each item of a pool meets a condition."""
    match condition:
        case OneOf(column, values):
            return _compare(pool, column, lambda found: found.matches(values))
        case Between(column, least, most):
            bounds = Range.model_construct(min=least, max=most)
            return _compare(pool, column, lambda found: found.matches(bounds))
        case ListedAfter(time):
            flags = np.zeros(len(pool), dtype=np.bool_)
            flags[pool.catalogue.listed_since(time)] = True
            flags[pool.catalogue.n_live :] = pool.fresh.listed_at > time
            return flags
        case UnderShown(share):
            flags = np.zeros(len(pool), dtype=np.bool_)
            flags[: pool.catalogue.n_live] = pool.catalogue.least_popular(share)
            return flags
        case Not(inner):
            return ~find_matches(pool, inner)
        case AllOf(conditions):
            return np.logical_and.reduce([find_matches(pool, one) for one in conditions])
        case AnyOf(conditions):
            return np.logical_or.reduce([find_matches(pool, one) for one in conditions])


def _compare(pool: "Pool", name: str, compare: Callable[[Column], Flags]) -> Flags:
    """Compare a column of both parts of the pool; nothing matches where there is no such column."""
    n = pool.catalogue.n_live
    flags = np.zeros(len(pool), dtype=np.bool_)
    if name == SELLER:
        if pool.catalogue.sellers is not None:
            flags[:n] = compare(pool.catalogue.sellers)
            flags[n:] = compare(pool.fresh.sellers)
        return flags
    flags[:n] = compare(pool.catalogue.attributes[name])
    if len(pool) > n:
        flags[n:] = compare(pool.fresh.column(name))
    return flags
