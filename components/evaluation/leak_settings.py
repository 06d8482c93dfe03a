"""Settings of the leak hunter, and the groups of inputs that it measures."""

import re
from collections.abc import Collection, Iterator
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
"""The columns of the data contract that describe a listing, without its price."""
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
    """How far the metric may rest on a group of inputs that may hold what came later.

    Attributes:
        max_share: Largest share of the model's gain over the popularity baseline that a group may
            carry which is not named in ``intended``: a column of users, a context column, an item
            column that is not in ``listing_columns``, the history of the last hour or of the last
            day. What is known to be of the moment has no limit: what Refit itself counts from
            earlier events (popularity, age, older history), and columns of items and users
            that change from version to version (``valid_from``).
        intended: Groups that may carry more, since their values are known at the request:
            ``users.COLUMN``, ``events.COLUMN`` for context, ``items.COLUMN``,
            ``history.last_hour``, ``history.last_day``.
        listing_columns: Item columns that hold what the seller wrote when the listing was made, and
            have no limit. Leave out one that is changed later, such as a title that says sold.
        queries: At most this many test queries, spread evenly over time.
        items: The snapshots are thinned out evenly until their candidates are at most this many,
            but not to fewer queries than ``evaluation.min_queries``.
    """

    max_share: float = Field(default=0.1, gt=0.0, le=1.0)
    intended: tuple[str, ...] = ()
    listing_columns: tuple[str, ...] = LISTING_COLUMNS
    queries: int = Field(default=2000, ge=1)
    items: int = Field(default=200_000, ge=1)

    @field_validator("intended")
    @classmethod
    def _check_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not GROUP_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no group of inputs with a limit; write users.COLUMN, "
                    f"events.COLUMN, items.COLUMN, {LAST_HOUR} or {LAST_DAY}"
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


def list_groups(spec: FeatureSpec) -> tuple[InputGroup, ...]:
    """The groups of inputs of a feature spec, each input in one of them."""
    return tuple(_iter_groups(spec))


def is_limited(settings: LeakSettings, group: InputGroup, versioned: Collection[str] = ()) -> bool:
    """Whether the gate limits what a group may carry.

    Args:
        settings: Which groups are named.
        group: The group.
        versioned: See ``FeaturesManifest.versioned``; such values are those of the moment.
    """
    listing = group.kind == "item" and group.column in settings.listing_columns
    named = group.name in settings.intended or group.name in versioned
    return bool(GROUP_NAME.fullmatch(group.name)) and not listing and not named


def check_intended(settings: LeakSettings, spec: FeatureSpec) -> None:
    """Check that the feature spec has every intended group.

    Raises:
        ValueError: One is missing; the message lists the columns of the spec.
    """
    known = [group.name for group in list_groups(spec) if GROUP_NAME.fullmatch(group.name)]
    if missing := [name for name in settings.intended if name not in known]:
        raise ValueError(
            f"evaluation.leaks.intended names {', '.join(missing)}, which features.spec does not "
            f"have; it has {', '.join(known)}"
        )


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
