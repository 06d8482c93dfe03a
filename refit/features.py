"""The feature spec, and the inputs of the two towers that follow from it.

Tower inputs are named by side: ``item_<column>``, ``context_<column>``, ``user_<column>``.
A missing string is "", a missing number is NaN; the towers learn a value for both.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import (
    Field,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from refit.contract import KNOWN_AFTER, KNOWN_AT_END, EventType
from refit.dataset import DatasetManifest
from refit.eligibility import MarketSettings
from refit.encoding import ItemEncoding
from refit.errors import UsageError
from refit.feature_tables import numbers, strings
from refit.files import read_json, write_json
from refit.health import HealthCheck
from refit.settings import Settings

Inputs = dict[str, NDArray[Any]]

REPEATS = "repeats"
"""The output of a query tower, [B, L], with what each event of a history adds to its item's score.

It is there where the tower was trained with ``repeats``."""

BEYOND_FLOAT32 = 2.0**128 - 2.0**103
"""The smallest number that float32 rounds to infinity."""

FEATURES_FILE = "features.json"


class FeatureSpec(Settings):
    """The input columns of each tower, and how history and popularity are computed.

    Attributes:
        item_categorical, item_numeric, item_text: Item columns of the item tower.
        item_vector: The item column with a fixed-size vector, if any.
        context_categorical, context_numeric: Event columns that are known at the request, before
            anything is chosen. The event's own price is not, since it names the item.
        user_categorical, user_numeric: User columns of the query tower.
        static: Item and user columns whose values are today's and are taken for the values of any
            moment before. The gate refuses a model whose towers read a number or a time that is
            not named here, since it may be a count, or a price that was changed: such a column
            knows the future. What comes in versions (``valid_from``) and changes needs no name.
        history_length: Number of the latest earlier events that the query tower reads.
        history_within_visit: Whether these include events of the same visit. If not, a history ends
            at the start of the visit, as for a user who has just arrived, in training, evaluation
            and on the server; otherwise a purchase is "predicted" from a view of the same item a
            minute before. A visit is a session (``session_id``).
        visit_gap_minutes: Events without a ``session_id`` belong to one visit as long as the user
            is never idle for longer than this. The server, which knows no sessions, takes a user's
            latest events for the running visit by the same rule.
        popularity_half_lives_days: Each half-life gives its own decayed counts.
        popularity_by: Context columns by whose values an item's events are also counted.
        popularity_values: Maximum number of values of such a column; the most frequent are used.
        popularity_bins: Rising edges of each numeric column in ``popularity_by``: its counted
            values are the bins "0" (below the first edge) to "<number of edges>"; see ``bin_of``.
        event_weights: Weight of each event type as interest; types that are left out have weight 0.
        target_events: The event types that the model predicts.
        snapshot_every_days: Days between two snapshots of the item features.
    """

    item_categorical: tuple[str, ...] = ()
    item_numeric: tuple[str, ...] = ()
    item_text: tuple[str, ...] = ()
    item_vector: str | None = None
    context_categorical: tuple[str, ...] = ()
    context_numeric: tuple[str, ...] = ()
    user_categorical: tuple[str, ...] = ()
    user_numeric: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    history_length: int = Field(default=50, ge=1)
    history_within_visit: bool = False
    visit_gap_minutes: PositiveFloat = 30.0
    popularity_half_lives_days: tuple[PositiveFloat, ...] = (7.0, 60.0)
    popularity_by: tuple[str, ...] = ()
    popularity_values: int = Field(default=64, ge=1)
    popularity_bins: dict[str, tuple[float, ...]] = {}
    event_weights: dict[str, float] = {"purchase": 1.0}
    target_events: tuple[str, ...] = ("purchase",)
    snapshot_every_days: float = Field(default=1.0, gt=0)

    @field_validator("event_weights", "target_events")
    @classmethod
    def _check_no_hides(cls, types: Any) -> Any:
        if EventType.HIDE in types:
            raise ValueError("hide shows no interest; leave it out")
        return types

    @field_validator("context_categorical", "context_numeric", "popularity_by")
    @classmethod
    def _check_known_at_request(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if after := [name for name in names if name in KNOWN_AFTER]:
            raise ValueError(
                f"{after[0]!r} is known only because the event happened, not at the request; "
                "leave it out"
            )
        return names

    @field_validator("item_categorical", "item_numeric", "item_text")
    @classmethod
    def _check_known_while_listed(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if after := [name for name in names if name in KNOWN_AT_END]:
            raise ValueError(f"{after[0]!r} is known only when the listing has ended; leave it out")
        return names

    @model_validator(mode="after")
    def _check_static(self) -> Self:
        if unused := [name for name in self.static if name not in self._of_items_and_users]:
            raise ValueError(f"static: no item or user column of the spec is {unused[0]!r}")
        return self

    @property
    def _of_items_and_users(self) -> tuple[str, ...]:
        of_items = (*self.item_categorical, *self.item_numeric, *self.item_text)
        return (*of_items, *self.user_categorical, *self.user_numeric)

    def find_undeclared(self, changing: Mapping[str, Collection[str]]) -> tuple[str, ...]:
        """The columns that the towers read, may change over time, and ``static`` does not name.

        Args:
            changing: By table, ``items`` and ``users``, the columns that hold numbers or times.
        """
        read = {
            "items": (*self.item_categorical, *self.item_numeric, *self.item_text),
            "users": (*self.user_categorical, *self.user_numeric),
        }
        return tuple(
            f"{table}.{name}"
            for table, names in read.items()
            for name in dict.fromkeys(names)
            if name in changing[table] and name not in self.static
        )

    def check_columns(
        self, items: Sequence[str], events: Sequence[str], users: Sequence[str]
    ) -> None:
        """Check that the columns of the spec exist.

        Raises:
            UsageError: A column is missing; the message lists the existing ones.
        """
        vector = (self.item_vector,) if self.item_vector else ()
        wanted = {
            "items": (
                (*self.item_categorical, *self.item_numeric, *self.item_text, *vector),
                items,
            ),
            "events": (
                (*self.context_categorical, *self.context_numeric, *self.popularity_by),
                events,
            ),
            "users": ((*self.user_categorical, *self.user_numeric), users),
        }
        faults = [
            f"  {table} have no column {name!r}; they have: {', '.join(sorted(there))}"
            for table, (names, there) in wanted.items()
            for name in names
            if name not in there
        ]
        if faults:
            raise UsageError(
                "The feature spec names columns that do not exist:\n" + "\n".join(faults)
            )


class FeaturesManifest(Settings):
    """The layout of the tower inputs; derived from the training data, reused by later indexes.

    Attributes:
        popularity_values: For each column of ``spec.popularity_by``, the counted values in order.
        vector_size: Length of the item vector, 0 if there is none.
        snapshots: Time of each snapshot; the item features of a snapshot use only earlier events.
        dataset_fingerprint: The dataset that the features were built from.
        dataset: The manifest of that dataset, for reports.
        market: Settings of the market, with its eligibility rules.
        health: What was assumed where the data do not say it, with how much rests on it.
        undeclared: Columns that the towers read, may change over time, and ``spec.static`` does not
            name, such as ``items.like_count``. None: nobody looked.
        versioned: Columns that the towers read as they were at the moment, since they change from
            version to version, such as ``items.price``. Not written where there are none.
        encoding: Which encoders made the item vectors; None where the data bring their vectors
            along. Not written where there is none.
    """

    spec: FeatureSpec
    market: MarketSettings = MarketSettings()
    popularity_values: dict[str, tuple[str, ...]]
    vector_size: int
    snapshots: tuple[datetime, ...] = ()
    dataset_fingerprint: str = ""
    dataset: DatasetManifest | None = None
    health: tuple[HealthCheck, ...] = ()
    undeclared: tuple[str, ...] | None = None
    versioned: tuple[str, ...] = ()
    encoding: ItemEncoding | None = None

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_there(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without versions or encoders, a manifest and its fingerprints are as before them."""
        written: dict[str, Any] = write(self)
        optional = ("versioned", "encoding")
        return {name: value for name, value in written.items() if value or name not in optional}

    @property
    def snapshot_times(self) -> NDArray[np.int64]:
        """[S] time of each snapshot in microseconds since 1970."""
        times = pa.array(self.snapshots, pa.timestamp("us", "UTC"))
        return np.asarray(times.cast(pa.int64()).to_numpy())

    @property
    def popularity_size(self) -> int:
        """Length P of an item's popularity vector.

        For each half-life in order: the decayed weight of all events, then of the events with
        each counted value of each ``popularity_by`` column, in order.
        """
        values = sum(len(self.popularity_values[column]) for column in self.spec.popularity_by)
        return len(self.spec.popularity_half_lives_days) * (1 + values)

    @classmethod
    def read(cls, folder: Path) -> "FeaturesManifest":
        """Read the manifest of a features, model or bundle folder."""
        return cls.parse(read_json(folder / FEATURES_FILE))

    def write(self, folder: Path) -> None:
        """Write the manifest into a folder."""
        write_json(folder / FEATURES_FILE, self.model_dump(mode="json"))


