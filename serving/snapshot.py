"""A serving snapshot: one bundle in service, with the stock as it is now."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from refit.columns import Flags
from serving.candidates import IndexRows, RequestQuery
from serving.catalogue import Catalogue, Rows, Scores, top
from serving.counters import Counters
from serving.feeds.settings import PeopleSettings
from serving.people import LivePeople
from serving.recent import RecentEvents
from serving.request import Request
from serving.stock import DeltaIndex, LiveStock
from serving.towers import TowerClient, TowerNames

WARM_UP_SECONDS = 10.0
WARM_UP = Request(user_id="refit-warm-up")
"""Of a user whom nobody knows, so that looking a user up is warmed up as well."""

Ranked = list[tuple[str, float]]
"""Item ids and scores, best first."""


@dataclass(frozen=True)
class Recommendations:
    """What a request is answered with.

    Attributes:
        items: At most k eligible items.
        removed: How many items each eligibility rule removed; see ``refit.eligibility``.
    """

    items: Ranked
    removed: Mapping[str, int]


@dataclass(frozen=True)
class ServingSnapshot:
    """What answers a request; a request keeps to one snapshot from its start to its end.

    Attributes:
        catalogue: The bundle.
        stock: What is on sale now.
        names: The towers on the model server.
        people: What people did lately.
        reads_running_visit: See ``PeopleSettings.running_visit``.
        is_replay: Whether a request's time may be in the past.
    """

    catalogue: Catalogue
    stock: LiveStock
    names: TowerNames
    people: LivePeople
    reads_running_visit: bool = False
    is_replay: bool = False

    @classmethod
    def of(
        cls,
        catalogue: Catalogue,
        stock: LiveStock,
        people: LivePeople | None = None,
        reads_running_visit: bool = False,
        is_replay: bool = False,
    ) -> "ServingSnapshot":
        """Put a catalogue, its stock and its people together."""
        names = TowerNames.of(catalogue.bundle.manifest.embedding_version)
        if people is None:
            people = LivePeople(catalogue, None, Counters(), PeopleSettings())
        return cls(catalogue, stock, names, people, reads_running_visit, is_replay)

    @property
    def bundle_id(self) -> str:
        """The bundle that answers."""
        return self.catalogue.bundle.bundle_id

    def embed(
        self, towers: TowerClient, request: Request, now: datetime, timeout: float
    ) -> NDArray[np.float32]:
        """[D] the query tower's vector for a request.

        Raises:
            TowerFailure: The tower gave no usable answer in time.
        """
        recent = self.recent(request, now)
        fresh = self.stock.fresh.content
        reads = self.reads_running_visit
        inputs = self.catalogue.query_inputs(request, now, fresh, recent, reads)
        return towers.embed(self.names.query, inputs, self.catalogue.size, timeout)[0]

    def rank(self, request: Request, query: NDArray[np.float32], now: datetime) -> Recommendations:
        """The k eligible items nearest to a query vector.

        Args:
            request: The request.
            query: [D] the query tower's vector.
            now: When the request is answered.
        """
        eligible = self._find_eligible(request, now)
        rows, scores = self.catalogue.search(query, eligible.rows, request.k)
        ids = self.catalogue.item_ids
        ranked = [(ids[row], float(score)) for row, score in zip(rows, scores, strict=True)]
        return eligible.answer(ranked, eligible.fresh.score(query), request.k)

    def popular(self, request: Request, now: datetime) -> Recommendations:
        """The k eligible items that are most popular in the request's context."""
        eligible = self._find_eligible(request, now)
        context = self.catalogue.popularity_context(request.context)
        scores = self.catalogue.popularity.scores(context)
        best = _best(scores, eligible.rows, request.k)
        ranked = [(self.catalogue.item_ids[row], float(scores[row])) for row in best]
        fresh_scores = np.zeros(len(eligible.fresh), dtype=np.float32)
        return eligible.answer(ranked, fresh_scores, request.k)

    def recent(self, request: Request, now: datetime) -> RecentEvents:
        """What the person of a request did lately.

        Of a replay, nothing counts that happened later; of a live request, a client's clock may be
        ahead, and everything counts.
        """
        return self.people.of(request.user_id, now.timestamp() if self.is_replay else np.inf)

    def close(self) -> None:
        """Close the feeds; requests that are under way still find what they need."""
        self.stock.close()
        self.people.close()

    def warm_up(self, towers: TowerClient) -> None:
        """Answer one empty request, so that a bundle that cannot is found out beforehand.

        Raises:
            TowerFailure: The query tower does not fit the index, or does not answer.
            RefitError: An eligibility rule fails.
        """
        now = datetime.now(UTC)
        self.rank(WARM_UP, self.embed(towers, WARM_UP, now, WARM_UP_SECONDS), now)
        self.popular(WARM_UP, now)

    def _find_eligible(self, request: Request, now: datetime) -> "_Eligible":
        """Apply the market's rules to the bundle's items and to the listings newer than it."""
        catalogue, fresh = self.catalogue, self.stock.fresh
        query = RequestQuery(catalogue, fresh, request, now, self.recent(request, now))
        rows = catalogue.rules.find_eligible(IndexRows(catalogue, self.stock.gone), query)
        removed, fresh_flags = rows.removed, None
        if len(fresh):
            found = catalogue.rules.find_eligible(fresh, query)
            fresh_flags = found.eligible
            removed = {rule: n + found.removed[rule] for rule, n in removed.items()}
        return _Eligible(_only(rows.eligible), fresh, _only(fresh_flags), removed)


@dataclass(frozen=True)
class _Eligible:
    """What one request may be answered with.

    Attributes:
        rows: [N] which of the bundle's items; None lets all through.
        fresh: The listings newer than the bundle.
        fresh_flags: [F] which of these; None lets all through.
    """

    rows: Flags | None
    fresh: DeltaIndex
    fresh_flags: Flags | None
    removed: Mapping[str, int]

    def answer(self, ranked: Ranked, fresh_scores: Scores, k: int) -> Recommendations:
        """Merge the bundle's k best items with the listings newer than it, best first.

        Among equal scores the bundle's own items come first. While the feed is being applied an
        item that was listed again may be among both; it is shown once.
        """
        floor = ranked[-1][1] if len(ranked) == k else -np.inf
        better = fresh_scores > floor
        if self.fresh_flags is not None:
            better &= self.fresh_flags
        fresh = [
            (self.fresh.listings[i].item_id, float(fresh_scores[i]))
            for i in _best(fresh_scores, better, k)
        ]
        if not fresh:
            return Recommendations(ranked, self.removed)
        merged: dict[str, float] = {}
        for item_id, score in sorted([*ranked, *fresh], key=lambda pair: -pair[1]):
            merged.setdefault(item_id, score)
        return Recommendations(list(merged.items())[:k], self.removed)


def _best(scores: Scores, flags: Flags | None, k: int) -> Rows:
    """Positions of the k highest scores among those that are let through, best first."""
    if flags is None:
        return top(scores, k)
    best = top(np.where(flags, scores, -np.inf), k)
    return best[flags[best]]


def _only(flags: Flags | None) -> Flags | None:
    """The flags of the only query."""
    return None if flags is None else flags[0]
