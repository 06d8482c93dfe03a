"""The live stock: the bundle's live items, and what the stock feed says happened since.

What the stock is follows from the lines alone, in whatever order they come; see
``serving.feeds.stock``. Before the bundle's time only what takes a listing off counts, for
``feeds.late_hours``: the data may have learned of a sale too late, but they know what is listed.

**What is kept.** Of what is on sale, and of what the bundle has as live, everything. A newer
listing that has ended is kept as well: it may be listed again, its lines may come late, and people
have seen it. So are lines about listings that nobody listed. Of these two kinds the
``feeds.ended_listings`` that were heard of last are kept, so that memory is bounded. A late line
could then put on sale again what was sold and forgotten. So a line from before the end of any that
was forgotten is set aside, unless its listing is known.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from refit.columns import Flags
from serving.catalogue import Catalogue
from serving.counters import Counters
from serving.feeds.feed import Line
from serving.feeds.lines import FeedReader
from serving.feeds.settings import ENDED_LISTINGS, LATE_HOURS
from serving.feeds.stock import ENDS, ListingState, StockChange
from serving.fresh import FreshListings, Listing
from serving.listings import Draft, ListingReader, tower_inputs
from serving.towers import Fallback, ModelServer, TowerFailure, TowerNames, checked_vectors

EMBED_ROWS = 256
EMBED_SECONDS = 10.0


class LiveStock:
    """Which items are on sale now: the bundle's live items and what the feed said since.

    Args:
        catalogue: The bundle.
        reader: The stock feed; None where there is none.
        towers: Embeds listings.
        counters: Counts.
        late_hours, ended_listings: See ``LiveFeedSettings``.

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
        ended_listings: int = ENDED_LISTINGS,
    ) -> None:
        self._catalogue, self.reader, self._towers = catalogue, reader, towers
        self._counters = counters
        self._names = TowerNames.of(catalogue.bundle.manifest.embedding_version)
        self._as_of = catalogue.as_of.timestamp()
        self._since = self._as_of - timedelta(hours=late_hours).total_seconds()
        self._listing_reader = ListingReader(catalogue)
        self._states: dict[str, ListingState] = {}
        self._waiting: dict[str, Line] = {}
        self._listings = FreshListings(catalogue)
        self._content: dict[str, NDArray[np.float32]] = {}
        self._numbers: dict[str, int] = {}
        self._next_number = catalogue.n_numbers
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._most_ended = ended_listings
        self._forgotten_until = -1.0
        self._counted = (0, 0)
        self._is_closed = False
        self._lock = threading.Lock()
        self.gone: Flags | None = None
        self.fresh = self._listings.view(self._content)

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
        at, item_id = change.at.timestamp(), change.item_id
        if at < self._since:
            return
        attributes = self._listing_reader.read(change)
        state, row = self._states.get(item_id), self._live_row(item_id)
        if state is None:
            if row is None and at <= self._forgotten_until:
                if change.change in ENDS:
                    return
                raise ValueError("from before the end of listings that were forgotten")
            state = self._states[item_id] = ListingState()
        if row is not None and at < self._as_of:
            news = state.mark(change)  # how it looked then, the bundle knows
        else:
            news = state.add(change, attributes, self._catalogue.features.spec.item_vector)
        if news:
            self._settle(item_id, state, line)
            self._bound(item_id, state)

    def _settle(self, item_id: str, state: ListingState, line: Line) -> None:
        """Make the stock agree with what is known of one listing."""
        row = self._live_row(item_id)
        if not self._is_on_sale(item_id, state):
            self._remove(item_id, state, line)
        elif row is None or state.edited_at >= self._as_of:
            self._waiting[item_id] = line
        elif self.gone is not None:
            self.gone[row] = False

    def _is_on_sale(self, item_id: str, state: ListingState) -> bool:
        """Whether a listing is on sale; one that is newer than the bundle has to be listed."""
        if self._live_row(item_id) is not None:
            return state.on_sale is not False
        return bool(state.on_sale) and state.on_sale_at >= self._as_of

    def _remove(self, item_id: str, state: ListingState, line: Line) -> None:
        self._hide(item_id)
        is_known = self._listings.remove(item_id)
        if item_id in self._catalogue.row_of:
            self._waiting.pop(item_id, None)
        elif state.whole_at >= 0 and (item_id in self._waiting or not is_known):
            self._waiting[item_id] = line  # people may have seen it: histories need its content

    def _bound(self, item_id: str, state: ListingState) -> None:
        """Forget the oldest of what is neither on sale nor live in the bundle, past the bound."""
        self._ended.pop(item_id, None)
        if self._live_row(item_id) is not None or self._is_on_sale(item_id, state):
            return
        self._ended[item_id] = None
        if len(self._ended) > self._most_ended:
            oldest, _ = self._ended.popitem(last=False)
            forgotten = self._states.pop(oldest)
            for known in (self._waiting, self._content, self._numbers):
                known.pop(oldest, None)
            if forgotten.on_sale is False:
                self._forgotten_until = max(self._forgotten_until, forgotten.on_sale_at)
            self._counters.add("refit_stock_forgotten_listings")

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
        if item_id not in self._numbers:
            self._numbers[item_id] = self._next_number
            self._next_number += 1
        return self._numbers[item_id]

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
        except (TowerFailure, TypeError, ValueError) as failure:
            its_own = (Fallback.REFUSED, Fallback.BAD_ANSWER)
            if isinstance(failure, TowerFailure) and failure.reason not in its_own:
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
        listed = []
        for one in embedded:
            item_id = one.draft.item_id
            if not self._waits(item_id, waiting):
                continue
            self._content[item_id] = one.content
            del self._waiting[item_id]
            if self._is_on_sale(item_id, self._states[item_id]):
                # A changed listing is hidden in the bundle first: it may be missed, never shown
                # twice.
                self._hide(item_id)
                listed.append(one)
        if listed:
            self._listings = self._listings.compact()
            self._listings.add([self._listing(one) for one in listed])
            self.fresh = self._listings.view(self._content)
            self._count()

    def _listing(self, embedded: "_Embedded") -> Listing:
        draft = embedded.draft
        number = self._number(draft.item_id)
        return Listing(draft.item_id, number, draft.attributes, embedded.vector, embedded.content)

    def _refuse(self, item_id: str, waiting: Mapping[str, Line], reason: str) -> None:
        if self._waits(item_id, waiting):
            del self._waiting[item_id]
            if self.reader is not None and self._is_on_sale(item_id, self._states[item_id]):
                self.reader.dead_letters.keep(waiting[item_id], reason)

    def _waits(self, item_id: str, waiting: Mapping[str, Line]) -> bool:
        return self._waiting.get(item_id) is waiting[item_id]

    def _count(self) -> None:
        counted = self._listings.n_live, len(self._waiting)
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