def item_inputs(
    spec: FeatureSpec,
    columns: Mapping[str, Sequence[Any]],
    age_days: NDArray[np.float32],
    popularity: NDArray[np.float32],
) -> Inputs:
    """Item tower inputs for N items.

    Args:
        spec: The feature spec.
        columns: ``item_id`` and the spec's item columns, each of length N; None is a missing
            value. The vector column is [N, V]; zeros are a missing vector.
        age_days: [N] days since listing; NaN where unknown.
        popularity: [N, P] decayed counts, see ``FeaturesManifest.popularity_size``.
    """
    inputs: Inputs = {"item_id": _strings(columns["item_id"])}
    for name in (*spec.item_categorical, *spec.item_text):
        inputs[f"item_{name}"] = _strings(columns[name])
    for name in spec.item_numeric:
        inputs[f"item_{name}"] = _numbers(columns[name])
    if spec.item_vector:
        inputs["item_vector"] = np.asarray(columns[spec.item_vector], dtype=np.float32)
    inputs["item_age_days"] = np.asarray(age_days, dtype=np.float32)
    inputs["item_popularity"] = np.asarray(popularity, dtype=np.float32)
    return inputs


def query_inputs(
    spec: FeatureSpec,
    contexts: Mapping[str, Sequence[Any]],
    users: Mapping[str, Sequence[Any]],
    history_content: NDArray[np.float32],
    history_event_type: Sequence[Sequence[str]] | NDArray[Any],
    history_age_days: NDArray[np.float32],
) -> Inputs:
    """Query tower inputs for B queries.

    Args:
        spec: The feature spec.
        contexts: The spec's context columns, each of length B; None is a missing value.
        users: The spec's user columns, each of length B; None is a missing value.
        history_content: [B, L, C] content vectors of the latest items, latest first, padded with 0.
        history_event_type: [B, L] event types, "" where padded.
        history_age_days: [B, L] days between event and query, 0 where padded.
    """
    inputs: Inputs = {}
    for side, columns, categorical, numeric in (
        ("context", contexts, spec.context_categorical, spec.context_numeric),
        ("user", users, spec.user_categorical, spec.user_numeric),
    ):
        for name in categorical:
            inputs[f"{side}_{name}"] = _strings(columns[name])
        for name in numeric:
            inputs[f"{side}_{name}"] = _numbers(columns[name])
    inputs["history_content"] = np.asarray(history_content, dtype=np.float32)
    inputs["history_event_type"] = np.asarray(history_event_type, dtype=object)
    inputs["history_age_days"] = np.asarray(history_age_days, dtype=np.float32)
    return inputs


