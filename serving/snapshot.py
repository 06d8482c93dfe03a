"""A serving snapshot: one bundle in service, with the stock as it is now."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from serving.catalogue import Catalogue
from serving.pool import Pool
from serving.request import Request
from serving.stages import Asked, Stages
from serving.stock import LiveStock
from serving.towers import TowerClient, TowerNames

WARM_UP_SECONDS = 10.0
WARM_UP_ID = "refit-warm-up"
WARM_UP = Request(user_id=WARM_UP_ID)
"""Of a user whom nobody knows, so that looking a user up is warmed up as well."""


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
        self, towers: TowerClient, asked: Sequence[tuple[Request, datetime]], timeout: float
    ) -> NDArray[np.float32]:
        """[B, D] the query tower's vectors for B requests and the times when they are answered.

        Raises:
            TowerFailure: The tower gave no usable answer in time.
        """
        fresh = self.stock.fresh.content
        inputs = [self.catalogue.query_inputs(request, now, fresh) for request, now in asked]
        joined = inputs[0]
        if len(inputs) > 1:
            joined = {name: np.concatenate([one[name] for one in inputs]) for name in joined}
        return towers.embed(self.names.query, joined, self.catalogue.size, timeout)

    def find_pool(self, request: Request, now: datetime) -> Pool:
        """Apply the market's rules to the bundle's items and to the listings newer than it."""
        return Pool(self.catalogue, self.stock.fresh, self.stock.gone, request, now)

    def warm_up(self, towers: TowerClient, stages: Stages) -> None:
        """Answer one empty request, so that a bundle that cannot is found out beforehand.

        Raises:
            TowerFailure: The query tower does not fit the index, or does not answer.
            RefitError: An eligibility rule or a retriever fails.
        """
        now = datetime.now(UTC)
        vectors = self.embed(towers, [(WARM_UP, now)], WARM_UP_SECONDS)
        for query in (vectors[0], None):
            pool = self.find_pool(WARM_UP, now)
            stages.answer(pool, Asked(WARM_UP, WARM_UP_ID, now, query))
