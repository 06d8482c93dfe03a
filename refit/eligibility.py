"""Who may be shown what: the one place that applies the eligibility rules.

A rule looks at B queries and C candidate items and finds the items that a query must not be
answered with. The server applies the rules to its index rows, to its delta index and to the
popularity fallback (B = 1), the evaluation to the candidates of every snapshot. Each rule is a
module; see ``Rule`` for what it has to offer.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, field_validator

from refit.columns import Cells, Column, Flags, Labels, Longs, Numbers, Wanted
from refit.errors import DataValidationError, RefitError, UsageError
from refit.extensions import ExtensionKind, naming
from refit.item_lists import ItemLists
from refit.predicates import Predicate, join
from refit.settings import Settings

RULES = ExtensionKind(
    name="eligibility rule",
    group="refit.eligibility_rules",
    package="refit.eligibility_rules",
    needs=("ITEM_COLUMNS", "QUERY_COLUMNS", "find_ineligible"),
    advice="a rule's package must be in both environments, .venv and .venv-serving",
)
_ADVICE = "correct it, or remove it from features.market.rules"
BOUGHT = "bought"
STANDARD_RULES = (
    "not_live",
    "own_listing",
    BOUGHT,
    "hidden",
    "excluded",
    "required_attributes",
)
"""The rules of every market, in this order; ``bought`` does not apply to replenishable stock."""


class MarketSettings(Settings):
    """What kind of market it is; evaluation and server read it from the same features.json.

    Attributes:
        stock: ``one_of_a_kind``: an item that a user has bought is never shown to them again, and a
            purchase ends its listing. ``once_each``: nobody is shown what they bought, and it stays
            for others. ``replenishable``: it may be shown again, because there is
            more of it.
        gone_after_days: An item without an event for so many days is taken for gone until its next
            event. None: never; then only ``delisted_at`` tells what was withdrawn.
        rules: Further eligibility rules, by name, or by dotted name such as
            ``acme.refit.adults_only``.
    """

    stock: Literal["one_of_a_kind", "once_each", "replenishable"] = "one_of_a_kind"
    gone_after_days: PositiveFloat | None = None
    rules: tuple[str, ...] = ()

    @field_validator("rules")
    @classmethod
    def _check_rules(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if standard := [name for name in names if name in STANDARD_RULES]:
            raise ValueError(
                f"{standard[0]!r} need not be named: it applies in every market"
                + (" whose stock is not replenishable" if standard[0] == BOUGHT else "")
            )
        return names

    @property
    def hides_bought(self) -> bool:
        """Whether an item that a user has bought is never shown to them again."""
        return self.stock != "replenishable"

    @property
    def ends_when_bought(self) -> bool:
        """Whether a purchase ends the listing."""
        return self.stock == "one_of_a_kind"

    @property
    def all_rules(self) -> tuple[str, ...]:
        """The names of all rules that apply, in their order, each once."""
        standard = (name for name in STANDARD_RULES if name != BOUGHT or self.hides_bought)
        return tuple(dict.fromkeys((*standard, *self.rules)))


class ItemView(Protocol):
    """C candidate items, as a rule sees them."""

    def __len__(self) -> int:
        """C."""
        ...

    @property
    def sellers(self) -> Labels | None:
        """[C] user id of each item's seller; None when the items have no sellers."""
        ...

    def not_live_at(self, times: Longs) -> Flags | None:
        """[C] or [B, C] whether each item is not on sale at B times; None when all are."""
        ...

    def positions(self, items: Longs) -> Longs:
        """[P] the position of each item number among the candidates, -1 where it is not there."""
        ...

    def column(self, name: str) -> Column:
        """[C] an item column."""
        ...


class QueryView(Protocol):
    """B queries, as a rule sees them."""

    def __len__(self) -> int:
        """B."""
        ...

    @property
    def times(self) -> Longs:
        """[B] when each query was made, in microseconds since 1970, UTC."""
        ...

    @property
    def user_ids(self) -> Sequence[str | None]:
        """[B] who made it; None where that is unknown."""
        ...

    @property
    def bought(self) -> ItemLists:
        """The items that each user had bought before."""
        ...

    @property
    def hidden(self) -> ItemLists:
        """The items that each user had hidden before."""
        ...

    @property
    def excluded(self) -> ItemLists:
        """The items that each request excludes."""
        ...

    @property
    def required(self) -> Sequence[Mapping[str, Wanted]]:
        """[B] the item attributes that each request requires."""
        ...

    def texts(self, name: str) -> NDArray[np.object_]:
        """[B] a context or user column as text, "" where it is missing."""
        ...

    def numbers(self, name: str) -> NDArray[np.float64]:
        """[B] a context or user column as numbers, NaN where it is missing."""
        ...


