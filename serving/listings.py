"""Listings from the stock feed, as inputs of the item tower.

What a line does not say is taken from the bundle: an edited listing keeps its other attributes, its
popularity, its age and its picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit.columns import Numbers
from refit.encoding import ENCODER_VERSION
from refit.errors import RefitError
from refit.features import FeaturesManifest, Inputs, item_inputs
from refit.index import ITEMS_FILE
from refit.live_features import (
    LiveFeatures,
    has_live_features,
    read_live_features,
    read_rows,
)
from serving.catalogue import Catalogue
from serving.feeds.stock import ENDS, ListingState, StockChange

LARGEST = float(np.finfo(np.float32).max)
DAY = 86_400.0
LISTED_AT = "listed_at"


@dataclass(frozen=True)
class Draft:
    """A listing as it is to be embedded.

    Attributes:
        item_id: Its id.
        attributes: Its attributes, without the vector.
        columns: The columns that the item tower reads.
        age_days: Days since it was listed; NaN where unknown.
        popularity: [P] decayed counts.
        row: Its row among the bundle's live items, if it has one.
    """

    item_id: str
    attributes: Mapping[str, Any]
    columns: Mapping[str, Any]
    age_days: float
    popularity: NDArray[np.float32]
    row: int | None


@dataclass(frozen=True)
class _Stored:
    """What the bundle knows of a listing; nothing of one that is newer."""

    row: int | None = None
    attributes: Mapping[str, Any] | None = None
    age_days: float | None = None
    popularity: NDArray[np.float32] | None = None
    vector: NDArray[np.float32] | None = None


class ListingReader:
    """Completes what the feed says of listings with what the bundle knows of them.

    Attributes:
        has_features: Whether the bundle knows popularity, age and vectors of its live listings;
            one that was built by an earlier version of Refit does not.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        spec = catalogue.features.spec
        kinds = catalogue.attributes.items()
        numeric = [name for name, kind in kinds if isinstance(kind, Numbers)]
        texts = [name for name, kind in kinds if not isinstance(kind, Numbers)]
        self._numeric = dict.fromkeys((*numeric, *spec.item_numeric))
        self._texts = dict.fromkeys(("seller_id", *texts, *spec.item_categorical, *spec.item_text))
        self._tower_columns = (*spec.item_numeric, *spec.item_categorical, *spec.item_text)
        self._vector, self._encoding = spec.item_vector, catalogue.features.encoding
        self._known = {*self._numeric, *self._texts, self._vector, LISTED_AT}
        self.has_features = has_live_features(catalogue.bundle.index)

    def read(self, change: StockChange) -> dict[str, Any]:
        """What a line says of columns that the bundle has; a vector as bytes, unless it is null.

        A line that takes a listing off says nothing else.

        Raises:
            ValueError: A value is of the wrong type, the vector is by other encoders than those of
                the bundle, or nobody could tell whose listing it is.
        """
        if change.change in ENDS:
            return {}
        told = {name: value for name, value in change.attributes.items() if name in self._known}
        if self._vector in told:
            value = told.pop(self._vector)
            if value is not None:
                size = self._catalogue.features.vector_size
                vector = _vector(value, size, self._vector)
                self._require_encoder(vector, change.attributes.get(ENCODER_VERSION))
                told[self._vector] = vector.tobytes()
        for name in self._numeric.keys() & told.keys():
            if not _is_number(told[name]):
                raise ValueError(f"{name} must be a finite number")
        for name in self._texts.keys() & told.keys():
            if not _is_text(told[name]):
                raise ValueError(f"{name} must be text")
        needs_seller = change.change == "listed" or "seller_id" in told
        if needs_seller and self._catalogue.sellers is not None and not told.get("seller_id"):
            raise ValueError("seller_id: missing; nobody must be shown their own listing")
        return told

    def _require_encoder(self, vector: NDArray[np.float32], version: Any) -> None:
        """Refuse a vector that the bundle's towers cannot read.

        Raises:
            ValueError: It is not said to be by the bundle's encoders, or is zeros.
        """
        if self._encoding is None:  # the data bring their vectors along, and name no encoder
            return
        if version != self._encoding.encoder_version:
            told = f"{ENCODER_VERSION} {version!r}" if version else f"without {ENCODER_VERSION}"
            raise ValueError(
                f"{self._vector}: {told}, but the bundle reads {self._encoding}; encode the listing"
                " with refit encode"
            )
        if not vector.any():
            raise ValueError(f"{self._vector}: zeros; the listing cannot be embedded by them")

    def draft(self, states: Mapping[str, ListingState]) -> dict[str, Draft | ValueError]:
        """What is to be embedded of each listing, or why it cannot be."""
        drafts: dict[str, Draft | ValueError] = {}
        for item_id, stored in self._read_stored(states).items():
            try:
                drafts[item_id] = self._draft(item_id, states[item_id], stored)
            except ValueError as error:
                drafts[item_id] = error
        return drafts

    def _draft(self, item_id: str, state: ListingState, stored: _Stored) -> Draft:
        told = state.values
        is_whole = state.whole_at >= 0
        if not is_whole and stored.attributes is None:
            raise ValueError("the listing is not known; send a `listed` line with all of it")
        attributes = told if is_whole else {**(stored.attributes or {}), **told}
        vector = attributes.pop(self._vector, None) if self._vector else None
        columns: dict[str, Any] = {name: attributes.get(name) for name in self._tower_columns}
        columns["item_id"] = item_id
        if self._vector:
            columns[self._vector] = self._find_vector(vector, stored)
        size = self._catalogue.features.popularity_size
        unmet = np.zeros(size, dtype=np.float32)
        popularity = unmet if stored.popularity is None else stored.popularity
        age = self._age_days(told.get(LISTED_AT), state, stored)
        return Draft(item_id, attributes, columns, age, popularity, stored.row)

    def _find_vector(self, told: bytes | None, stored: _Stored) -> NDArray[np.float32]:
        if told is not None:
            return np.frombuffer(told, dtype=np.float32)
        if stored.vector is not None:
            return stored.vector
        if stored.row is not None and not self.has_features:
            return np.zeros(self._catalogue.features.vector_size, dtype=np.float32)  # not embedded
        raise ValueError(f"{self._vector}: missing; the listing cannot be embedded without it")

    def _age_days(self, listed_at: datetime | None, state: ListingState, stored: _Stored) -> float:
        now = max(state.edited_at, state.on_sale_at)
        if listed_at is not None:
            return max((now - listed_at.timestamp()) / DAY, 0.0)
        if stored.age_days is not None:
            return stored.age_days + max((now - self._catalogue.as_of.timestamp()) / DAY, 0.0)
        return max((now - state.on_sale_at) / DAY, 0.0)

    def _read_stored(self, states: Mapping[str, ListingState]) -> dict[str, _Stored]:
        row_of, n_live = self._catalogue.row_of, self._catalogue.n_live
        known = {item_id: row_of[item_id] for item_id in states if item_id in row_of}
        stored = dict.fromkeys(states, _Stored())
        if not known:
            return stored
        rows = list(known.values())
        attributes = self._read_attributes(rows)
        live = [row for row in rows if row < n_live]
        features = self._read_features(live) if live and self.has_features else None
        place = {row: i for i, row in enumerate(live)} if features else {}
        for (item_id, row), values in zip(known.items(), attributes, strict=True):
            stored[item_id] = _store(row, row < n_live, values, features, place.get(row))
        return stored

    def _read_attributes(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        table = read_rows(self._catalogue.bundle.index / ITEMS_FILE, rows)
        names = [name for name in table.column_names if name not in ("item_id", "live")]
        return list(table.select(names).to_pylist())

    def _read_features(self, rows: Sequence[int]) -> LiveFeatures:
        size = self._catalogue.features.popularity_size
        return read_live_features(self._catalogue.bundle.index, rows, size)


def tower_inputs(features: FeaturesManifest, drafts: Sequence[Draft]) -> Inputs:
    """Item tower inputs of B listings, at least one."""
    columns = {name: [draft.columns[name] for draft in drafts] for name in drafts[0].columns}
    ages = np.array([draft.age_days for draft in drafts], dtype=np.float32)
    popularity = np.stack([draft.popularity for draft in drafts])
    return item_inputs(features.spec, columns, ages, popularity)


def check_encoders(features: FeaturesManifest, version: str) -> None:
    """Refuse a bundle whose encoders are not those of the stock feed.

    Args:
        features: The bundle's.
        version: The feed's ``encoder_version``; empty: it is not known.

    Raises:
        RefitError: They differ.
    """
    encoding = features.encoding
    if version and (encoding is None or encoding.encoder_version != version):
        raise RefitError(
            f"the bundle reads item vectors of {encoding or 'no encoder'}, and the stock feed has"
            f" those of {ENCODER_VERSION} {version} (feeds.encoder_version): encode the feed's"
            " listings as for the bundle, then change the setting"
        )


def _store(
    row: int,
    is_live: bool,
    attributes: Mapping[str, Any],
    features: LiveFeatures | None,
    place: int | None,
) -> _Stored:
    if features is None or place is None:
        return _Stored(row if is_live else None, attributes)
    return _Stored(
        row,
        attributes,
        float(features.age_days[place]),
        features.popularity[place],
        None if features.vectors is None else features.vectors[place],
    )


def _vector(value: Any, size: int, name: str) -> NDArray[np.float32]:
    numbers = isinstance(value, list) and None not in value and all(map(_is_number, value))
    if not numbers or len(value) != size:
        raise ValueError(f"{name} must be {size} finite numbers")
    return np.array(value, dtype=np.float32)


def _is_number(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= LARGEST


def _is_text(value: Any) -> bool:
    """Whether it is null, or text that can be written: JSON may hold half characters."""
    if value is None:
        return True
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