def bin_of(values: NDArray[np.float32], edges: Sequence[float]) -> NDArray[Any]:
    """The bin of each number as a string, "" for NaN; a number on an edge is in the upper bin.

    Args:
        values: [N] numbers.
        edges: Rising edges; n edges give the bins "0" to "n".
    """
    bins = np.digitize(values, np.asarray(edges, dtype=np.float32))
    return np.where(np.isnan(values), "", bins.astype(str)).astype(object)


def _strings(values: Sequence[Any]) -> NDArray[Any]:
    # The single row of a request is a list, which is faster to convert without Arrow.
    if not isinstance(values, list):
        try:
            return strings(_arrow(values, pa.string()))
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # numbers as categories
            pass
    return np.array(["" if v is None or v != v else str(v) for v in values], dtype=object)


def _numbers(values: Sequence[Any]) -> NDArray[np.float32]:
    if isinstance(values, list):
        return np.array([_to_float32(value) for value in values], dtype=np.float32)
    return numbers(_arrow(values, pa.float32()))


def _to_float32(value: Any) -> Any:
    """A number that float32 can hold: NaN where it is missing, infinite beyond, as Arrow has it."""
    if value is None:
        return np.nan
    if abs(value) >= BEYOND_FLOAT32:
        return math.inf if value > 0 else -math.inf
    return value


def _arrow(values: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    return pa.array(values, kind, from_pandas=True)
