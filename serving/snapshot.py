"""An snapshot: one bundle in service, with the stock as it is now."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from serving.catalogue import Catalogue, Mask, Scores, top
from serving.request import Request
from serving.stock import Listing, LiveStock
from serving.towers import TowerClient, TowerNames

WARM_UP_SECONDS = 10.0

Ranked = list[tuple[str, float]]
"""Item ids and scores, best first."""


@dataclass(frozen=True)
class ServingSnapshot:
    """What answers a request; a request keeps to one snapshot from its start to its end."""

    catalogue: Catalogue
    stock: LiveStock
    names: TowerNames

    @classmethod
    def of(cls, catalogue: Catalogue, stock: LiveStock) -> "ServingSnapshot":
        """Put a catalogue and its stock together."""
        return cls(catalogue, stock, TowerNames.of(catalogue.bundle.manifest.embedding_version))

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
        inputs = self.catalogue.query_inputs(request, now, self.stock.fresh.content)
        return towers.embed(self.names.query, inputs, self.catalogue.size, timeout)[0]

    def rank(self, request: Request, query: NDArray[np.float32]) -> Ranked:
        """The k items nearest to a query vector that may be shown."""
        unwanted = self._unwanted(request)
        allowed = self._allowed(request, unwanted)
        rows, scores = self.catalogue.search(query, allowed, request.k)
        ids = self.catalogue.item_ids
        ranked = [(ids[row], float(score)) for row, score in zip(rows, scores, strict=True)]
        return _merge(ranked, self._nearest_fresh(request, query, unwanted), request.k)

    def popular(self, request: Request) -> Ranked:
        """The k most popular items in the request's context that may be shown."""
        unwanted = self._unwanted(request)
        allowed = self._allowed(request, unwanted)
        context = self.catalogue.popularity_context(request.context)
        scores = self.catalogue.popularity.scores(context)
        rows = np.flatnonzero(allowed)
        best = rows[top(scores[rows], request.k)]
        ranked = [(self.catalogue.item_ids[row], float(scores[row])) for row in best]
        fresh = self.stock.fresh.listings
        return _merge(ranked, _take(((one, 0.0) for one in fresh), request, unwanted), request.k)

    def warm_up(self, towers: TowerClient) -> None:
        """Answer one empty request, so that a bundle that cannot is found out beforehand.

        Raises:
            TowerFailure: The query tower does not fit the index, or does not answer.
        """
        request = Request()
        self.rank(request, self.embed(towers, request, datetime.now(UTC), WARM_UP_SECONDS))
        self.popular(request)

    def _unwanted(self, request: Request) -> set[str]:
        """Items that must not come back whatever their attributes: excluded or bought."""
        ids = self.catalogue.item_ids
        bought = (ids[row] for row in self.catalogue.histories.bought(request.user_id))
        given = (e.item_id for e in request.history or () if e.event_type == "purchase")
        return {*request.exclude, *bought, *given}

    def _allowed(self, request: Request, unwanted: set[str]) -> Mask:
        catalogue = self.catalogue
        allowed: Mask = self.stock.available & catalogue.fulfils(request.require)
        rows = (catalogue.row_of.get(item_id) for item_id in unwanted)
        allowed[[row for row in rows if row is not None and row < catalogue.n_live]] = False
        if request.user_id is not None:
            allowed[catalogue.sold_by(request.user_id)] = False
        return allowed

    def _nearest_fresh(
        self, request: Request, query: NDArray[np.float32], unwanted: set[str]
    ) -> Ranked:
        fresh = self.stock.fresh
        if fresh.vectors is None:
            return []
        scores: Scores = fresh.vectors @ query
        order = np.argsort(-scores, kind="stable")
        return _take(((fresh.listings[i], float(scores[i])) for i in order), request, unwanted)


def _take(
    candidates: Iterable[tuple[Listing, float]], request: Request, unwanted: set[str]
) -> Ranked:
    """The first k listings that may be shown."""
    taken: Ranked = []
    for listing, score in candidates:
        if len(taken) == request.k:
            break
        own = request.user_id is not None and listing.seller_id == request.user_id
        if not own and listing.item_id not in unwanted and listing.fulfils(request.require):
            taken.append((listing.item_id, score))
    return taken


def _merge(ranked: Ranked, fresh: Ranked, k: int) -> Ranked:
    """Two lists as one, best first; at equal scores the bundle's own items go first.

    An item that was listed anew in this very moment may stand in both; it is shown once.
    """
    merged: dict[str, float] = {}
    for item_id, score in sorted([*ranked, *fresh], key=lambda pair: -pair[1]):
        merged.setdefault(item_id, score)
    return list(merged.items())[:k]
