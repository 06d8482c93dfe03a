"""The live stock: the bundle's live items, and what the stock feed says happened since.

What the stock is follows from the lines alone, in whatever order they come; see
``serving.feeds.stock``. Before the bundle's time only what takes a listing off counts, for
``feeds.late_hours``: the data may have learned of a sale too late, but they know what is listed.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit.columns import Column, Flags, Labels, Longs, Numbers
from serving.catalogue import Catalogue
from serving.counters import Counters
from serving.feeds.feed import Line
from serving.feeds.lines import FeedReader
from serving.feeds.settings import LATE_HOURS
from serving.feeds.stock import ListingState, StockChange
from serving.listings import Draft, ListingReader, tower_inputs
from serving.towers import Fallback, ModelServer, TowerFailure, TowerNames, checked_vectors

EMBED_ROWS = 256
EMBED_SECONDS = 10.0


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

    Args:
        catalogue: The bundle.
        listings: The listings.
        content: Content vectors by item id, also of listings that have been sold.

    Attributes:
        listings: [F] the listings, the first added first.
        vectors: [F, D].
        content: Content vectors by item id, for histories.
        number_of: Item numbers by item id.
        gone: [F] which of them were sold since; None when none was.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        listings: Iterable[Listing] = (),
        content: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        self.listings = tuple(listings)
        vectors = [listing.vector for listing in self.listings]
        self.vectors = np.stack(vectors) if vectors else np.empty((0, catalogue.size), np.float32)
        self.content = content or {}
        self.gone: Flags | None = None
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

    @property
    def n_live(self) -> int:
        """How many of them are on sale."""
        return len(self) - (0 if self.gone is None else int(np.count_nonzero(self.gone)))

    def not_live_at(self, times: Longs) -> Flags | None:
        """[F] which of them were sold since they were laid out, whatever the time."""
        return self.gone

    def remove(self, item_id: str) -> None:
        """Take a listing off, without laying out the others again."""
        gone = np.zeros(len(self), dtype=np.bool_) if self.gone is None else self.gone
        gone[self.positions(np.array([self.number_of[item_id]]))] = True
        self.gone = gone

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

    Args:
        catalogue: The bundle.
        reader: The stock feed; None where there is none.
        towers: Embeds listings.
        counters: Counts.
        late_hours: See ``LiveFeedSettings``.

    Attributes:
        gone: [N] which of the bundle's live items are not on sale any more as the bundle knows
            them; None when all are.
        fresh: The listings newer than the bundle.
        reader: The stock feed.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        reader: FeedReader[StockChange] | None,
        towers: ModelServer,
        counters: Counters,
        late_hours: float = LATE_HOURS,
    ) -> None:
        self._catalogue, self.reader, self._towers = catalogue, reader, towers
        self._counters = counters
        self._names = TowerNames.of(catalogue.bundle.manifest.embedding_version)
        self._as_of = catalogue.as_of.timestamp()
        self._since = self._as_of - timedelta(hours=late_hours).total_seconds()
        self._listing_reader = ListingReader(catalogue)
        self._states: dict[str, ListingState] = {}
        self._waiting: dict[str, Line] = {}
        self._listings: dict[str, Listing] = {}
        self._content: dict[str, NDArray[np.float32]] = {}
        self._numbers: dict[str, int] = {}
        self._counted = (0, 0)
        self._is_closed = False
        self._lock = threading.Lock()
        self.gone: Flags | None = None
        self.fresh = DeltaIndex(catalogue)

    def __len__(self) -> int:
        """How many items are on sale."""
        gone = 0 if self.gone is None else int(np.count_nonzero(self.gone))
        return self._catalogue.n_live - gone + self.fresh.n_live

    def catch_up(self) -> None:
        """Apply what the feed said since the last call.

        What was sold is gone at once. What was listed or changed waits for ``embed_waiting``.

        Raises:
            ServiceUnreachable: The feed does not answer.
        """
        if self.reader is None:
            return
        with self._lock:
            if self._is_closed:
                return
            try:
                self.reader.read(self._apply)
            finally:
                self._count()

    def embed_waiting(self) -> None:
        """Embed what was listed or changed, and put it on sale.

        When the item tower does not answer, it is tried again at the next call. Sales are applied
        meanwhile.
        """
        with self._lock:
            waiting = dict(self._waiting)
            drafts = self._draft(waiting)
        try:
            for start in range(0, len(drafts), EMBED_ROWS):
                self._embed(drafts[start : start + EMBED_ROWS], waiting)
        except TowerFailure as failure:
            self._counters.add("refit_stock_embedding_failures", reason=failure.reason.value)

    def close(self) -> None:
        """Close the feed; what is known stays."""
        if self.reader is not None:
            with self._lock:
                self._is_closed = True
                self.reader.feed.close()

    def _apply(self, change: StockChange, line: Line) -> None:
        if change.at.timestamp() < self._since:
            return
        attributes = self._listing_reader.pack_vector(change.attributes)
        state = self._states.setdefault(change.item_id, ListingState())
        if state.add(change, attributes, self._catalogue.features.spec.item_vector):
            self._settle(change.item_id, state, line)

    def _settle(self, item_id: str, state: ListingState, line: Line) -> None:
        """Make the stock agree with what is known of one listing."""
        row = self._live_row(item_id)
        if state.on_sale is False:
            self._remove(item_id)
        elif row is None:
            # One that was changed but never listed is not on sale as far as anybody knows.
            if state.on_sale and state.on_sale_at >= self._as_of:
                self._waiting[item_id] = line
        elif state.edited_at >= self._as_of:
            self._waiting[item_id] = line
        elif self.gone is not None:
            self.gone[row] = False

    def _remove(self, item_id: str) -> None:
        self._hide(item_id)
        self._waiting.pop(item_id, None)
        if self._listings.pop(item_id, None) is not None:
            self.fresh.remove(item_id)

    def _hide(self, item_id: str) -> None:
        row = self._live_row(item_id)
        if row is not None:
            if self.gone is None:
                self.gone = np.zeros(self._catalogue.n_live, dtype=np.bool_)
            self.gone[row] = True

    def _live_row(self, item_id: str) -> int | None:
        row = self._catalogue.row_of.get(item_id)
        return row if row is not None and row < self._catalogue.n_live else None

    def _number(self, item_id: str) -> int:
        """The item's number in the bundle; a new one, for good, where the bundle has none."""
        known = self._catalogue.number_of(item_id)
        if known is not None:
            return known
        return self._numbers.setdefault(item_id, self._catalogue.n_numbers + len(self._numbers))

    def _draft(self, waiting: Mapping[str, Line]) -> list[Draft]:
        """What the item tower has to embed; what it need not, or cannot, waits no longer."""
        drafts: list[Draft] = []
        kept: list[_Embedded] = []
        states = {item_id: self._states[item_id] for item_id in waiting}
        for item_id, draft in self._listing_reader.draft(states).items():
            if isinstance(draft, ValueError):
                self._refuse(item_id, waiting, str(draft))
            elif draft.row is not None and not self._listing_reader.has_features:
                # Without what else the tower reads, the bundle's own vectors are nearer the truth.
                vector = self._catalogue.index.vectors[draft.row]
                kept.append(_Embedded(draft, vector, self._catalogue.content[draft.row]))
            else:
                drafts.append(draft)
        self._list(kept, waiting)
        return drafts

    def _embed(self, drafts: list[Draft], waiting: Mapping[str, Line]) -> None:
        try:
            embedded = self._call_tower(drafts)
        except TowerFailure as failure:
            if failure.reason not in (Fallback.REFUSED, Fallback.BAD_ANSWER):
                raise
            # One listing that the tower cannot digest must not hold up the others.
            if len(drafts) == 1:
                with self._lock:
                    self._refuse(drafts[0].item_id, waiting, str(failure))
            else:
                self._embed(drafts[: len(drafts) // 2], waiting)
                self._embed(drafts[len(drafts) // 2 :], waiting)
            return
        with self._lock:
            self._list(embedded, waiting)

    def _call_tower(self, drafts: list[Draft]) -> list["_Embedded"]:
        inputs = tower_inputs(self._catalogue.features, drafts)
        outputs = self._towers.predict(self._names.item, inputs, EMBED_SECONDS)
        width = self._catalogue.content.shape[1]
        vectors = checked_vectors(outputs, "embedding", len(drafts), self._catalogue.size)
        content = checked_vectors(outputs, "content", len(drafts), width)
        return [_Embedded(*each) for each in zip(drafts, vectors, content, strict=True)]

    def _list(self, embedded: list["_Embedded"], waiting: Mapping[str, Line]) -> None:
        """Put listings on sale, unless something else was said of them meanwhile."""
        current = [one for one in embedded if self._waits(one.draft.item_id, waiting)]
        for one in current:
            item_id = one.draft.item_id
            number = self._number(item_id)
            self._listings[item_id] = Listing(
                item_id, number, one.draft.attributes, one.vector, one.content
            )
            self._content[item_id] = one.content
            del self._waiting[item_id]
            # A changed listing is hidden in the bundle first: it may be missed, never shown twice.
            self._hide(item_id)
        if current:
            self.fresh = DeltaIndex(self._catalogue, self._listings.values(), self._content)
            self._count()

    def _refuse(self, item_id: str, waiting: Mapping[str, Line], reason: str) -> None:
        if self._waits(item_id, waiting):
            del self._waiting[item_id]
            if self.reader is not None:
                self.reader.dead_letters.keep(waiting[item_id], reason)

    def _waits(self, item_id: str, waiting: Mapping[str, Line]) -> bool:
        return self._waiting.get(item_id) is waiting[item_id]

    def _count(self) -> None:
        counted = len(self._listings), len(self._waiting)
        if counted != self._counted:
            self._counted = counted
            self._counters.set("refit_stock_fresh_listings", counted[0])
            self._counters.set("refit_stock_waiting_listings", counted[1])


@dataclass(frozen=True)
class _Embedded:
    """A listing with its vectors."""

    draft: Draft
    vector: NDArray[np.float32]
    content: NDArray[np.float32]