class Rule(Protocol):
    """One eligibility rule; a module with these names is one.

    It may also have ``to_predicate(queries)``, which says of a single query (B = 1) what every item
    meets that the rule leaves, or None. Where another engine searches, it is applied there. The
    rule is applied to what is found in any case, so the condition may say less than the rule, but
    must not say more.

    Attributes:
        ITEM_COLUMNS: Item columns that the rule reads.
        QUERY_COLUMNS: Event or user columns that the rule reads of a query.
    """

    ITEM_COLUMNS: tuple[str, ...]
    QUERY_COLUMNS: tuple[str, ...]

    def find_ineligible(self, items: ItemView, queries: QueryView) -> Flags | Cells | None:
        """Find the items that must not be shown.

        Returns:
            Flags that broadcast to [B, C], or the cells; None for nothing.
        """
        ...


@dataclass(frozen=True)
class Eligibility:
    """What the rules leave of C candidates for B queries.

    Attributes:
        eligible: [B, C] candidates that may be shown; None when all may be.
        removed: For each rule, how many cells it removed that no earlier rule had removed.
    """

    eligible: Flags | None
    removed: Mapping[str, int]


class Rules:
    """The eligibility rules of a market.

    Args:
        rules: Each rule by its name, in the order in which they are applied.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = dict(rules)
        self._naming = {
            name: naming(f"eligibility rule {name!r}", _ADVICE, _is_about_a_request)
            for name in rules
        }

    @classmethod
    def load(cls, market: MarketSettings) -> "Rules":
        """Load the rules of a market.

        Raises:
            UsageError: A rule does not exist or cannot be imported in this environment.
        """
        return cls({name: RULES.load(name) for name in market.all_rules})

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the rules, in their order."""
        return tuple(self._rules)

    @property
    def item_columns(self) -> tuple[str, ...]:
        """The item columns that some rule reads."""
        return tuple(dict.fromkeys(c for rule in self._rules.values() for c in rule.ITEM_COLUMNS))

    @property
    def query_columns(self) -> tuple[str, ...]:
        """The event and user columns that some rule reads."""
        return tuple(dict.fromkeys(c for rule in self._rules.values() for c in rule.QUERY_COLUMNS))

    def check_columns(self, kind: Literal["item", "query"], there: Collection[str]) -> None:
        """Check that every column exists that a rule reads.

        Args:
            kind: ``item`` checks the item columns, ``query`` the event and user columns.
            there: The columns that exist.

        Raises:
            UsageError: A column does not exist; the message names the rule.
        """
        for name, rule in self._rules.items():
            columns = rule.ITEM_COLUMNS if kind == "item" else rule.QUERY_COLUMNS
            if missing := [column for column in columns if column not in there]:
                raise UsageError(
                    f"eligibility rule {name!r} needs the {kind} column {missing[0]!r}, which "
                    f"does not exist; there are: {', '.join(sorted(there)) or 'none'}"
                )

    def find_eligible(self, items: ItemView, queries: QueryView) -> Eligibility:
        """Apply every rule to every query and candidate.

        Raises:
            RefitError: A rule failed, so that nothing may be shown.
        """
        shape = len(queries), len(items)
        eligible: Flags | None = None
        removed, left = {}, shape[0] * shape[1]
        for name, found in self._apply(items, queries):
            if found is None:
                removed[name] = 0
                continue
            if isinstance(found, Cells):
                eligible = np.ones(shape, dtype=np.bool_) if eligible is None else eligible
                removed[name] = _remove_cells(eligible, found)
            else:
                eligible = _remove_flags(eligible, found, shape)
                removed[name] = left - int(np.count_nonzero(eligible))
            left -= removed[name]
        return Eligibility(eligible, removed)

    def to_predicate(self, queries: QueryView) -> Predicate | None:
        """What every item meets that the rules leave for one query, as far as rules say it.

        Raises:
            RefitError: A rule failed.
        """
        conditions = []
        for name, rule in self._rules.items():
            if say := getattr(rule, "to_predicate", None):
                with self._naming[name]:
                    conditions.append(say(queries))
        return join(*conditions)

    def find_reasons(
        self, items: ItemView, queries: QueryView, position: NDArray[np.integer[Any]]
    ) -> NDArray[np.str_]:
        """Which rule removes one candidate of each query.

        Args:
            items: C candidates.
            queries: B queries.
            position: [B] the candidate of each query.

        Returns:
            [B] the name of the first rule that removes it, "" when none does.
        """
        rows = np.arange(len(queries))
        reasons = np.full(len(queries), "", dtype=f"<U{max(map(len, self.names), default=1)}")
        for name, found in self._apply(items, queries):
            if isinstance(found, Cells):
                hit = np.zeros(len(queries), dtype=np.bool_)
                hit[found.query[position[found.query] == found.position]] = True
            elif found is not None:
                hit = np.broadcast_to(found, (len(queries), len(items)))[rows, position]
            else:
                continue
            reasons[hit & (reasons == "")] = name
        return reasons

    def _apply(
        self, items: ItemView, queries: QueryView
    ) -> Iterator[tuple[str, Flags | Cells | None]]:
        shape = len(queries), len(items)
        for name, rule in self._rules.items():
            with self._naming[name]:
                found = rule.find_ineligible(items, queries)
            yield name, found if name in STANDARD_RULES else _check(name, found, shape)


