"""The search of one bundle in an engine on other machines, under the rules that hold here.

The engine knows the items and what can be said as conditions over their columns. What was sold a
moment ago, what a person has bought or hidden, and rules that cannot be said that way are applied
here to what it found, so that it is asked for some more items than are wanted, and again for more
where too many were removed.
"""

import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from refit.columns import Flags
from refit.predicates import ITEM_ID, OneOf, Predicate
from serving.catalogue import Catalogue, Rows, Scores
from serving.counters import Counters
from serving.engines.engine import EngineFailure, Hits, SearchEngine, column_kinds
from serving.towers import Breaker, Fallback

SPARE = 16
"""So many more items are asked for than are wanted."""
FEW = 200
"""If no more items are eligible, the engine searches only these, by their ids."""


class RemoteSearch:
    """Searches the items of one bundle in an engine; threads share it.

    Args:
        engine: The engine.
        catalogue: The bundle.
        counters: Counts what was removed, asked again, and failed.
        most: See ``EngineSettings``.
        breaker: Leaves an engine that failed several times in a row alone for a moment.

    Attributes:
        is_open: Whether the engine has been found to hold the bundle's items.
    """

    def __init__(
        self,
        engine: SearchEngine,
        catalogue: Catalogue,
        counters: Counters,
        most: int,
        breaker: Breaker,
    ) -> None:
        self._engine, self._catalogue, self._counters = engine, catalogue, counters
        self._most, self._breaker = most, breaker
        self._kinds = column_kinds(catalogue)
        self._version = catalogue.bundle.manifest.embedding_version
        self.is_open = False

    def open(self) -> None:
        """Check that the engine holds the items of the bundle; until then nothing is searched.

        Raises:
            ServiceUnreachable: It does not answer, or does not hold them yet.
        """
        self._engine.check(self._catalogue.bundle)
        self.is_open = True

    def find(
        self,
        query: NDArray[np.float32],
        k: int,
        condition: Predicate | None,
        eligible: Flags | None,
    ) -> tuple[Rows, Scores]:
        """Find the k nearest eligible items of the bundle, best first.

        Args:
            query: [D] the query tower's vector.
            k: Number of items.
            condition: What eligible items meet, as far as it can be said; None: nothing.
            eligible: [N] which of the bundle's items may be returned; None: all.

        Raises:
            EngineFailure: The engine gave no answer.
        """
        left = self._catalogue.n_live if eligible is None else int(np.count_nonzero(eligible))
        k = min(k, left, self._most)
        if not k:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        if eligible is not None and left <= FEW:
            rows = np.flatnonzero(eligible).tolist()
            condition = OneOf(ITEM_ID, tuple(self._catalogue.item_ids[row] for row in rows))
        return self._find(query, k, left, condition, self._keeper(eligible))

    def _find(
        self,
        query: NDArray[np.float32],
        k: int,
        left: int,
        condition: Predicate | None,
        keep: Callable[[Hits], tuple[Rows, Scores]],
    ) -> tuple[Rows, Scores]:
        wanted = min(k + SPARE, self._most)
        while True:
            hits = self._ask(query, wanted, condition, min(wanted, left))
            rows, scores = keep(hits)
            if len(rows) >= k or len(hits.item_ids) < wanted or wanted == self._most:
                break
            self._counters.add("refit_search_refills")
            share = max(len(rows), 1) / wanted
            wanted = min(max(2 * wanted, math.ceil(1.5 * k / share)), self._most)
        if not len(rows):
            self._counters.add("refit_search_failures", reason=Fallback.SEARCH_EMPTY.value)
            raise EngineFailure(Fallback.SEARCH_EMPTY, f"none of {left} items were found")
        if removed := len(hits.item_ids) - len(rows):
            self._counters.add("refit_search_removed_items", removed)
        if len(rows) < k:
            self._counters.add("refit_search_short_answers")
        return rows[:k], scores[:k]

    def _keeper(self, eligible: Flags | None) -> Callable[[Hits], tuple[Rows, Scores]]:
        """What leaves out hits that must not be returned, or that the bundle does not know."""
        row_of, n_live = self._catalogue.row_of, self._catalogue.n_live

        def keep(hits: Hits) -> tuple[Rows, Scores]:
            rows = np.array([row_of.get(item, n_live) for item in hits.item_ids], dtype=np.int64)
            kept = rows < n_live
            if eligible is not None:
                kept[kept] = eligible[rows[kept]]
            return rows[kept], hits.scores[kept]

        return keep

    def _ask(
        self, query: NDArray[np.float32], k: int, condition: Predicate | None, at_least: int
    ) -> Hits:
        if not self.is_open:
            raise EngineFailure(Fallback.SEARCH_NOT_LOADED, "the engine does not hold the bundle")
        if not self._breaker.allows():
            details = "the engine failed several times in a row"
            raise EngineFailure(Fallback.SEARCH_BREAKER_OPEN, details)
        started = time.perf_counter()
        try:
            hits = self._engine.search(self._version, query, k, condition, self._kinds, at_least)
        except EngineFailure as failure:
            self._breaker.failed()
            self._counters.add("refit_search_failures", reason=failure.reason.value)
            raise
        self._breaker.succeeded()
        self._counters.time("refit_search_latency", (time.perf_counter() - started) * 1000)
        return hits
