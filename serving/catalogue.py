"""A bundle in memory: item attributes and vectors, user histories and popular items."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refit.bundle import Bundle
from refit.columns import Column, Flags, Longs
from refit.contract import EventType
from refit.eligibility import Rules
from refit.errors import RefitError
from refit.features import FeaturesManifest, Inputs, bin_of, query_inputs
from refit.files import read_json
from refit.index import CONTENT_FILE, POPULARITY_FILE, ItemIndex
from refit.model import MODEL_FILE
from refit.served import ServedTables, read_served
from refit.texts import TextList, Texts
from serving.query import History
from serving.recent import NOTHING, RecentEvents
from serving.request import PastEvent, Request, RequestError

SCORED_ROWS = 65_536
"""So many content vectors are scored at once: all of them may not fit into memory."""

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]


class Catalogue:
    """The contents of a bundle, organised for answering one request at a time; immutable.

    Rows 0 to N-1 are the live items, in the order of their vectors; rows N to M-1 are items that
    are no longer live but occur in a history.

    Args:
        bundle: The bundle.
        open_index: Opens its index.

    Attributes:
        n_live: N.
        size: D, the length of the vectors.
        content: [M, C] content vectors, which represent the items in histories.
        listed_at: [N] when each live item was listed, microseconds since 1970; 0 where unknown.
    """

    def __init__(
        self, bundle: Bundle, open_index: Callable[[Path], ItemIndex] = ItemIndex.read
    ) -> None:
        self.bundle = bundle
        self.features = FeaturesManifest.read(bundle.path)
        self.index = open_index(bundle.index)
        self.n_live, self.size = self.index.vectors.shape
        self.content = np.asarray(np.load(bundle.index / CONTENT_FILE, mmap_mode="r"))
        served = read_served(bundle.index, self.n_live)
        self._check(served)
        self._ids: Texts = served.ids
        self.row_of: Texts = served.ids.first(served.n_items)
        self.item_ids: TextList = self.row_of.texts
        self.attributes: dict[str, Column] = served.attributes
        self._all_sellers, self.sellers = served.all_sellers, served.sellers
        self.listed_at: Longs = served.listed_at
        self._by_listing = served.by_listing
        self._least_popular: dict[float, Flags] = {}
        self.rules = Rules.load(self.features.market)
        self.rules.check_columns("item", self.attributes)
        self.histories = Histories(served)
        spec = self.features.spec
        self._context_names = (*spec.context_categorical, *spec.context_numeric)
        self._user_names = (*spec.user_categorical, *spec.user_numeric)
        self.purchases, self.hides = served.purchases, served.hides
        self.popularity = Popularity(bundle.index / POPULARITY_FILE, self.n_live)

    @property
    def as_of(self) -> datetime:
        """The time at which the items of the index are live."""
        return self.bundle.manifest.as_of

    def check(self, request: Request) -> None:
        """Check the types and names of a request against the columns of this bundle.

        Raises:
            RequestError: A context value is of the wrong type, or an attribute is unknown.
        """
        spec = self.features.spec
        for names, kind, word in (
            (spec.context_categorical, str, "text"),
            (spec.context_numeric, (int, float), "a number"),
        ):
            for name in names:
                value = request.context.get(name)
                if value is not None and not isinstance(value, kind):
                    raise RequestError(f"context.{name}: must be {word}")
        for name, wanted in request.require.items():
            if name not in self.attributes:
                known = ", ".join(sorted(self.attributes))
                raise RequestError(f"require: unknown attribute {name!r}; known ones: {known}")
            if fault := self.attributes[name].find_fault(wanted):
                raise RequestError(f"require.{name}: {fault}")

    @property
    def n_numbers(self) -> int:
        """K, the number of items that the bundle knows; their numbers are 0 to K-1."""
        return len(self._ids)

    def number_of(self, item_id: str) -> int | None:
        """The number of an item, live or not; None if the bundle does not know it."""
        return self._ids.find(item_id)

    def read_history(
        self,
        request: Request,
        now: datetime,
        fresh_content: Mapping[str, NDArray[np.float32]],
        recent: RecentEvents = NOTHING,
        reads_running_visit: bool = False,
    ) -> History:
        """The events that the query tower reads for a request.

        Args:
            request: Its history, if it has one, replaces what is known; unknown items are skipped.
                The events of the running visit are left out, as in training, unless
                ``spec.history_within_visit`` is set.
            now: The time of the request.
            fresh_content: Content vectors of listings newer than the bundle, by item id.
            recent: What the person did since the stored history ended.
            reads_running_visit: Whether the running visit is read in any case.
        """
        spec, running = self.features.spec, 0
        history = (
            self._known(self.histories.row_of(request.user_id), recent, fresh_content)
            if request.history is None
            else self._given(request.history, fresh_content)
        )
        if not spec.history_within_visit and not reads_running_visit:
            running = count_running_visit(history.times, now, spec.visit_gap_minutes)
        return history.part(running, running + spec.history_length)

    def query_inputs(self, request: Request, now: datetime, history: History) -> Inputs:
        """Query tower inputs of one request, B = 1.

        Args:
            request: The request.
            now: Its time, from which the age of an event is computed.
            history: What is read; see ``read_history``.
        """
        spec, length = self.features.spec, self.features.spec.history_length
        user, kept = self.histories.row_of(request.user_id), len(history)
        content = np.zeros((1, length, self.content.shape[1]), dtype=np.float32)
        ages = np.zeros((1, length), dtype=np.float32)
        if kept:
            content[0, :kept] = history.content
            ages[0, :kept] = np.maximum(now.timestamp() - history.times, 0) / 86_400
        padded_types = [[*history.types, *[""] * (length - kept)]]
        given, names = request.context, self._context_names
        contexts = {name: [given.get(name)] for name in names}
        users = {name: [self.histories.value(user, name)] for name in self._user_names}
        return query_inputs(spec, contexts, users, content, padded_types, ages)

    def search(
        self, query: NDArray[np.float32], eligible: Flags | None, k: int
    ) -> tuple[Rows, Scores]:
        """Find the k best eligible items, best first; fewer only if fewer are eligible.

        Args:
            query: [D] the query tower's vector.
            eligible: [N] whether each item is eligible; None if all are. The mask applies before
                the top k are taken.
            k: Number of items.
        """
        return self.index.find(query, k, eligible)

    @cached_property
    def learned_size(self) -> int:
        """How many of the D entries of a vector are its learned part; the rest are popularity."""
        learned: int | None = read_json(self.bundle.path / MODEL_FILE).get("learned_size")
        if learned is not None:
            return learned
        counted = 1 + sum(len(values) for values in self.features.popularity_values.values())
        return self.size - counted if counted < self.size else self.size

    def listed_since(self, time: int) -> Rows:
        """Rows of the live items that were listed after a time, in microseconds since 1970."""
        order = self._by_listing
        first = bisect_right(order, time, key=self.listed_at.__getitem__)
        return order[first:].astype(np.int64)

    def least_popular(self, share: float) -> Flags:
        """[N] the given share of the live items: those that were least popular, all else equal.

        By the first entry of the popularity part of their vectors, as of the index's build.
        """
        if share not in self._least_popular:
            flags = np.zeros(self.n_live, dtype=np.bool_)
            flags[self._by_popularity[: round(share * self.n_live)]] = True
            self._least_popular[share] = flags
        return self._least_popular[share]

    @cached_property
    def _by_popularity(self) -> Rows:
        """[N] rows by rising popularity; none where the vectors have no popularity part."""
        if self.learned_size == self.size:
            return np.empty(0, dtype=np.int64)
        order = np.argsort(self.index.vectors[:, self.learned_size], kind="stable")
        return order.astype(np.int32)

    def likeness(self, content: NDArray[np.float32]) -> Scores:
        """[N] cosine of each live item's content vector to one of length 1."""
        parts = (self.content[i : min(i + SCORED_ROWS, self.n_live)] for i in self._blocks())
        return np.concatenate([to_unit(part) @ content for part in parts])

    def _blocks(self) -> range:
        return range(0, max(self.n_live, 1), SCORED_ROWS)

    def past_events(self, request: Request, recent: RecentEvents = NOTHING) -> list[PastEvent]:
        """A person's events, the latest first, without hides.

        They are the request's own history if it has one, else what is stored and what is recent.
        """
        if request.history is not None:
            latest = sorted(request.history, key=lambda event: event.event_time, reverse=True)
            return [event for event in latest if event.event_type is not EventType.HIDE]
        stored = self.histories.events(request.user_id)
        ended = stored[0][2].timestamp() if stored else -np.inf
        told = zip(recent.item_ids, recent.types, recent.times, strict=True)
        events = [(i, k, datetime.fromtimestamp(at, UTC)) for i, k, at in told if at > ended]
        events += [(self.item_ids[row], kind, time) for row, kind, time in stored]
        return [
            PastEvent.model_construct(item_id=i, event_type=EventType(kind), event_time=time)
            for i, kind, time in events
        ]

    def bought_by(self, user_id: str | None) -> list[str]:
        """Ids of what a person bought, of those items of which the bundle has more than the id."""
        bought = self.purchases.of_user(self.histories.row_of(user_id)).item
        return [self.item_ids[number] for number in bought.tolist() if number < len(self.item_ids)]

    def seller_of(self, item_id: str) -> str | None:
        """The seller of an item of which the bundle has the attributes; None where unknown."""
        row = self.row_of.get(item_id)
        if row is None or self._all_sellers is None:
            return None
        code = int(self._all_sellers.codes[row])
        return None if code < 0 else self._all_sellers.texts[code]

    def popularity_context(self, context: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The (column, value) pairs of a context by which popularity may be counted."""
        spec = self.features.spec
        pairs = []
        for column in spec.popularity_by:
            value = context.get(column)
            if value is not None and column in spec.popularity_bins:
                number = np.array([value], dtype=np.float32)
                value = bin_of(number, spec.popularity_bins[column])[0]
            if value is not None:
                pairs.append((column, str(value)))
        return pairs

    def _known(
        self,
        user: int,
        recent: RecentEvents,
        fresh_content: Mapping[str, NDArray[np.float32]],
    ) -> History:
        """The stored history of a user, and the recent events that are later than all of it."""
        rows, types, times = self.histories.latest(user, self.features.spec.history_length)
        numbers = rows.tolist()
        item_ids = [self.item_ids[row] for row in numbers]
        stored = History(item_ids, numbers, self.content[rows], types, times)
        if not len(recent.times):
            return stored
        ended = times[0] if len(times) else -np.inf
        later: list[tuple[str, int | None, NDArray[np.float32], str, float]] = []
        for item_id, kind, time in zip(recent.item_ids, recent.types, recent.times, strict=True):
            if time > ended:
                row = self.row_of.find(item_id)
                vector = self._content_of(item_id, row, fresh_content)
                if vector is not None:
                    later.append((item_id, row, vector, kind, time))
        return History(
            [*(item_id for item_id, _, _, _, _ in later), *stored.item_ids],
            [*(row for _, row, _, _, _ in later), *stored.rows],
            [*(vector for _, _, vector, _, _ in later), *stored.content],
            [*(kind for _, _, _, kind, _ in later), *types],
            np.concatenate([[time for _, _, _, _, time in later], times]),
        )

    def _content_of(
        self, item_id: str, row: int | None, fresh_content: Mapping[str, NDArray[np.float32]]
    ) -> NDArray[np.float32] | None:
        return self.content[row] if row is not None else fresh_content.get(item_id)

    def _given(
        self, history: Sequence[PastEvent], fresh_content: Mapping[str, NDArray[np.float32]]
    ) -> History:
        events = []
        for event in sorted(history, key=lambda event: event.event_time, reverse=True):
            row = self.row_of.find(event.item_id)
            vector = self._content_of(event.item_id, row, fresh_content)
            if vector is not None and event.event_type is not EventType.HIDE:
                events.append((event, row, vector))
        return History(
            [event.item_id for event, _, _ in events],
            [row for _, row, _ in events],
            [vector for _, _, vector in events],
            [event.event_type.value for event, _, _ in events],
            np.array([event.event_time.timestamp() for event, _, _ in events], dtype=np.float64),
        )

    def _check(self, served: ServedTables) -> None:
        """Refuse an index whose parts disagree, before it answers any request."""
        if not self.n_live <= served.n_items == len(self.content):
            raise RefitError(
                f"{self.bundle.index} holds {self.n_live} vectors, {served.n_items} items and "
                f"{len(self.content)} content vectors, which do not match; "
                "build the index again"
            )


class Histories:
    """The events of every known user, latest first, and the user columns."""

    def __init__(self, served: ServedTables) -> None:
        self._row_of = served.users
        self._readers = {name: _reader(column) for name, column in served.user_columns.items()}
        self._events = served.events
        self._kinds = served.events.names

    def user(self, user_id: str | None) -> dict[str, Any]:
        """The columns of a user; empty for an unknown user."""
        row = self.row_of(user_id)
        if row < 0:
            return {}
        columns = {name: read(row) for name, read in self._readers.items()}
        return {"user_id": user_id, **columns}

    def value(self, row: int, name: str) -> Any:
        """One column of a user's row; None where there is no such row or column."""
        if row < 0:
            return None
        if name == "user_id":
            return self._row_of.texts[row]
        read = self._readers.get(name)
        return None if read is None else read(row)

    def __len__(self) -> int:
        return len(self._row_of)

    def latest(
        self, row: int, limit: int
    ) -> tuple[NDArray[np.int64], list[str], NDArray[np.float64]]:
        """Rows of the items, event types and times (Unix seconds) of a row's latest events."""
        part, events = self._part(row), self._events
        part = slice(part.start, min(part.stop, part.start + limit))
        types = [self._kinds[kind] for kind in events.kinds[part].tolist()]
        return events.items[part].astype(np.int64), types, events.times[part] / 1e6

    def events(self, user_id: str | None) -> list[tuple[int, str, datetime]]:
        """Row of the item, type and time of each of a user's events, the latest first."""
        part, events = self._part(self.row_of(user_id)), self._events
        kinds = [self._kinds[kind] for kind in events.kinds[part].tolist()]
        times = [datetime.fromtimestamp(at / 1e6, UTC) for at in events.times[part].tolist()]
        return list(zip(events.items[part].tolist(), kinds, times, strict=True))

    def row_of(self, user_id: str | None) -> int:
        """The row of a user; -1 for an unknown user."""
        return self._row_of.get(user_id, -1) if user_id is not None else -1

    def _part(self, row: int) -> slice:
        bounds = self._events.bounds
        return slice(0, 0) if row < 0 else slice(int(bounds[row]), int(bounds[row + 1]))


def _reader(column: pa.Array) -> Callable[[int], Any]:
    """Reads one value of a column; of texts without Arrow, which takes several times as long."""
    if pa.types.is_string(column.type) and not column.null_count:
        return TextList(column).__getitem__
    return lambda row: column[row].as_py()


class Popularity:
    """Popular items, overall and by context value; the answer if the query tower fails."""

    def __init__(self, path: Path, n_live: int) -> None:
        self._lists: dict[tuple[str, str], tuple[Rows, Scores]] = {}
        self._n_live = n_live
        for entry in pq.read_table(path).to_pylist():
            rows = np.array(entry["item_row"], dtype=np.int64)
            scores = np.array(entry["score"], dtype=np.float32)
            live = rows < n_live
            self._lists[entry["column"], entry["value"]] = rows[live], scores[live]

    def scores(self, context: Sequence[tuple[str, str]]) -> Scores:
        """[N] popularity of each live item in a context.

        All counted context values have the same weight; the overall popularity only orders the
        items that are not popular in the context.
        """
        total: Scores = np.zeros(self._n_live, dtype=np.float32)
        for key, weight in [*((pair, 1.0) for pair in context), (("", ""), 1e-3)]:
            rows, scores = self._lists.get(key, (None, None))
            if rows is not None and scores is not None and scores.sum() > 0:
                total[rows] += weight * scores / scores.sum()
        return total


def count_running_visit(times: NDArray[np.float64], now: datetime, gap_minutes: float) -> int:
    """The number of leading events that belong to the visit in which a request is made.

    Args:
        times: Unix seconds, latest first.
        now: The time of the request.
        gap_minutes: A visit ends when its user is idle for longer.
    """
    later = now.timestamp()
    for number, time in enumerate(times.tolist()):
        if later - time > gap_minutes * 60:
            return number
        later = time
    return len(times)


def top(scores: Scores, k: int) -> Rows:
    """Positions of the k highest scores, best first; ties keep their order."""
    if k >= len(scores):
        return np.argsort(-scores, kind="stable")
    last = -np.partition(-scores, k - 1)[k - 1]
    better = np.flatnonzero(scores > last)
    as_good = np.flatnonzero(scores == last)[: k - len(better)]
    return np.concatenate([better[np.argsort(-scores[better], kind="stable")], as_good])


def to_unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1, along the last axis; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), dtype=np.float32)
