"""A bundle's items, and the listings newer than it, as objects of a Weaviate collection."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refit.columns import Column, Labels
from refit.predicates import SELLER
from serving.catalogue import Catalogue
from serving.engines.engine import column_kinds
from serving.engines.filters import ITEM, LISTED_AT, RANK, property_of, stored_text, uuid_of
from serving.engines.protocol import weaviate_pb2 as messages
from serving.engines.settings import CollectionSettings
from serving.engines.weaviate import CollectionMark
from serving.fresh import DeltaIndex


class ItemObjects:
    """Builds the objects of one collection.

    Args:
        catalogue: The bundle.
        collection: Name of the collection.
    """

    def __init__(self, catalogue: Catalogue, collection: str) -> None:
        self._catalogue, self.collection = catalogue, collection
        self._columns: list[tuple[str, str, Column]] = []
        for column in column_kinds(catalogue):
            name = property_of(column)
            stored = catalogue.sellers if column == SELLER else catalogue.attributes[column]
            if name is not None and stored is not None:
                self._columns.append((column, name, stored))
        self._kinds = column_kinds(catalogue)
        self._ranks = _popularity_ranks(catalogue)

    def define(self, settings: CollectionSettings) -> dict[str, Any]:
        """The definition of the collection, which says in its description what it holds."""
        mark = CollectionMark.of(self._catalogue.bundle, self._catalogue.size)
        numbers = [LISTED_AT, RANK]
        texts: list[str] = []
        for column, name, _ in self._columns:
            (numbers if self._kinds[column] == "number" else texts).append(name)
        definition: dict[str, Any] = {
            "class": self.collection,
            "description": mark.model_dump_json(),
            "vectorizer": "none",
            "vectorIndexType": "hnsw",
            "vectorIndexConfig": {
                "distance": "dot",
                "ef": settings.ef,
                "flatSearchCutoff": settings.exact_below,
            },
            "replicationConfig": {
                "factor": settings.replicas,
                "asyncEnabled": settings.replicas > 1,
                "deletionStrategy": "TimeBasedResolution",
            },
            "invertedIndexConfig": {"stopwords": {"preset": "none"}},
            "properties": [
                {**_TEXT, "name": ITEM, "indexFilterable": False},
                *({**_TEXT, "name": name} for name in texts),
                *({**_NUMBER, "name": name} for name in numbers),
            ],
        }
        if settings.shards:
            definition["shardingConfig"] = {"desiredCount": settings.shards}
        return definition

    def of_rows(self, rows: Sequence[int]) -> list[Any]:
        """Objects of live items of the bundle."""
        catalogue = self._catalogue
        vectors = np.ascontiguousarray(catalogue.index.vectors[list(rows)], dtype="<f4")
        values = [(name, _reader(column)) for _, name, column in self._columns]
        built = []
        for row, vector in zip(rows, vectors, strict=True):
            object_ = self._new(catalogue.item_ids[row], vector.tobytes())
            fields = object_.properties.non_ref_properties.fields
            for name, read in values:
                _set(fields, name, read(row))
            _set(fields, LISTED_AT, float(catalogue.listed_at[row]) or None)
            if self._ranks is not None:
                _set(fields, RANK, float(self._ranks[row]))
            built.append(object_)
        return built

    def of_listings(self, fresh: DeltaIndex, positions: Sequence[int]) -> list[Any]:
        """Objects of listings newer than the bundle."""
        built = []
        for position in positions:
            listing = fresh.listings[position]
            vector = np.ascontiguousarray(listing.vector, dtype="<f4")
            object_ = self._new(listing.item_id, vector.tobytes())
            fields = object_.properties.non_ref_properties.fields
            for column, name, _ in self._columns:
                value = listing.attributes.get(column)
                _set(fields, name, _as_kind(value, self._kinds[column]))
            _set(fields, LISTED_AT, float(fresh.listed_at[position]))
            built.append(object_)
        return built

    def _new(self, item_id: str, vector: bytes) -> Any:
        object_ = messages.BatchObject(
            uuid=uuid_of(item_id), collection=self.collection, vector_bytes=vector
        )
        object_.properties.non_ref_properties.fields[ITEM].string_value = item_id
        return object_


_TEXT = {
    "dataType": ["text"],
    "tokenization": "field",
    "indexFilterable": True,
    "indexSearchable": False,
}
_NUMBER = {"dataType": ["number"], "indexFilterable": True, "indexRangeFilters": True}


def _set(fields: Any, name: str, value: str | float | None) -> None:
    """Set a property; one without a value is left out."""
    if isinstance(value, str):
        fields[name].string_value = stored_text(value)
    elif value is not None:
        fields[name].number_value = value


def _as_kind(value: object, kind: str) -> str | float | None:
    """An attribute of a listing, of the kind of its column, as the bundle's columns read it."""
    if value is None:
        return None
    if kind == "text":
        return value if isinstance(value, str) else str(value).lower()
    return float(value) if isinstance(value, int | float) else None


def _reader(column: Column) -> Callable[[int], str | float | None]:
    """What reads a value of a column by its row; None where it is missing."""
    if isinstance(column, Labels):
        codes, texts = column.codes, column.texts

        def read_text(row: int) -> str | None:
            code = int(codes[row])
            return None if code < 0 else texts[code]

        return read_text

    def read_number(row: int) -> float | None:
        value = column.value(row)
        return None if np.isnan(value) else value

    return read_number


def _popularity_ranks(catalogue: Catalogue) -> Any:
    """[N] places by rising popularity, from 0 to 1; None where vectors have no popularity part."""
    n, first = catalogue.n_live, catalogue.learned_size
    if first == catalogue.size or not n:
        return None
    ranks = np.empty(n, dtype=np.float64)
    ranks[np.argsort(catalogue.index.vectors[:, first], kind="stable")] = np.arange(n) / n
    return ranks
