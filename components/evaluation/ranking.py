"""Full-catalogue ranking: the rank of the positive item among all items live at that time.

rank = 1 + number of other candidates whose score is at least as high, so ties never help.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.evaluation.candidates import CandidateItems, QueryBlock
from components.evaluation.data import (
    DAY,
    CandidateSnapshot,
    EvaluationData,
    Flags,
    Floats,
    Ints,
    Longs,
    Queries,
)
from refit.eligibility import Eligibility
from refit.errors import DataValidationError
from refit.feature_tables import REQUESTS

THREADS = min(4, os.cpu_count() or 1)
BLOCK_CELLS = 2_000_000
"""Scores computed at a time; few enough to stay in the processor's cache."""
NOT_LIVE = "not_live"
NOT_SEEN = "item not seen"

ScoreBlock = Callable[[Longs], Floats]
"""Maps positions [B] in the queries to the scores [B, C] of a snapshot's candidates."""


class Scorer(Protocol):
    """Scores candidates: the model, the champion or a baseline."""

    def at(self, queries: Queries, snapshot: CandidateSnapshot) -> ScoreBlock:
        """Prepare to score a snapshot's candidates, using only what was known at its time."""
        ...


@dataclass(frozen=True)
class CandidateGroup:
    """Queries that share the same candidates.

    Attributes:
        snapshot: The candidates.
        queries: [R] positions in the queries of the evaluation set.
        positive: [P] position of each positive item of these queries among the candidates, -1 if it
            is not one of them. The positive item of a request is the item of the visit's first
            event.
        owner: [P] which of the R queries each belongs to, ascending.
        places: [P] positions of the same items among all positives of the evaluation set.
    """

    snapshot: CandidateSnapshot
    queries: Longs
    positive: Ints
    owner: Longs
    places: Longs

    def blocks(self) -> Iterator[slice]:
        """Split the queries into blocks of about ``BLOCK_CELLS`` scores."""
        size = max(1, BLOCK_CELLS // max(1, len(self.snapshot.items)))
        for start in range(0, len(self.queries), size):
            yield slice(start, min(start + size, len(self.queries)))

    def positives_of(self, block: slice) -> slice:
        """The entries of ``positive`` that belong to a block of the queries."""
        first, last = np.searchsorted(self.owner, (block.start, block.stop))
        return slice(int(first), int(last))

    def rank(self, ranks: Ints, block: slice, scores: Floats, eligible: Flags | None) -> Ints:
        """Rank the positive items of a block of the queries.

        Args:
            ranks: [E] of all positives of the evaluation set; these are filled in.
            block: The queries.
            scores: [B, C].
            eligible: [B, C]; None if all candidates are.

        Returns:
            [B] number of eligible candidates.
        """
        which = self.positives_of(block)
        owner = self.owner[which] - block.start
        ranks[self.places[which]], candidates = rank_positives(
            scores, self.positive[which], eligible, owner
        )
        return candidates


FindEligible = Callable[[slice], Eligibility]
"""Maps a block of a group's queries to the eligibility of its candidates."""


@dataclass(frozen=True)
class EvaluationSet:
    """The queries to rank, grouped by snapshot.

    In the evaluation set of a split, every positive item is eligible.

    Attributes:
        data: The features folder.
        queries: [n] the queries.
        groups: The same queries, grouped by snapshot.
        left_out: Number of queries that were left out, by reason; of queries with several positive
            items, the number of items.
    """

    data: EvaluationData
    queries: Queries
    groups: tuple[CandidateGroup, ...]
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def starts(self) -> Longs | None:
        """[n + 1] first positive item of each query, then E; None where each event is a query."""
        return None if self.data.relevant == "each" else self.queries.positives.starts

    def eligibility(self, group: CandidateGroup) -> FindEligible:
        """Prepare to apply the eligibility rules to the queries of a group."""
        items = CandidateItems(self.data, group.snapshot)

        def find(block: slice) -> Eligibility:
            queries = QueryBlock.of(self.data, self.queries, group.queries[block])
            return self.data.rules.find_eligible(items, queries)

        return find


@dataclass(frozen=True)
class Ranking:
    """The ranking of an evaluation set by a scorer.

    Attributes:
        rank: [E] rank of each positive item; 1 is the best.
        top: [n, K] the top K eligible items, best first, -1 where there are fewer.
        scores: [n, K] their scores.
        candidates: [n] number of eligible candidates.
        not_finite: Number of scores that were not finite.
        removed: Number of candidates that each eligibility rule removed, over all queries.
        starts: ``EvaluationSet.starts``.
    """

    rank: Ints
    top: Ints
    scores: Floats
    candidates: Ints
    not_finite: int
    removed: Mapping[str, int]
    starts: Longs | None = None

    @property
    def first(self) -> Ints:
        """[n] rank of each query's first positive item."""
        return self.rank if self.starts is None else self.rank[self.starts[:-1]]


def build_evaluation_set(
    data: EvaluationData,
    split: str,
    candidates: str = "live",
    max_queries: int | None = None,
    max_snapshots: int | None = None,
) -> EvaluationSet:
    """Group the queries of a split by the snapshot with their candidates.

    A query whose positive item is ineligible is left out and counted; of several items, those.

    Args:
        data: The features folder.
        split: ``validation`` or ``test``.
        candidates: ``live``, or ``seen`` to keep only items with an event before the split began.
        max_queries: Maximum number of queries, sampled evenly over time.
        max_snapshots: Maximum number of snapshots, sampled evenly over time.

    Raises:
        DataValidationError: No query can be evaluated.
    """
    queries = data.queries[split]
    numbers = data.log.snapshot[queries.rows]
    if max_snapshots is not None:
        kept = spread(np.unique(numbers), max_snapshots)
        queries = queries.take(np.isin(numbers, kept))
    if max_queries is not None:
        queries = queries.take(spread(np.arange(len(queries)), max_queries))
    seen = _seen_items(data, split) if candidates == "seen" else None
    snapshots = data.log.snapshot[queries.rows].astype(np.int64)
    found = EvaluationSet(data, queries, tuple(_candidate_groups(data, queries, snapshots, seen)))
    reasons = _find_reasons(found, seen)
    names, counts = np.unique(reasons[reasons != ""], return_counts=True)
    left_out = {str(name): int(count) for name, count in zip(names, counts, strict=True)}
    if len(counts) and counts.sum() == len(reasons):
        raise DataValidationError(
            f"the {split} split has no query that can be evaluated: {left_out}"
        )
    return leave_out(found, reasons != "", left_out)


def leave_out(
    evaluation_set: EvaluationSet, removed: Flags, left_out: dict[str, int]
) -> EvaluationSet:
    """The evaluation set without the positives of a mask [E], and queries that have no other."""
    before = evaluation_set.queries
    number = np.full(len(before), -1)
    kept_queries = np.unique(before.positives.owner[~removed])
    number[kept_queries] = np.arange(len(kept_queries))
    place = np.cumsum(~removed) - 1
    groups = []
    for group in evaluation_set.groups:
        kept = ~removed[group.places]
        if kept.any():
            members, owner = np.unique(group.owner[kept], return_inverse=True)
            groups.append(
                CandidateGroup(
                    group.snapshot,
                    number[group.queries[members]],
                    group.positive[kept],
                    owner,
                    place[group.places[kept]],
                )
            )
    return EvaluationSet(evaluation_set.data, before.without(removed), tuple(groups), left_out)


def build_request_set(
    data: EvaluationData, most: int, ages_days: Sequence[int] = (0,)
) -> EvaluationSet:
    """Group requests by the snapshot with their candidates.

    Args:
        data: The result of ``EvaluationData.of_requests``.
        most: Maximum number of requests, sampled evenly over time.
        ages_days: How much older than the newest one the snapshot is: for the requests of the first
            day, of the second, and so on, in turn. If there is none so old, the oldest is taken.
    """
    queries = data.queries[REQUESTS]
    queries = queries.take(spread(np.arange(len(queries)), most))
    newest = data.log.snapshot[queries.rows]
    _, day = np.unique(data.log.time[queries.rows] // DAY, return_inverse=True)
    age = np.asarray(ages_days, dtype=np.int64)[day % len(ages_days)] * DAY
    times = data.snapshot_times
    older = np.searchsorted(times, times[newest] - age, side="right") - 1
    snapshots = np.minimum(np.maximum(older, 0), newest)
    return EvaluationSet(data, queries, tuple(_candidate_groups(data, queries, snapshots)))


def rank(scorer: Scorer, evaluation_set: EvaluationSet, length: int) -> Ranking:
    """Rank the candidates of every query and keep the ``length`` best.

    NaN counts as the lowest score for the positive item and as the highest for every other
    candidate, so that a broken model gains nothing from it.
    """
    n = len(evaluation_set.queries)
    ranks = np.zeros(len(evaluation_set.queries.positives.rows), dtype=np.int32)
    candidates = np.zeros(n, dtype=np.int32)
    top = np.full((n, length), -1, dtype=np.int32)
    top_scores = np.full((n, length), -np.inf, dtype=np.float32)
    not_finite, removed = 0, Counter[str]()
    with ThreadPoolExecutor(THREADS) as threads:
        for group in evaluation_set.groups:
            score = scorer.at(evaluation_set.queries, group.snapshot)
            find_eligible = evaluation_set.eligibility(group)

            def fill(
                block: slice,
                group: CandidateGroup = group,
                score: ScoreBlock = score,
                find_eligible: FindEligible = find_eligible,
            ) -> tuple[int, Mapping[str, int]]:
                queries = group.queries[block]
                scores = score(queries)
                found = find_eligible(block)
                candidates[queries] = group.rank(ranks, block, scores, found.eligible)
                best, best_scores = top_k(scores, found.eligible, length)
                top[queries, : best.shape[1]] = _items_at(group, best)
                top_scores[queries, : best.shape[1]] = best_scores
                return _count_not_finite(scores), found.removed

            for broken, by_rule in threads.map(fill, group.blocks()):
                not_finite += broken
                removed.update(by_rule)
    return Ranking(
        ranks, top, top_scores, candidates, not_finite, dict(removed), evaluation_set.starts
    )


def recommend(scorer: Scorer, evaluation_set: EvaluationSet, length: int) -> tuple[Ints, Floats]:
    """Recommend items for every query as a server would, without the positive item.

    Returns:
        [n, length] items, best first, -1 where there are fewer, and their scores.
    """
    n = len(evaluation_set.queries)
    top = np.full((n, length), -1, dtype=np.int32)
    scores = np.full((n, length), -np.inf, dtype=np.float32)
    for group in evaluation_set.groups:
        score = scorer.at(evaluation_set.queries, group.snapshot)
        find_eligible = evaluation_set.eligibility(group)
        for block in group.blocks():
            queries = group.queries[block]
            best, values = top_k(score(queries), find_eligible(block).eligible, length)
            top[queries, : best.shape[1]] = _items_at(group, best)
            scores[queries, : best.shape[1]] = values
    return top, scores


def rank_positives(
    scores: Floats,
    positive: Ints,
    eligible: Flags | None = None,
    owner: Longs | None = None,
) -> tuple[Ints, Ints]:
    """Compute the ranks of positive candidates, and count the eligible candidates of each row.

    Args:
        scores: [B, C].
        positive: [P] columns of the positive candidates; they must be eligible.
        eligible: [B, C] whether each candidate is eligible; None if all are.
        owner: [P] row of each positive, ascending, each row at least once; None: row by row.

    Returns:
        [P] 1 + number of other eligible candidates with a score >= that of the positive one, and
        [B] number of eligible candidates.
    """
    candidates = np.full(len(scores), scores.shape[1], dtype=np.int32)
    if eligible is not None:
        candidates = _count_true(eligible)
    of_positive = candidates
    if owner is not None and len(owner) > len(scores):
        scores, of_positive = scores[owner], candidates[owner]
        eligible = None if eligible is None else eligible[owner]
    below = scores < scores[np.arange(len(scores)), positive][:, None]
    if eligible is not None:
        below &= eligible
    return of_positive - _count_true(below), candidates


def top_k(scores: Floats, eligible: Flags | None, length: int) -> tuple[Ints, Floats]:
    """The ``length`` best candidates of each row, best first; -1 and -inf where there are fewer.

    Only eligible candidates whose score in ``scores`` [B, C] is finite are returned.
    """
    allowed = eligible
    finite = np.isfinite(scores)
    if not finite.all():
        allowed = finite if eligible is None else eligible & finite
    usable = scores if allowed is None else np.where(allowed, scores, np.float32(-np.inf))
    length = min(length, usable.shape[1])
    rows = np.arange(len(usable))[:, None]
    cut = usable.shape[1] - length
    best = (
        np.argpartition(usable, cut, axis=1)[:, cut:]
        if cut
        else np.tile(np.arange(length), (len(usable), 1))
    )
    best = best[rows, np.argsort(-usable[rows, best], axis=1, kind="stable")].astype(np.int32)
    values = usable[rows, best]
    return np.where(np.isneginf(values), np.int32(-1), best), values


def spread(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most ``most`` of the values, evenly spaced in their order."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).round().astype(np.int64)]


def _find_reasons(evaluation_set: EvaluationSet, seen: Flags | None) -> NDArray[np.str_]:
    """[E] the rule that removes each positive item, "" if it can be evaluated."""
    data, queries = evaluation_set.data, evaluation_set.queries
    longest = max(len(name) for name in (*data.rules.names, NOT_SEEN))
    reasons = np.full(len(queries.positives.rows), "", dtype=f"<U{longest}")
    for group in evaluation_set.groups:
        items = CandidateItems(data, group.snapshot)
        for block in group.blocks():
            of_block = group.positives_of(block)
            positive, places = group.positive[of_block], group.places[of_block]
            which = group.queries[group.owner[of_block]]
            live = positive >= 0
            reasons[places[~live]] = NOT_LIVE
            if live.any():
                block_queries = QueryBlock.of(data, queries, which[live])
                found = data.rules.find_reasons(items, block_queries, positive[live])
                reasons[places[live]] = found
    if seen is not None:
        reasons[~seen[data.log.item[queries.positives.rows]]] = NOT_SEEN
    return reasons


def _seen_items(data: EvaluationData, split: str) -> Flags:
    """[N] whether each item has an event before the split began."""
    before = data.log.before(data.split_start(split))
    seen = np.zeros(data.catalogue.size, dtype=np.bool_)
    seen[data.log.item[:before]] = True
    first = data.read_candidates(int(data.log.snapshot[data.queries[split].rows].min()))
    seen[first.items[first.popularity.sum(axis=1) > 0]] = True
    return seen


def _candidate_groups(
    data: EvaluationData, queries: Queries, snapshots: Longs, seen: Flags | None = None
) -> Iterator[CandidateGroup]:
    for number in np.unique(snapshots):
        snapshot = data.read_candidates(int(number), seen)
        members = np.flatnonzero(snapshots == number)
        owner, places = queries.positives.find(members)
        items = data.log.item[queries.positives.rows[places]].astype(np.int64)
        positive = snapshot.positions(items).astype(np.int32)
        yield CandidateGroup(snapshot, members, positive, owner, places)


def _items_at(group: CandidateGroup, positions: Ints) -> Ints:
    """Item indices of positions among the candidates; -1 stays -1."""
    return np.where(positions >= 0, group.snapshot.items[positions], -1)


def _count_true(flags: Flags) -> Ints:
    """Count true flags by row; several times faster than count_nonzero with an axis."""
    return np.add.reduce(flags.view(np.uint8), axis=1, dtype=np.int32)


def _count_not_finite(scores: Floats) -> int:
    finite = np.isfinite(scores)
    return 0 if finite.all() else int(np.count_nonzero(~finite))