def _is_about_a_request(error: Exception) -> bool:
    return isinstance(error, UsageError)


def read_labels(items: ItemView, name: str) -> Labels:
    """[C] an item column of text.

    Raises:
        DataValidationError: The column holds numbers.
    """
    column = items.column(name)
    if not isinstance(column, Labels):
        raise DataValidationError(f"the item column {name!r} holds numbers, not text")
    return column


def read_numbers(items: ItemView, name: str) -> Numbers:
    """[C] an item column of numbers.

    Raises:
        DataValidationError: The column holds text.
    """
    column = items.column(name)
    if not isinstance(column, Numbers):
        raise DataValidationError(f"the item column {name!r} holds text, not numbers")
    return column


def locate(items: ItemView, lists: ItemLists) -> Cells | None:
    """The cells of the listed items that are candidates; None when there are none."""
    if not len(lists):
        return None
    position = items.positions(lists.item)
    there = position >= 0
    if there.all():
        return Cells(lists.query, position)
    return Cells(lists.query[there], position[there])


def _remove_flags(eligible: Flags | None, found: Flags, shape: tuple[int, int]) -> Flags:
    if eligible is None:
        return np.logical_not(found, out=np.empty(shape, dtype=np.bool_))
    return np.greater(eligible, found, out=eligible)  # eligible, and not found


def _remove_cells(eligible: Flags, found: Cells) -> int:
    """Clear the cells, and return how many of them were set."""
    cells = found.position
    if not len(cells):
        return 0
    if len(eligible) > 1:
        cells = found.query * eligible.shape[1] + cells
    flat = eligible.reshape(-1)
    removed = int(np.count_nonzero(flat[cells]))
    flat[cells] = False
    return removed


def _check(name: str, found: Any, shape: tuple[int, int]) -> Flags | Cells | None:
    """Check what a rule of another package returned; it may be anything.

    Returns:
        The same; of cells each one once.

    Raises:
        RefitError: It is neither flags nor cells, or does not fit ``shape``.
    """
    if found is None:
        return None
    if isinstance(found, Cells):
        if _fits(found.query, shape[0]) and _fits(found.position, shape[1]):
            distinct = np.unique(found.query * shape[1] + found.position)
            return Cells(*np.divmod(distinct, shape[1]))
        returned = "cells"
    elif isinstance(found, np.ndarray) and found.dtype == np.bool_:
        if _broadcasts(found.shape, shape):
            return found
        returned = f"flags {found.shape}"
    else:
        returned = type(found).__name__
    raise RefitError(
        f"eligibility rule {name!r} returned {returned}, which do not fit {shape[0]} queries and "
        f"{shape[1]} candidates; it must return an array of bool, Cells or None; {_ADVICE}"
    )


def _fits(numbers: Longs, end: int) -> bool:
    return not len(numbers) or bool(numbers.min() >= 0 and numbers.max() < end)


def _broadcasts(found: tuple[int, ...], shape: tuple[int, int]) -> bool:
    pairs = zip(reversed(found), reversed(shape), strict=False)
    return len(found) <= len(shape) and all(n in (1, end) for n, end in pairs)
