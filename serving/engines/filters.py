"""Conditions on items in Weaviate's language.

Weaviate trims texts, and has no empty ones; texts are stored between two signs, so that they stay
what they are. Columns whose names it does not allow have no property.
"""

import re
import uuid
from dataclasses import dataclass
from typing import Any

from refit.predicates import (
    ITEM_ID,
    AllOf,
    AnyOf,
    Between,
    ListedAfter,
    Not,
    OneOf,
    Predicate,
    UnderShown,
)
from serving.engines.engine import ColumnKinds
from serving.engines.protocol import weaviate_pb2 as messages

ITEM, LISTED_AT, RANK = "item", "listed_at", "popularity_rank"
"""Properties that are no item columns: the id, the time, the place by popularity from 0 to 1."""
RANK_SLACK = 0.001
_ALLOWED = re.compile(r"[_0-9A-Za-z]{1,200}")
_ITEMS = uuid.UUID("6f1f3f0e-6c0b-4c0e-9d55-0f6a1c3c9a51")
_Filters = messages.Filters


@dataclass(frozen=True)
class Said:
    """A condition as filters.

    Attributes:
        filters: None: nothing of it can be said.
        is_whole: Whether the filters say all of it.
    """

    filters: Any = None
    is_whole: bool = False


def property_of(column: str) -> str | None:
    """The property that holds an item column; None where Weaviate does not allow its name."""
    return f"c_{column}" if _ALLOWED.fullmatch(column) else None


def uuid_of(item_id: str) -> str:
    """Weaviate's id of an item."""
    return str(uuid.uuid5(_ITEMS, item_id))


def stored_text(text: str) -> str:
    """A text as it is stored."""
    return f"={text}="


def say(condition: Predicate | None, kinds: ColumnKinds) -> Said:
    """Say a condition, or as much of it as can be said without saying more.

    Args:
        condition: The condition; None says nothing.
        kinds: The item columns.
    """
    match condition:
        case OneOf(column, values):
            return _say_one_of(column, values, kinds)
        case Between(column, least, most):
            return _say_between(column, least, most, kinds)
        case ListedAfter(time):
            return Said(_compare(LISTED_AT, _Filters.OPERATOR_GREATER_THAN, time), True)
        case UnderShown(share):
            # A little more than the share: the last places differ between bundles.
            most = share + RANK_SLACK
            return Said(_compare(RANK, _Filters.OPERATOR_LESS_THAN_EQUAL, most), False)
        case Not(inner):
            said = say(inner, kinds)
            if not said.is_whole:
                return Said()
            return Said(_join(_Filters.OPERATOR_NOT, [said]), True)
        case AllOf(conditions):
            parts = [say(one, kinds) for one in conditions]
            told = [part for part in parts if part.filters is not None]
            if not told:
                return Said()
            whole = len(told) == len(parts) and all(part.is_whole for part in told)
            return Said(_join(_Filters.OPERATOR_AND, told), whole)
        case AnyOf(conditions):
            parts = [say(one, kinds) for one in conditions]
            if any(part.filters is None for part in parts):
                return Said()
            whole = all(part.is_whole for part in parts)
            return Said(_join(_Filters.OPERATOR_OR, parts), whole)
        case None:
            return Said()


def item_filters(item_ids: tuple[str, ...]) -> Any:
    """Filters for some items."""
    filters = _Filters(operator=_Filters.OPERATOR_CONTAINS_ANY)
    filters.value_text_array.values.extend(uuid_of(item_id) for item_id in item_ids)
    filters.target.property = "_id"
    return filters


def _say_one_of(column: str, values: tuple[str | float, ...], kinds: ColumnKinds) -> Said:
    if not values:
        return Said()
    if column == ITEM_ID:
        return Said(item_filters(tuple(map(str, values))), True)
    name = property_of(column) if column in kinds else None
    if name is None:
        return Said()
    filters = _Filters(operator=_Filters.OPERATOR_CONTAINS_ANY)
    if kinds[column] == "number":
        filters.value_number_array.values.extend(map(float, values))
    else:
        filters.value_text_array.values.extend(stored_text(str(value)) for value in values)
    filters.target.property = name
    return Said(filters, True)


def _say_between(column: str, least: float | None, most: float | None, kinds: ColumnKinds) -> Said:
    name = property_of(column) if kinds.get(column) == "number" else None
    bounds = (
        (_Filters.OPERATOR_GREATER_THAN_EQUAL, least),
        (_Filters.OPERATOR_LESS_THAN_EQUAL, most),
    )
    parts = [
        Said(_compare(name, operator, bound), True)
        for operator, bound in bounds
        if name is not None and bound is not None
    ]
    return Said(_join(_Filters.OPERATOR_AND, parts), True) if parts else Said()


def _compare(name: str, operator: Any, number: float) -> Any:
    filters = _Filters(operator=operator, value_number=float(number))
    filters.target.property = name
    return filters


def _join(operator: Any, parts: list[Said]) -> Any:
    if len(parts) == 1 and operator != _Filters.OPERATOR_NOT:
        return parts[0].filters
    return _Filters(operator=operator, filters=[part.filters for part in parts])
