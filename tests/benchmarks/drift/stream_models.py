"""Stand-in towers on a stream: fitted at the begin of any window, scored on any later one."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.drift.stream_data import Inputs, Stream
from tests.benchmarks.drift.towers import Floats, Ints, StandInTowers, fit_towers, top_lists

PAIRS, PER_VISIT = 30_000, 5
"""A model is fitted on so many of the latest pairs of visit and item, at most 5 of a visit."""
QUERIES = 400
"""At most so many visits of a window are scored."""
DIMENSION, K = 32, 10
STEPS, NEGATIVES = 100, 512


@dataclass
class StreamModels:
    """Models of a stream by the window before which they were fitted.

    The index is built again before each window, with the popularity and the listings of then, as a
    refresh of the index does: what grows old is the weights.

    Attributes:
        stream: The purchases.
        inputs: What towers read.
    """

    stream: Stream
    inputs: Inputs
    _towers: dict[int, StandInTowers] = field(default_factory=dict)
    _scores: dict[tuple[int, int], Floats] = field(default_factory=dict)
    _queries: dict[int, tuple[Ints, list[Ints]]] = field(default_factory=dict)

    def fit(self, before: int) -> StandInTowers:
        """The towers fitted on what happened before a window."""
        if before not in self._towers:
            self._towers[before] = self._fit(before)
        return self._towers[before]

    def stock(self, window: int) -> NDArray[np.bool_]:
        """[N] items that were listed before a window."""
        return self.stream.listed_window < window

    def query_vectors(self, model: int, visits: Ints) -> Floats:
        """[n, D] the vectors of visits."""
        towers = self.fit(model)
        queries = (self.inputs.queries(visits) - towers.query_mean) @ towers.query_matrix
        length = np.linalg.norm(queries, axis=1, keepdims=True)
        return np.asarray(queries / np.maximum(length, 1e-9), dtype=np.float32)

    def item_vectors(self, model: int, window: int) -> Floats:
        """[N, D] the vectors of all items in the index of a window."""
        return self.fit(model).item_vectors(self.inputs.items(window))

    def answer(self, model: int, window: int, visits: Ints) -> tuple[Floats, Ints, Floats]:
        """Query vectors [n, D], rows [n, K] of the listed items, best first, and scores [n, K]."""
        queries = self.query_vectors(model, visits)
        stock = np.flatnonzero(self.stock(window))
        top, scores = top_lists(queries @ self.item_vectors(model, window)[stock].T, K)
        return queries, stock[top], scores

    def score(self, model: int, window: int) -> Floats:
        """[q] recall of the lists for the visits of a window that bought what was in stock.

        The share of what a visit bought that is in its list, of at most as much as a list holds.
        """
        if (model, window) not in self._scores:
            visits, bought = self.queries(window)
            _, lists, _ = self.answer(model, window, visits)
            counts = np.array([len(items) for items in bought])
            row = np.repeat(np.arange(len(bought)), counts)
            found = (lists[row] == np.concatenate(bought)[:, None]).any(axis=1)
            hits = np.bincount(row[found], minlength=len(bought))
            self._scores[model, window] = (hits / np.minimum(counts, K)).astype(np.float32)
        return self._scores[model, window]

    def people(self, window: int) -> Ints:
        """[q] number of the person of each scored visit."""
        return self.stream.visit_user[self.queries(window)[0]]

    def queries(self, window: int) -> tuple[Ints, list[Ints]]:
        """Visits of a window that bought what was in stock, evenly thinned, and these items."""
        if window not in self._queries:
            self._queries[window] = self._find_queries(window)
        return self._queries[window]

    def _find_queries(self, window: int) -> tuple[Ints, list[Ints]]:
        visits, bought = [], []
        stock = self.stock(window)
        for visit, items in zip(*self.purchases(window), strict=True):
            known = items[stock[items]]
            if len(known):
                visits.append(visit)
                bought.append(known)
        chosen = np.unique(np.linspace(0, len(visits) - 1, min(QUERIES, len(visits))).astype(int))
        return np.array(visits, dtype=np.int64)[chosen], [bought[i] for i in chosen]

    def purchases(self, window: int) -> tuple[Ints, list[Ints]]:
        """All visits of a window, and the different items that each bought."""
        low, high = np.searchsorted(self.stream.event_window, [window, window + 1])
        visits, starts = np.unique(self.stream.event_visit[low:high], return_index=True)
        parts = np.split(self.stream.event_item[low:high], starts[1:])
        return visits, [np.unique(part) for part in parts]

    def _fit(self, before: int) -> StandInTowers:
        stream = self.stream
        end = int(np.searchsorted(stream.event_window, before))
        window, item = stream.event_window[:end], stream.event_item[:end]
        random = np.random.default_rng(0).permutation(end)
        order = np.lexsort((random, stream.event_visit[:end]))
        visit = stream.event_visit[:end][order]
        starts = np.flatnonzero(np.diff(visit, prepend=-1))
        rank = np.arange(end) - np.repeat(starts, np.diff(np.append(starts, end)))
        known = stream.listed_window[item[order]] < window[order]
        pairs = order[(rank < PER_VISIT) & known][-PAIRS:]
        wanted = np.concatenate(
            [
                self.inputs.content[item[pairs]],
                self.inputs.popularity[window[pairs], item[pairs]],
            ],
            axis=1,
        )
        return fit_towers(
            None,
            self.inputs.queries(stream.event_visit[pairs]),
            wanted,
            np.ones(len(pairs), dtype=np.float32),
            self.inputs.items(before)[self.stock(before)],
            DIMENSION,
            STEPS,
            negatives=NEGATIVES,
        )
