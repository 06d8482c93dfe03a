"""Settings of the leak hunter, and the groups of inputs that it measures."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

from refit.features import FeatureSpec
from refit.settings import Settings

GroupKind = Literal["history", "popularity", "age", "id", "item", "user", "context"]
TABLES: dict[GroupKind, str] = {"item": "items", "user": "users", "context": "events"}
LISTING_COLUMNS = (
    *("title", "description", "brand", "category_1", "category_2", "category_3"),
    *("colour", "size", "condition", "image_embedding"),
)
"""Item columns of the contract that a seller fills in when the listing is made."""
POPULARITY_GROUP, AGE_GROUP, ID_GROUP = "popularity", "item_age", "item_id"
LAST_HOUR, LAST_DAY, OLDER = "history.last_hour", "history.last_day", "history.older"
HISTORY_BANDS: dict[str, tuple[float, float]] = {
    LAST_HOUR: (0.0, 1 / 24),
    LAST_DAY: (1 / 24, 1.0),
    OLDER: (1.0, float("inf")),
}
"""Ages in days of the history entries of each group: from (inclusive) and until (exclusive)."""
GROUP_NAME = re.compile(r"(history\.(last_hour|last_day)|(items|users|events)\..+)")


class LeakSettings(Settings):
    """How far the metric may rest on one group of inputs that may hold what came later.

    Attributes:
        intended: Groups that may carry any share of the gain, since what they hold is known at the
            request: ``items.COLUMN``, ``users.COLUMN``, ``events.COLUMN`` (context),
            ``history.last_hour`` and ``history.last_day``.
        max_share: Largest share of the model's gain over the popularity baseline that a group may
            carry which is not named in ``intended``: a column of users or context, an item column
            that is not part of a listing as its seller wrote it, the history of the last hour or
            of the last day.
        max_share_without_query: Largest share of the gain that an item column may carry where the
            queries are exchanged with each other: a column that shows what anyone will buy holds
            the sale. It applies to every item column that ``intended`` does not name.
        queries: At most this many test queries, evenly over time.
        items: The snapshots are thinned out evenly until their candidates are at most this many,
            but not below the queries that ``min_queries`` asks for.
    """

    intended: tuple[str, ...] = ()
    max_share: float = Field(default=0.2, gt=0.0, le=1.0)
    max_share_without_query: float = Field(default=0.1, gt=0.0, le=1.0)
    queries: int = Field(default=2000, ge=1)
    items: int = Field(default=200_000, ge=1)

    @field_validator("intended")
    @classmethod
    def _check_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not GROUP_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no group of inputs that is limited; write items.COLUMN, "
                    f"users.COLUMN, events.COLUMN, {LAST_HOUR} or {LAST_DAY}"
                )
        return names


@dataclass(frozen=True)
class InputGroup:
    """Inputs that are permuted or cut together.

    Attributes:
        name: As ``LeakSettings.intended`` writes it.
        column: The column, for ``item``, ``user`` and ``context``.
        tower_input: The tower input with these values, where there is one; see ``refit.features``.
    """

    name: str
    kind: GroupKind
    column: str = ""
    tower_input: str = ""

    @property
    def is_listing(self) -> bool:
        """Whether it is a column that a seller fills in when the listing is made."""
        return self.kind == "item" and self.column in LISTING_COLUMNS


def list_groups(spec: FeatureSpec) -> tuple[InputGroup, ...]:
    """The groups of inputs of a feature spec, each input in one of them."""
    return tuple(_iter_groups(spec))


def find_unknown_groups(settings: LeakSettings, spec: FeatureSpec) -> list[str]:
    """The intended groups that a feature spec does not have."""
    known = {group.name for group in list_groups(spec)}
    return [name for name in settings.intended if name not in known]


def _iter_groups(spec: FeatureSpec) -> Iterator[InputGroup]:
    for name in HISTORY_BANDS:
        yield InputGroup(name, "history")
    yield InputGroup(POPULARITY_GROUP, "popularity")
    yield InputGroup(AGE_GROUP, "age")
    yield InputGroup(ID_GROUP, "id", tower_input="item_id")
    columns: dict[GroupKind, tuple[str, ...]] = {
        "item": (*spec.item_categorical, *spec.item_numeric, *spec.item_text),
        "user": (*spec.user_categorical, *spec.user_numeric),
        "context": (*spec.context_categorical, *spec.context_numeric),
    }
    for kind, names in columns.items():
        for name in dict.fromkeys(names):
            yield InputGroup(f"{TABLES[kind]}.{name}", kind, name, f"{kind}_{name}")
    if spec.item_vector:
        yield InputGroup(f"items.{spec.item_vector}", "item", spec.item_vector, "item_vector")
