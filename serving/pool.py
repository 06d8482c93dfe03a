"""The pool of one request: the bundle's items and the listings newer than it, under the rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from refit.columns import Flags, Labels
from refit.predicates import SELLER, Predicate, join
from serving.candidates import IndexRows, RequestQuery
from serving.catalogue import Catalogue, Rows, Scores, top
from serving.engines.remote import RemoteSearch
from serving.fresh import DeltaIndex
from serving.matching import find_matches
from serving.query import Query
from serving.recent import NOTHING as NOTHING_RECENT
from serving.recent import RecentEvents
from serving.request import Request


@dataclass(frozen=True)
class Found:
    """C items that a retriever found, best first.

    Attributes:
        rows: [C] their rows in the pool.
        scores: [C].
    """

    rows: Rows
    scores: Scores


NOTHING = Found(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))


class Pool:
    """What one request may be answered with.

    Rows 0 to N-1 are the bundle's items, rows N to N+F-1 the listings that are newer than it. The
    eligibility rules have been applied to all of them.

    Args:
        catalogue: The bundle.
        fresh: The listings newer than it.
        gone: [N] which of the bundle's items are not on sale any more; None when all are.
        request: The request.
        now: When it is answered.
        recent: What the person did since the bundle's histories ended.
        reads_running_visit: Whether the query tower reads the running visit in any case.
        remote: Searches the bundle's items in an engine on other machines; None: in this process.

    Attributes:
        eligible: [N] which of the bundle's items may be shown; None when all may.
        eligible_fresh: [F] the same for the newer listings.
        removed: How many items each rule removed; see ``refit.eligibility``.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        fresh: DeltaIndex,
        gone: Flags | None,
        request: Request,
        now: datetime,
        recent: RecentEvents = NOTHING_RECENT,
        reads_running_visit: bool = False,
        remote: RemoteSearch | None = None,
    ) -> None:
        self.catalogue, self.fresh, self.recent = catalogue, fresh, recent
        self._n_fresh = len(fresh)
        self.reads_running_visit, self._remote = reads_running_visit, remote
        query = RequestQuery(catalogue, self.fresh, request, now, recent)
        self._demanded = catalogue.rules.to_predicate(query) if remote else None
        rows = catalogue.rules.find_eligible(IndexRows(catalogue, gone), query)
        self.eligible = _only(rows.eligible)
        self.eligible_fresh: Flags | None = None
        self.removed: Mapping[str, int] = rows.removed
        if self._n_fresh:
            found = catalogue.rules.find_eligible(self.fresh, query)
            self.eligible_fresh = _only(found.eligible)
            self.removed = {rule: n + found.removed[rule] for rule, n in rows.removed.items()}

    def __len__(self) -> int:
        """N + F."""
        return self.catalogue.n_live + self._n_fresh

    def is_eligible(self, rows: Rows) -> Flags:
        """[C] whether each row is in the pool and may be shown."""
        n = self.catalogue.n_live
        may: Flags = (rows >= 0) & (rows < len(self))
        if self.eligible is not None and not self._n_fresh and may.all():
            return self.eligible[rows]
        if self.eligible is not None:
            own = may & (rows < n)
            may[own] = self.eligible[rows[own]]
        if self.eligible_fresh is not None:
            newer = may & (rows >= n)
            may[newer] = self.eligible_fresh[rows[newer] - n]
        return may

    def item_id(self, row: int) -> str:
        """The item of a row."""
        n = self.catalogue.n_live
        return self.catalogue.item_ids[row] if row < n else self.fresh.listings[row - n].item_id

    def item_ids(self, rows: Sequence[int]) -> list[str]:
        """The items of rows."""
        n, ids, listings = self.catalogue.n_live, self.catalogue.item_ids, self.fresh.listings
        return [ids[row] if row < n else listings[row - n].item_id for row in rows]

    def content_of(self, item_id: str) -> NDArray[np.float32] | None:
        """The content vector that stands for an item in histories; None where there is none."""
        row = self.catalogue.row_of.get(item_id)
        return self.fresh.content.get(item_id) if row is None else self.catalogue.content[row]

    def row_of(self, item_id: str) -> int | None:
        """The row of an item, also of one that may not be shown; None if the pool has none."""
        row = self.fresh_row_of(item_id)
        if row is not None:
            return row
        row = self.catalogue.row_of.find(item_id)
        return row if row is not None and row < self.catalogue.n_live else None

    def fresh_row_of(self, item_id: str) -> int | None:
        """The row of a listing on sale that is newer than the bundle; None if it is none."""
        number = self.fresh.number_of.get(item_id)
        if number is None:
            return None
        position = int(self.fresh.positions(np.array([number]))[0])
        if position < 0 or self.fresh.gone[position]:
            return None  # it came later, or is left out of the next layout
        return self.catalogue.n_live + position

    def vectors(self, rows: Rows) -> NDArray[np.float32]:
        """[C, D] embeddings."""
        return self._take(self.catalogue.index.vectors, self.fresh.vectors, rows)

    def content(self, rows: Rows) -> NDArray[np.float32]:
        """[C, size of the content] content vectors."""
        return self._take(self.catalogue.content, self.fresh.content_vectors, rows)

    def values(self, column: str, rows: Rows) -> list[object]:
        """[C] values of an item column or ``seller_id``; None where one is missing."""
        n = self.catalogue.n_live
        stored = self.catalogue.sellers if column == SELLER else self.catalogue.attributes[column]
        found: list[object] = []
        for row in rows.tolist():
            if row >= n:
                found.append(self.fresh.listings[row - n].attributes.get(column))
            elif isinstance(stored, Labels):
                code = int(stored.codes[row])
                found.append(None if code < 0 else stored.texts[code])
            else:
                value = float("nan") if stored is None else stored.value(row)
                found.append(None if np.isnan(value) else value)
        return found

    def recommend(self, query: Query, k: int, within: Predicate | None = None) -> Found:
        """The k eligible items with the highest scores for a query, best first.

        Whatever its history adds to single items, none of the others is missed: as many more are
        searched for as there are items of the history.

        Args:
            query: What the query tower says.
            k: Number of items.
            within: Only items that meet this condition; None searches all.

        Raises:
            EngineFailure: The engine on other machines gave no answer.
        """
        repeated = self._find_repeats(query, within)
        found = self.search(query.vector, k + len(repeated.rows), within)
        if not len(repeated.rows):
            return found
        # NumPy's isin takes longer for as few as these.
        numbers = self._numbers(found.rows)
        others = (numbers[:, None] != self._numbers(repeated.rows)).all(axis=1)
        rows = np.concatenate([found.rows[others], repeated.rows])
        scores = np.concatenate([found.scores[others], repeated.scores])
        order = (-scores).argsort(kind="stable")[:k]
        return Found(rows[order], scores[order])

    def score(self, query: Query, rows: Rows) -> Scores:
        """[C] the scores of rows for a query."""
        scores: Scores = self.vectors(rows) @ query.vector
        return scores + self.repeats(query, rows) if query.repeats else scores

    def repeats(self, query: Query, rows: Rows) -> Scores:
        """[C] the part of the scores that a query's history adds."""
        added = self._place_repeats(query)
        return np.array([added.get(row, 0.0) for row in rows.tolist()], dtype=np.float32)

    def search(self, query: NDArray[np.float32], k: int, within: Predicate | None = None) -> Found:
        """The k eligible items with the largest dot products with ``query`` [D], best first.

        Args:
            query: The vector.
            k: Number of items.
            within: Only items that meet this condition; None searches all.

        Raises:
            EngineFailure: The engine on other machines gave no answer.
        """
        flags = None if within is None else find_matches(self.catalogue, self.fresh, within)
        own, newer = self._flags(flags)
        if self._remote is None:
            rows, scores = self.catalogue.search(query, own, k)
        else:
            rows, scores = self._remote.find(query, k, join(self._demanded, within), own)
        if not self._n_fresh:
            return Found(rows, scores)
        return self._merge(rows, scores, self.fresh.score(query), newer, k)

    def best(self, scores: Scores, fresh_scores: Scores, k: int) -> Found:
        """The k eligible items with the highest scores, best first.

        Args:
            scores: [N] of the bundle's items.
            fresh_scores: [F] of the newer listings.
            k: Number of items.
        """
        rows = _best(scores, self.eligible, k)
        return self._merge(rows, scores[rows], fresh_scores, self.eligible_fresh, k)

    def seller_of(self, item_id: str) -> str | None:
        """The seller of an item, on sale or not; None where that is unknown."""
        row = self.fresh_row_of(item_id)
        if row is not None:
            (seller,) = self.values(SELLER, np.array([row]))
            return seller if isinstance(seller, str) else None
        return self.catalogue.seller_of(item_id)

    def _find_repeats(self, query: Query, within: Predicate | None) -> Found:
        """The eligible items of a query's history, in its order."""
        if not query.repeats:
            return NOTHING
        placed = self._place_repeats(query)
        rows = np.array(list(placed), dtype=np.int64)
        added = np.array(list(placed.values()), dtype=np.float32)
        may = self.is_eligible(rows)
        if within is not None and may.any():
            may &= find_matches(self.catalogue, self.fresh, within)[rows]
        rows = rows[may]
        return Found(rows, self.vectors(rows) @ query.vector + added[may])

    def _place_repeats(self, query: Query) -> dict[int, float]:
        """By row of the pool, what a query's history adds to its score, in the history's order."""
        n, newer, known = self.catalogue.n_live, self.fresh.number_of, query.rows
        placed: dict[int, float] = {}
        for item_id, more in query.repeats.items():
            row = known.get(item_id)
            if row is None or row >= n or item_id in newer:
                row = self.row_of(item_id)
            if row is not None:
                placed[row] = more
        return placed

    def _numbers(self, rows: Rows) -> Rows:
        """[C] the numbers of items, the same for an item's row in the bundle and a newer one."""
        if not self._n_fresh:
            return rows  # the number of a live item of the bundle is its row
        n = self.catalogue.n_live
        newer = rows >= n
        numbers = rows.copy()
        numbers[newer] = self.fresh.numbers[rows[newer] - n]
        return numbers

    def _flags(self, within: Flags | None) -> tuple[Flags | None, Flags | None]:
        if within is None:
            return self.eligible, self.eligible_fresh
        n = self.catalogue.n_live
        return _both(self.eligible, within[:n]), _both(self.eligible_fresh, within[n:])

    def _merge(
        self, rows: Rows, scores: Scores, fresh_scores: Scores, newer: Flags | None, k: int
    ) -> Found:
        """Merge the bundle's k best items with the listings newer than it, best first.

        Among equal scores the bundle's own items come first. While the feed is being applied an
        item that was listed again may be among both; it is found once.
        """
        floor = scores[-1] if len(rows) == k else -np.inf
        better = fresh_scores > floor
        if newer is not None:
            better &= newer
        fresh = _best(fresh_scores, better, k)
        if not len(fresh):
            return Found(rows, scores)
        both = np.concatenate([rows, fresh + self.catalogue.n_live])
        both_scores = np.concatenate([scores, fresh_scores[fresh]])
        order = np.argsort(-both_scores, kind="stable")
        numbers = self._numbers(both)[order]
        kept = order[np.sort(np.unique(numbers, return_index=True)[1])[:k]]
        return Found(both[kept], both_scores[kept])

    def _take(
        self, stored: NDArray[np.float32], newer: NDArray[np.float32], rows: Rows
    ) -> NDArray[np.float32]:
        if not self._n_fresh:
            return stored[rows]
        n = self.catalogue.n_live
        taken = np.empty((len(rows), stored.shape[1]), dtype=np.float32)
        own = rows < n
        taken[own] = stored[rows[own]]
        taken[~own] = newer[rows[~own] - n]
        return taken


def _best(scores: Scores, flags: Flags | None, k: int) -> Rows:
    """Positions of the k highest scores among those that are let through, best first."""
    if flags is None:
        return top(scores, k)
    rows = np.flatnonzero(flags)
    return rows[top(scores[rows], k)]


def _both(flags: Flags | None, others: Flags) -> Flags:
    return others if flags is None else flags & others


def _only(flags: Flags | None) -> Flags | None:
    """The flags of the only query."""
    return None if flags is None else flags[0]
