"""A serving snapshot: one bundle in service, with the stock and the people as they are now."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat

import numpy as np

from serving.catalogue import Catalogue
from serving.counters import Counters
from serving.engines.engine import EngineFailure
from serving.engines.remote import RemoteSearch
from serving.feeds.settings import PeopleSettings
from serving.people import LivePeople
from serving.pool import Pool
from serving.query import History, Query
from serving.recent import RecentEvents
from serving.request import Request
from serving.stages import AnswerRequest, Stages
from serving.stock import LiveStock
from serving.towers import QueryEmbedder, TowerNames

WARM_UP_SECONDS = 10.0
WARM_UP_ID = "refit-warm-up"
WARM_UP = Request(user_id=WARM_UP_ID)
"""Of a user whom nobody knows, so that looking a user up is warmed up as well."""


@dataclass(frozen=True)
class ServingSnapshot:
    """What answers a request; a request keeps to one snapshot from its start to its end.

    Attributes:
        catalogue: The bundle.
        stock: What is on sale now.
        query_tower: Embeds queries.
        names: The towers on the model server.
        people: What people did lately.
        reads_running_visit: See ``PeopleSettings.running_visit``.
        is_replay: Whether a request's time may be in the past.
        remote: Searches the bundle's items in an engine on other machines; None: in this process.
    """

    catalogue: Catalogue
    stock: LiveStock
    query_tower: QueryEmbedder
    names: TowerNames
    people: LivePeople
    reads_running_visit: bool = False
    is_replay: bool = False
    remote: RemoteSearch | None = None

    @classmethod
    def of(
        cls,
        catalogue: Catalogue,
        stock: LiveStock,
        query_tower: QueryEmbedder,
        people: LivePeople | None = None,
        reads_running_visit: bool = False,
        is_replay: bool = False,
        remote: RemoteSearch | None = None,
    ) -> "ServingSnapshot":
        """Put a catalogue, its stock, its query tower and its people together."""
        names = TowerNames.of(catalogue.bundle.manifest.embedding_version)
        if people is None:
            people = LivePeople(catalogue, None, Counters(), PeopleSettings())
        return cls(
            catalogue, stock, query_tower, names, people, reads_running_visit, is_replay, remote
        )

    @property
    def bundle_id(self) -> str:
        """The bundle that answers."""
        return self.catalogue.bundle.bundle_id

    @property
    def is_baseline(self) -> bool:
        """Whether a baseline is served as itself."""
        return self.catalogue.bundle.manifest.kind == "baseline"

    def embed(self, asked: Sequence[tuple[Request, datetime]], timeout: float) -> list[Query]:
        """What the query tower says of B requests and the times when they are answered.

        Raises:
            TowerFailure: The tower gave no usable answer in time.
        """
        histories = [self.read_history(request, now) for request, now in asked]
        inputs = [
            self.catalogue.query_inputs(request, now, history)
            for (request, now), history in zip(asked, histories, strict=True)
        ]
        joined = inputs[0]
        if len(inputs) > 1:
            joined = {name: np.concatenate([one[name] for one in inputs]) for name in joined}
        found = self.query_tower.embed(joined, timeout)
        weights = repeat(None) if found.repeats is None else found.repeats
        return list(map(History.ask, histories, found.vectors, weights))

    def find_pool(self, request: Request, now: datetime) -> Pool:
        """Apply the market's rules to the bundle's items and to the listings newer than it."""
        recent, reads = self.recent(request, now), self.reads_running_visit
        stock = self.stock
        return Pool(
            self.catalogue, stock.fresh, stock.gone, request, now, recent, reads, self.remote
        )

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

    def warm_up(self, stages: Stages) -> None:
        """Answer one empty request, so that a bundle that cannot is found out beforehand.

        Raises:
            TowerFailure: The query tower does not fit the index, or does not answer.
            RefitError: An eligibility rule or a retriever fails.
        """
        now = datetime.now(UTC)
        queries = self.embed([(WARM_UP, now)], WARM_UP_SECONDS)
        for query in (queries[0], None):
            pool = self.find_pool(WARM_UP, now)
            # An engine that is away is no reason to refuse a bundle: popularity answers then.
            with suppress(EngineFailure):
                stages.answer(pool, AnswerRequest(WARM_UP, WARM_UP_ID, now, query))

    def read_history(self, request: Request, now: datetime) -> History:
        """The events that the query tower reads for a request."""
        recent, fresh = self.recent(request, now), self.stock.fresh.content
        reads = self.reads_running_visit
        return self.catalogue.read_history(request, now, fresh, recent, reads)
