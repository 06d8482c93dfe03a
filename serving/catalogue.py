"""A bundle in memory: item attributes and vectors, user histories and popular items."""

from bisect import bisect_left
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
from refit.columns import Column, Flags, Labels, Longs, read_column
from refit.contract import EventType
from refit.eligibility import Rules
from refit.errors import RefitError
from refit.features import FeaturesManifest, Inputs, bin_of, query_inputs
from refit.index import (
    CONTENT_FILE,
    DELISTED_FILE,
    HIDES_FILE,
    HISTORIES_FILE,
    ITEMS_FILE,
    POPULARITY_FILE,
    PURCHASES_FILE,
    ItemIndex,
)
from refit.item_lists import UserItems
from serving.recent import NOTHING, RecentEvents
from serving.request import PastEvent, Request, RequestError

NOT_FILTERED_BY = ("item_id", "seller_id", "live")

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
        self.content = np.load(bundle.index / CONTENT_FILE, mmap_mode="r")
        items = pq.read_table(bundle.index / ITEMS_FILE)
        self._check(items)
        self.item_ids: list[str] = items["item_id"].to_pylist()
        self.row_of = {item_id: row for row, item_id in enumerate(self.item_ids)}
        live = items.slice(0, self.n_live)
        self.attributes: dict[str, Column] = {
            name: read_column(live[name])
            for name in live.column_names
            if name not in NOT_FILTERED_BY and _filters(live[name].type)
        }
        self._all_sellers = (
            Labels.of(items["seller_id"]) if "seller_id" in live.column_names else None
        )
        self.sellers = self._all_sellers and self._all_sellers.take(slice(0, self.n_live))
        self.listed_at = _read_times(live, "known_at")
        self._least_popular: dict[float, Flags] = {}
        self.rules = Rules.load(self.features.market)
        self.rules.check_columns("item", self.attributes)
        self.histories = Histories(bundle.index / HISTORIES_FILE)
        self.purchases = _read_user_items(bundle.index / PURCHASES_FILE, len(self.histories))
        self.hides = _read_user_items(bundle.index / HIDES_FILE, len(self.histories))
        self._delisted = _Texts(bundle.index / DELISTED_FILE)
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
        return len(self.item_ids) + len(self._delisted)

    def number_of(self, item_id: str) -> int | None:
        """The number of an item, live or not; None if the bundle does not know it."""
        row = self.row_of.get(item_id)
        if row is not None:
            return row
        position = self._delisted.find(item_id)
        return None if position is None else len(self.item_ids) + position

    def query_inputs(
        self,
        request: Request,
        now: datetime,
        fresh_content: Mapping[str, NDArray[np.float32]],
        recent: RecentEvents = NOTHING,
        reads_running_visit: bool = False,
    ) -> Inputs:
        """Query tower inputs of one request, B = 1.

        Args:
            request: Its history, if it has one, replaces what is known; unknown items are skipped.
                The events of the running visit are left out, as in training, unless
                ``spec.history_within_visit`` is set.
            now: The time of the request, from which the age of an event is computed.
            fresh_content: Content vectors of listings newer than the bundle, by item id.
            recent: What the person did since the stored history ended.
            reads_running_visit: Whether the running visit is read in any case.
        """
        spec = self.features.spec
        vectors, types, times = (
            self._known(request.user_id, recent, fresh_content)
            if request.history is None
            else self._given(request.history, fresh_content)
        )
        if not spec.history_within_visit and not reads_running_visit:
            running = count_running_visit(times, now, spec.visit_gap_minutes)
            vectors, types, times = vectors[running:], types[running:], times[running:]
        kept = min(len(types), spec.history_length)
        content = np.zeros((1, spec.history_length, self.content.shape[1]), dtype=np.float32)
        ages = np.zeros((1, spec.history_length), dtype=np.float32)
        padded_types = np.full((1, spec.history_length), "", dtype=object)
        if kept:
            content[0, :kept] = vectors[:kept]
            ages[0, :kept] = np.maximum(now.timestamp() - times[:kept], 0) / 86_400
            padded_types[0, :kept] = types[:kept]
        names = (*spec.context_categorical, *spec.context_numeric)
        contexts = {name: [request.context.get(name)] for name in names}
        user = self.histories.user(request.user_id)
        columns = (*spec.user_categorical, *spec.user_numeric)
        users = {name: [user.get(name)] for name in columns}
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
        scores, rows = self.index.search(query[None], k, eligible)
        found = rows[0] >= 0
        return rows[0][found], scores[0][found]

    @property
    def learned_size(self) -> int:
        """How many of the D entries of a vector are its learned part; the rest are popularity."""
        counted = 1 + sum(len(values) for values in self.features.popularity_values.values())
        return self.size - counted if counted < self.size else self.size

    def listed_since(self, time: int) -> Rows:
        """Rows of the live items that were listed after a time, in microseconds since 1970."""
        order, times = self._by_listing
        return order[np.searchsorted(times, time, side="right") :]

    @cached_property
    def _by_listing(self) -> tuple[Rows, Longs]:
        order = np.argsort(self.listed_at, kind="stable")
        return order, self.listed_at[order]

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
        return np.argsort(self.index.vectors[:, self.learned_size], kind="stable")

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
        bought = self.purchases.of(np.array([self.histories.row_of(user_id)])).item
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
        user_id: str | None,
        recent: RecentEvents,
        fresh_content: Mapping[str, NDArray[np.float32]],
    ) -> tuple[Any, Any, NDArray[np.float64]]:
        """The stored history of a user, and the recent events that are later than all of it."""
        stored = self.histories.latest(user_id, self.features.spec.history_length, self.content)
        if not len(recent.times):
            return stored
        vectors, types, times = stored
        ended = times[0] if len(times) else -np.inf
        later: list[tuple[Any, str, float]] = []
        for item_id, kind, time in zip(recent.item_ids, recent.types, recent.times, strict=True):
            vector = self._content_of(item_id, fresh_content) if time > ended else None
            if vector is not None:
                later.append((vector, kind, time))
        return (
            [*(vector for vector, _, _ in later), *vectors],
            [*(kind for _, kind, _ in later), *types],
            np.concatenate([[time for _, _, time in later], times]),
        )

    def _content_of(
        self, item_id: str, fresh_content: Mapping[str, NDArray[np.float32]]
    ) -> NDArray[np.float32] | None:
        row = self.row_of.get(item_id)
        return self.content[row] if row is not None else fresh_content.get(item_id)

    def _given(
        self, history: Sequence[PastEvent], fresh_content: Mapping[str, NDArray[np.float32]]
    ) -> tuple[Any, list[str], NDArray[np.float64]]:
        events = []
        for event in sorted(history, key=lambda event: event.event_time, reverse=True):
            vector = self._content_of(event.item_id, fresh_content)
            if vector is not None and event.event_type is not EventType.HIDE:
                events.append((vector, event.event_type.value, event.event_time.timestamp()))
        times = np.array([time for _, _, time in events], dtype=np.float64)
        return [vector for vector, _, _ in events], [kind for _, kind, _ in events], times

    def _check(self, items: pa.Table) -> None:
        """Refuse an index whose parts disagree, before it answers any request."""
        if not self.n_live <= items.num_rows == len(self.content):
            raise RefitError(
                f"{self.bundle.index} holds {self.n_live} vectors, {items.num_rows} items and "
                f"{len(self.content)} content vectors, which do not match; "
                "build the index again"
            )


