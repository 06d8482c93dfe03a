"""Slices: parts of the test queries with results of their own."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from components.evaluation.data import DAY, Flags
from components.evaluation.ranking import EvaluationSet
from components.evaluation.settings import EvaluationSettings
from refit.feature_tables import numbers, strings

PRICE = "price"
COLD = "listed within 24 h"
"""The slice of queries whose item was on sale for less than a day; in every report."""


def cut_slices(evaluation_set: EvaluationSet, settings: EvaluationSettings) -> dict[str, Flags]:
    """[n] flags of each slice: new and known users and items, column values, price bands.

    A column is one of the items, or else one of the query's context. The slice of items that were
    listed within 24 hours, and every slice with a floor, are always included, even if empty. Where
    queries have several positive items, they are not cut by item, so that those slices are empty.
    """
    queries = evaluation_set.queries
    found = {"new users": queries.new_user, "known users": ~queries.new_user}
    if evaluation_set.starts is None:
        found |= {
            "new items": queries.new_item,
            "known items": ~queries.new_item,
            COLD: _is_cold(evaluation_set),
        }
    for column in settings.slice_columns:
        found |= dict(_by_value(evaluation_set, column, settings.slice_values))
    if evaluation_set.starts is None:
        found |= dict(_by_price(evaluation_set, settings.price_bands))
    always = {COLD, *(floor.slice for floor in settings.slice_floors)}
    empty = np.zeros(len(queries), dtype=np.bool_)
    found |= {name: empty for name in always if name not in found}
    return {
        name: flags
        for name, flags in found.items()
        if name in always or np.count_nonzero(flags) >= settings.slice_min_n
    }


def _is_cold(evaluation_set: EvaluationSet) -> Flags:
    """[n] whether the positive item was first on sale less than a day before the query.

    An item without a listing time is on sale from its first event on.
    """
    log, rows = evaluation_set.data.log, evaluation_set.queries.rows
    age = log.time[rows] - evaluation_set.data.catalogue.known_at[log.item[rows]]
    flags: Flags = (age >= 0) & (age < DAY)
    return flags


def _by_value(evaluation_set: EvaluationSet, column: str, most: int) -> Iterator[tuple[str, Flags]]:
    values = _column(evaluation_set, column)
    if values is None:
        return
    known = values[values != ""]
    names, counts = np.unique(known.astype(str), return_counts=True)
    for i in np.argsort(-counts, kind="stable")[:most]:
        yield f"{column}: {names[i]}", values == names[i]


def _by_price(evaluation_set: EvaluationSet, bands: int) -> Iterator[tuple[str, Flags]]:
    table = evaluation_set.data.catalogue.contents
    if PRICE not in table.column_names:
        return
    prices = numbers(table[PRICE])[_positives(evaluation_set)]
    known = prices[np.isfinite(prices)]
    if not len(known):
        return
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bands + 1)))
    band = np.searchsorted(edges[1:-1], prices, side="right")
    for i, (low, high) in enumerate(pairwise(edges)):
        yield f"price: {low:.4g} to {high:.4g}", (band == i) & np.isfinite(prices)


def _column(evaluation_set: EvaluationSet, name: str) -> NDArray[np.object_] | None:
    items, context = evaluation_set.data.catalogue.contents, evaluation_set.data.log.table
    if name in items.column_names:
        if evaluation_set.starts is not None:
            return None
        return strings(items[name])[_positives(evaluation_set)]
    if name in context.column_names:
        return strings(context[name])[evaluation_set.queries.rows]
    return None


def _positives(evaluation_set: EvaluationSet) -> NDArray[np.int64]:
    """Rows of the catalogue's contents with the positive items as they were."""
    return evaluation_set.data.log.content[evaluation_set.queries.rows]
