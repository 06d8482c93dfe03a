"""The stock feed: what was sold, withdrawn or newly listed since the bundle's index was built.

The feed is a folder of append-only JSON lines files (``*.jsonl``), one change a line::

    {"item_id": "m1", "change": "delisted", "at": "2026-05-01T10:00:00Z"}
    {"item_id": "m2", "change": "listed", "at": "2026-05-01T10:00:01Z", "seller_id": "u7",
     "brand": "Acne", "size": "M", "price": 80}

A listing carries the item columns of the feature spec, and any attribute to filter by. Listing an
item again changes it. What is older than the bundle's index is skipped.
"""

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from refit.columns import Column, Flags, Labels, Longs, Numbers
from refit.features import FeaturesManifest, Inputs, item_inputs
from refit.progress import log_message
from serving.catalogue import Catalogue
from serving.counters import Counters
from serving.request import Id, Time
from serving.towers import Fallback, TowerClient, TowerFailure, TowerNames, checked_vectors

MAX_LINE_BYTES = 1 << 20
EMBED_ROWS = 256
EMBED_SECONDS = 10.0


class StockChange(BaseModel):
    """One line of the feed; ``listed`` carries the item's attributes as further fields."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    item_id: Id
    change: Literal["delisted", "listed"]
    at: Time

    @property
    def attributes(self) -> dict[str, Any]:
        """The fields beyond the three that every change has."""
        return dict(self.model_extra or {})


class DeadLetters:
    """Lines that could not be used: kept in a file with the reason, each once, and counted."""

    def __init__(self, path: Path, counters: Counters) -> None:
        self._path, self._counters = path, counters
        self._seen: set[tuple[str, int]] = set()

    def keep(self, source: Path, offset: int, line: bytes, reason: str) -> None:
        """Keep one bad line, named by its file and byte offset."""
        if (source.name, offset) in self._seen:
            return
        self._seen.add((source.name, offset))
        self._counters.add("refit_stock_dead_letters")
        text = line[:2000].decode(errors="replace")
        entry = {"file": source.name, "offset": offset, "reason": reason, "line": text}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


@dataclass
class StockFeed:
    """A reader of the feed's folder that remembers how far it has read each file."""

    folder: Path
    dead_letters: DeadLetters
    _offsets: dict[str, int] = field(default_factory=dict)

    def read(self) -> Iterator[tuple[StockChange, Path, int]]:
        """The changes since the last call, file by file in the order of their names.

        Yields:
            Each change, with the file and byte offset it came from. A last line without its end
            is still being written and is left for the next call.
        """
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                yield from self._read(path)
            except OSError as error:
                log_message(f"stock feed: {path} cannot be read: {error}")

    def _read(self, path: Path) -> Iterator[tuple[StockChange, Path, int]]:
        offset = self._offsets.get(path.name, 0)
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < offset:
                log_message(f"stock feed: {path} became shorter; it is read from its start")
                offset = 0
            file.seek(offset)
            while line := file.readline(MAX_LINE_BYTES):
                whole = line.endswith(b"\n")
                if not whole and len(line) < MAX_LINE_BYTES:
                    break
                change = self._parse(line, path, offset, whole)
                offset += len(line)
                self._offsets[path.name] = offset
                if change:
                    yield change, path, offset - len(line)

    def _parse(self, line: bytes, path: Path, offset: int, whole: bool) -> StockChange | None:
        if not line.strip():
            return None
        try:
            if not whole:
                raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
            return StockChange.model_validate(json.loads(line))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            self.dead_letters.keep(path, offset, line, f"{where}: {fault['msg']}")
        except (ValueError, RecursionError) as error:
            self.dead_letters.keep(path, offset, line, f"not JSON: {error}")
        return None


@dataclass(frozen=True)
class Listing:
    """A listing newer than the bundle."""

    item_id: str
    number: int
    attributes: Mapping[str, Any]
    vector: NDArray[np.float32]
    content: NDArray[np.float32]