class Histories:
    """The events of every known user, latest first, and the user columns."""

    def __init__(self, path: Path) -> None:
        table = pq.read_table(path).combine_chunks()
        self._users = table.drop_columns(["item_row", "event_type", "event_time"])
        self._row_of = {user: row for row, user in enumerate(table["user_id"].to_pylist())}
        items = table["item_row"].combine_chunks()
        self._offsets = items.offsets.to_numpy()
        self._items = items.values.to_numpy(zero_copy_only=False)
        types = table["event_type"].combine_chunks().values.dictionary_encode()
        self._type_codes = types.indices.to_numpy(zero_copy_only=False)
        self._types = np.array(types.dictionary.to_pylist(), dtype=object)
        times = table["event_time"].combine_chunks().values
        self._times = times.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()

    def user(self, user_id: str | None) -> dict[str, Any]:
        """The columns of a user; empty for an unknown user."""
        row = self.row_of(user_id)
        return {} if row < 0 else self._users.slice(row, 1).to_pylist()[0]

    def __len__(self) -> int:
        return len(self._row_of)

    def latest(
        self, user_id: str | None, limit: int, content: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float64]]:
        """Content vectors, event types and times (Unix seconds) of a user's latest events."""
        part = self._part(user_id)
        part = slice(part.start, min(part.stop, part.start + limit))
        types = self._types[self._type_codes[part]]
        return content[self._items[part]], types, self._times[part] / 1e6

    def events(self, user_id: str | None) -> list[tuple[int, str, datetime]]:
        """Row of the item, type and time of each of a user's events, the latest first."""
        part = self._part(user_id)
        kinds = self._types[self._type_codes[part]].tolist()
        times = [datetime.fromtimestamp(at / 1e6, UTC) for at in self._times[part].tolist()]
        return list(zip(self._items[part].tolist(), kinds, times, strict=True))

    def row_of(self, user_id: str | None) -> int:
        """The row of a user; -1 for an unknown user."""
        return self._row_of.get(user_id, -1) if user_id is not None else -1

    def _part(self, user_id: str | None) -> slice:
        row = self.row_of(user_id)
        return slice(0, 0) if row < 0 else slice(self._offsets[row], self._offsets[row + 1])


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
    idle = -np.diff(times, prepend=now.timestamp())
    ended = np.flatnonzero(idle > gap_minutes * 60)
    return int(ended[0]) if len(ended) else len(times)


def top(scores: Scores, k: int) -> Rows:
    """Positions of the k highest scores, best first; ties keep their order."""
    if k >= len(scores):
        return np.argsort(-scores, kind="stable")
    best = np.argpartition(-scores, k)[:k]
    return best[np.lexsort((best, -scores[best]))]


class _Texts:
    """Sorted texts of a file as an Arrow array; a million take about 20 MB."""

    def __init__(self, path: Path) -> None:
        self._texts = pq.read_table(path)["item_id"].combine_chunks()

    def __len__(self) -> int:
        return len(self._texts)

    def find(self, text: str) -> int | None:
        """The position of a text; None if it is not among them."""
        position = bisect_left(self._texts, text, key=lambda scalar: scalar.as_py())
        found = position < len(self._texts) and self._texts[position].as_py() == text
        return position if found else None


def _read_user_items(path: Path, n_users: int) -> UserItems:
    table = pq.read_table(path)
    return UserItems(table["user_row"].to_numpy(), table["item_row"].to_numpy(), n_users)


def _read_times(items: pa.Table, name: str) -> Longs:
    """[N] microseconds since 1970; 0 where the column or a value is missing."""
    if name not in items.column_names:
        return np.zeros(items.num_rows, dtype=np.int64)
    times = items[name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    return np.asarray(times.fill_null(0).to_numpy(), dtype=np.int64)


def _filters(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)
    return bool(
        text
        or pa.types.is_dictionary(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
    )
