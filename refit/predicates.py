"""Conditions on items, said apart from what evaluates them.

A search within one process evaluates them over its columns; an engine on other machines gets them
in its own language. A value that is missing meets no condition but ``Not``.
"""

from dataclasses import dataclass

SELLER, ITEM_ID = "seller_id", "item_id"


@dataclass(frozen=True)
class OneOf:
    """An item column has one of some texts, or of some numbers."""

    column: str
    values: tuple[str | float, ...]


@dataclass(frozen=True)
class Between:
    """A numeric item column is within inclusive bounds; None is no bound."""

    column: str
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class ListedAfter:
    """An item was listed after a time, in microseconds since 1970; not where that is unknown."""

    time: int


@dataclass(frozen=True)
class UnderShown:
    """An item is among the given share of the bundle's items that were least popular."""

    share: float


@dataclass(frozen=True)
class Not:
    """An item does not meet a condition."""

    condition: "Predicate"


@dataclass(frozen=True)
class AllOf:
    """An item meets every condition."""

    conditions: tuple["Predicate", ...]


@dataclass(frozen=True)
class AnyOf:
    """An item meets at least one condition."""

    conditions: tuple["Predicate", ...]


Predicate = OneOf | Between | ListedAfter | UnderShown | Not | AllOf | AnyOf


def join(*conditions: Predicate | None) -> Predicate | None:
    """The condition that all of some hold; None, which holds for every item, adds nothing."""
    said = tuple(condition for condition in conditions if condition is not None)
    if len(said) > 1:
        return AllOf(said)
    return said[0] if said else None
