"""An exact engine in this process: what the search in an engine is compared with."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from refit.bundle import Bundle
from refit.columns import Flags
from refit.errors import ServiceUnreachable
from refit.predicates import ITEM_ID, OneOf, Predicate
from serving.engines.engine import ColumnKinds, EngineFailure, Hits
from serving.matching import find_matches
from serving.pool import Pool


class BruteForce:
    """Ranks all items of a bundle that meet a condition.

    Attributes:
        asked: k and condition of each search.
        failure: What the next searches fail with.
        says: What the engine can say of a condition; it leaves out the rest.
        is_loaded: Whether it holds the bundle.
    """

    def __init__(self, says: Callable[[Predicate], bool] = lambda condition: True) -> None:
        self.asked: list[tuple[int, Predicate | None]] = []
        self.failure: EngineFailure | None = None
        self.is_loaded, self.says = True, says
        self.pool: Pool | None = None
        self.removed: set[str] = set()

    def check(self, bundle: Bundle) -> None:
        if not self.is_loaded:
            raise ServiceUnreachable(f"{bundle.bundle_id} is not loaded")

    def search(
        self,
        embedding_version: str,
        query: NDArray[np.float32],
        k: int,
        condition: Predicate | None,
        kinds: ColumnKinds,
        at_least: int = 0,
    ) -> Hits:
        self.asked.append((k, condition))
        if self.failure is not None:
            raise self.failure
        assert self.pool is not None
        catalogue = self.pool.catalogue
        assert catalogue.bundle.manifest.embedding_version == embedding_version
        ids = [catalogue.item_ids[row] for row in range(catalogue.n_live)]
        flags: Flags = np.ones(catalogue.n_live, dtype=np.bool_)
        match condition:
            case OneOf(column, values) if column == ITEM_ID:
                flags = np.isin(ids, values)
            case None:
                pass
            case _ if self.says(condition):
                flags = find_matches(catalogue, self.pool.fresh, condition)[: catalogue.n_live]
        flags = flags & ~np.isin(ids, list(self.removed))
        scores = np.asarray(catalogue.index.vectors) @ query
        order = np.argsort(-np.where(flags, scores, -np.inf), kind="stable")
        rows = [row for row in order.tolist() if flags[row]][:k]
        return Hits(tuple(ids[row] for row in rows), scores[rows])

    def close(self) -> None:
        pass