class DeltaIndex:
    """The F listings newer than the bundle, laid out for an exact search.

    Attributes:
        listings: [F] the listings, the first added first.
        vectors: [F, D].
        content: Content vectors by item id, for histories.
        number_of: Item numbers by item id.
    """

    def __init__(self, catalogue: Catalogue, listings: Iterable[Listing] = ()) -> None:
        self.listings = tuple(listings)
        vectors = [listing.vector for listing in self.listings]
        self.vectors = np.stack(vectors) if vectors else np.empty((0, catalogue.size), np.float32)
        self.content = {listing.item_id: listing.content for listing in self.listings}
        self.number_of = {listing.item_id: listing.number for listing in self.listings}
        numbers = np.array([listing.number for listing in self.listings], dtype=np.int64)
        self._order = np.argsort(numbers)
        self._numbers = numbers[self._order]
        self._catalogue = catalogue
        self._columns: dict[str, Column] = {}

    def __len__(self) -> int:
        return len(self.listings)

    @cached_property
    def sellers(self) -> Labels:
        """[F] who sells each listing."""
        return Labels.of(self._values("seller_id", pa.string()))

    @cached_property
    def listed_at(self) -> Longs:
        """[F] when each was listed, microseconds since 1970.

        At its ``listed_at``, else when the bundle says; one that the bundle does not know, when the
        index was built, the earliest possible time.
        """
        return np.array([self._listed_at(one) for one in self.listings], dtype=np.int64)

    def _listed_at(self, listing: Listing) -> int:
        try:
            told = datetime.fromisoformat(str(listing.attributes.get("listed_at")))
        except ValueError:
            row = self._catalogue.row_of.get(listing.item_id, self._catalogue.n_live)
            if row < self._catalogue.n_live:
                return int(self._catalogue.listed_at[row])
            told = self._catalogue.as_of
        told = told if told.tzinfo else told.replace(tzinfo=self._catalogue.as_of.tzinfo)
        return int(told.timestamp() * 1e6)

    def score(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """[F] dot products with a query vector [D]."""
        return np.asarray(self.vectors @ query)

    def not_live_at(self, times: Longs) -> None:
        """None: a listing that was sold is not in the delta index any more."""

    def positions(self, items: Longs) -> Longs:
        """[P] positions of item numbers, -1 where an item is none of these listings."""
        if not len(self):
            return np.full(len(items), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._numbers, items), len(self) - 1)
        return np.where(self._numbers[place] == items, self._order[place], -1)

    def column(self, name: str) -> Column:
        """[F] an attribute, of the same kind as in the bundle; read when it is first needed."""
        if name not in self._columns:
            is_number = isinstance(self._catalogue.attributes[name], Numbers)
            values = self._values(name, pa.float64() if is_number else pa.string())
            self._columns[name] = Numbers.of(values) if is_number else Labels.of(values)
        return self._columns[name]

    def _values(self, name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([listing.attributes.get(name) for listing in self.listings], kind)


class LiveStock:
    """Which items are on sale now: the bundle's live items and what the feed said since.

    Attributes:
        gone: [N] which of the bundle's live items are not on sale any more as the bundle knows
            them; None when all are.
        fresh: The listings newer than the bundle.
    """

    def __init__(
        self, catalogue: Catalogue, feed: StockFeed | None, towers: TowerClient, counters: Counters
    ) -> None:
        self._catalogue, self._feed, self._towers = catalogue, feed, towers
        self._counters = counters
        self._names = TowerNames.of(catalogue.bundle.manifest.embedding_version)
        self._latest: dict[str, datetime] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._listings: dict[str, Listing] = {}
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()
        self.gone: Flags | None = None
        self.fresh = DeltaIndex(catalogue)

    def __len__(self) -> int:
        """How many items are on sale."""
        gone = 0 if self.gone is None else int(np.count_nonzero(self.gone))
        return self._catalogue.n_live - gone + len(self.fresh)

    def catch_up(self) -> None:
        """Apply what the feed said since the last call.

        What was delisted is gone at once. What was listed waits for the item tower: when that
        does not answer, it is tried again at the next call.
        """
        if self._feed is None:
            return
        with self._lock:
            before = len(self._listings), len(self._waiting)
            removed = False
            for change, path, offset in self._feed.read():
                if not self._is_news(change):
                    continue
                self._latest[change.item_id] = change.at
                if change.change == "listed":
                    self._waiting[change.item_id] = _Waiting(change, path, offset)
                else:
                    removed |= self._remove(change.item_id)
            if removed:
                self._renew_fresh()
            if self._waiting:
                self._embed_waiting()
            if before != (len(self._listings), len(self._waiting)):
                self._counters.set("refit_stock_fresh_listings", len(self._listings))
                self._counters.set("refit_stock_waiting_listings", len(self._waiting))

    def _is_news(self, change: StockChange) -> bool:
        latest = self._latest.get(change.item_id, self._catalogue.as_of)
        return change.at >= latest

    def _remove(self, item_id: str) -> bool:
        self._hide(item_id)
        self._waiting.pop(item_id, None)
        return self._listings.pop(item_id, None) is not None

    def _hide(self, item_id: str) -> None:
        row = self._catalogue.row_of.get(item_id)
        if row is not None and row < self._catalogue.n_live:
            if self.gone is None:
                self.gone = np.zeros(self._catalogue.n_live, dtype=np.bool_)
            self.gone[row] = True

    def _renew_fresh(self) -> None:
        self.fresh = DeltaIndex(self._catalogue, self._listings.values())

    def _number(self, item_id: str) -> int:
        """The item's number in the bundle; a new one, for good, where the bundle has none."""
        known = self._catalogue.number_of(item_id)
        if known is not None:
            return known
        return self._numbers.setdefault(item_id, self._catalogue.n_numbers + len(self._numbers))

    def _embed_waiting(self) -> None:
        usable: list[_Waiting] = []
        for waiting in list(self._waiting.values()):
            try:
                columns = _columns(self._catalogue, waiting.change)
            except ValueError as error:
                self._dead_letter(waiting, str(error))
            else:
                usable.append(replace(waiting, columns=columns))
        try:
            for start in range(0, len(usable), EMBED_ROWS):
                self._embed(usable[start : start + EMBED_ROWS])
        except TowerFailure as failure:
            self._counters.add("refit_stock_embedding_failures", reason=failure.reason.value)
        # A changed listing is hidden in the bundle first: it may be missed, never shown twice.
        for item_id in self._listings:
            self._hide(item_id)
        self._renew_fresh()

    def _embed(self, waiting: list["_Waiting"]) -> None:
        try:
            vectors, content = self._call_tower(waiting)
        except TowerFailure as failure:
            if failure.reason not in (Fallback.REFUSED, Fallback.BAD_ANSWER):
                raise
            # One listing that the tower cannot digest must not hold up the others.
            if len(waiting) == 1:
                self._dead_letter(waiting[0], str(failure))
            else:
                self._embed(waiting[: len(waiting) // 2])
                self._embed(waiting[len(waiting) // 2 :])
            return
        for one, vector, content_vector in zip(waiting, vectors, content, strict=True):
            change = one.change
            self._listings[change.item_id] = Listing(
                change.item_id,
                self._number(change.item_id),
                change.attributes,
                vector,
                content_vector,
            )
            del self._waiting[change.item_id]

    def _call_tower(
        self, waiting: list["_Waiting"]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        inputs = _tower_inputs(self._catalogue.features, [one.columns for one in waiting])
        outputs = self._towers.predict(self._names.item, inputs, EMBED_SECONDS)
        width = self._catalogue.content.shape[1]
        return (
            checked_vectors(outputs, "embedding", len(waiting), self._catalogue.size),
            checked_vectors(outputs, "content", len(waiting), width),
        )

    def _dead_letter(self, waiting: "_Waiting", reason: str) -> None:
        if self._feed:
            line = waiting.change.model_dump_json().encode()
            self._feed.dead_letters.keep(waiting.path, waiting.offset, line, reason)
        del self._waiting[waiting.change.item_id]


@dataclass(frozen=True)
class _Waiting:
    """A listing that the item tower has yet to see, and the line it came from."""

    change: StockChange
    path: Path
    offset: int
    columns: dict[str, Any] = field(default_factory=dict)


def _columns(catalogue: Catalogue, change: StockChange) -> dict[str, Any]:
    """The item tower's columns of one listing.

    Raises:
        ValueError: A value is of the wrong type.
    """
    spec = catalogue.features.spec
    values = change.attributes
    columns: dict[str, Any] = {"item_id": change.item_id}
    numeric = [name for name, kind in catalogue.attributes.items() if isinstance(kind, Numbers)]
    texts = [name for name, kind in catalogue.attributes.items() if isinstance(kind, Labels)]
    for name in {*numeric, *spec.item_numeric}:
        if not _is_number(values.get(name)):
            raise ValueError(f"{name} must be a finite number")
    for name in {"seller_id", *texts, *spec.item_categorical, *spec.item_text}:
        if not isinstance(values.get(name), str | None):
            raise ValueError(f"{name} must be text")
    for name in (*spec.item_numeric, *spec.item_categorical, *spec.item_text):
        columns[name] = values.get(name)
    if spec.item_vector:
        columns[spec.item_vector] = _vector(
            values.get(spec.item_vector), catalogue.features.vector_size, spec.item_vector
        )
    listed_at = values.get("listed_at")
    columns["age_days"] = _age_days(listed_at, change.at)
    return columns


def _tower_inputs(features: FeaturesManifest, rows: list[dict[str, Any]]) -> Inputs:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    ages = np.array(columns.pop("age_days"), dtype=np.float32)
    # Nobody has met a new listing yet.
    popularity = np.zeros((len(rows), features.popularity_size), dtype=np.float32)
    return item_inputs(features.spec, columns, ages, popularity)


def _age_days(listed_at: Any, now: datetime) -> float:
    if listed_at is None:
        return 0.0
    try:
        listed = datetime.fromisoformat(listed_at)
        listed = listed if listed.tzinfo else listed.replace(tzinfo=now.tzinfo)
        return max((now - listed).total_seconds() / 86_400, 0.0)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("listed_at must be an ISO 8601 time") from None


def _vector(value: Any, size: int, name: str) -> list[float]:
    if value is None:
        return [0.0] * size
    if not isinstance(value, list) or len(value) != size or not all(map(_is_number, value)):
        raise ValueError(f"{name} must be {size} finite numbers")
    if None in value:
        raise ValueError(f"{name} must be {size} finite numbers")
    return value


def _is_number(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= float(np.finfo(np.float32).max)
