"""Full-catalogue ranking: the rank of the positive item among all items live at that time.

rank = 1 + number of other candidates that score at least as high: ties never help.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.evaluation.candidates import CandidateItems, QueryBlock
from components.evaluation.data import (
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
"""Scores held at once; small enough to stay near the processor."""
NOT_LIVE = "not_live"
NOT_SEEN = "item not seen"

ScoreBlock = Callable[[Longs], Floats]
"""From positions [B] in the queries to the scores [B, C] of a snapshot's candidates."""


class Scorer(Protocol):
    """One way to recommend: the model, the champion or a baseline."""

    def at(self, queries: Queries, snapshot: CandidateSnapshot) -> ScoreBlock:
        """Prepare to score a snapshot's candidates; nothing later than the snapshot is known."""
        ...


@dataclass(frozen=True)
class CandidateGroup:
    """The queries that have the same candidates.

    Attributes:
        snapshot: The candidates.
        queries: [R] positions in the queries.
        positive: [R] position of the positive item among the candidates; of a request, the item
            of the visit's first event, -1 where it is no candidate.
    """

    snapshot: CandidateSnapshot
    queries: Longs
    positive: Ints

    def blocks(self) -> Iterator[slice]:
        """Split the queries so that a block's scores fit near the processor."""
        size = max(1, BLOCK_CELLS // max(1, len(self.snapshot.items)))
        for start in range(0, len(self.queries), size):
            yield slice(start, min(start + size, len(self.queries)))


FindEligible = Callable[[slice], Eligibility]
"""From a block of a group's queries to what the eligibility rules leave of its candidates."""


@dataclass(frozen=True)
class EvaluationSet:
    """All that is ranked: queries with a positive item that could have been shown.

    Attributes:
        data: The features folder.
        queries: [n] the queries.
        groups: The same queries by snapshot.
        left_out: Queries that were left out, by reason.
    """

    data: EvaluationData
    queries: Queries
    groups: tuple[CandidateGroup, ...]
    left_out: dict[str, int] = field(default_factory=dict)

    def eligibility(self, group: CandidateGroup) -> FindEligible:
        """Prepare to apply the eligibility rules to the queries of a group."""
        items = CandidateItems(self.data, group.snapshot)

        def find(block: slice) -> Eligibility:
            asked = QueryBlock.of(self.data, self.queries, group.queries[block])
            return self.data.rules.find_eligible(items, asked)

        return find


@dataclass(frozen=True)
class Ranking:
    """How a scorer ranked an evaluation set.

    Attributes:
        rank: [n] rank of the positive item, 1 is the best.
        top: [n, K] the items that it would have shown, best first, -1 where there were fewer.
        scores: [n, K] their scores.
        candidates: [n] number of eligible candidates.
        not_finite: Number of scores that were not finite.
        removed: How many candidates each eligibility rule removed, over all queries.
    """

    rank: Ints
    top: Ints
    scores: Floats
    candidates: Ints
    not_finite: int
    removed: Mapping[str, int]


def build_evaluation_set(
    data: EvaluationData,
    split: str,
    candidates: str = "live",
    max_queries: int | None = None,
    max_snapshots: int | None = None,
) -> EvaluationSet:
    """Group the queries of a split by the snapshot that holds their candidates.

    A query whose positive item could not have been shown is left out and counted.

    Args:
        data: The features folder.
        split: ``validation`` or ``test``.
        candidates: ``live``, or ``seen``: only items with an event before the split began.
        max_queries: More queries than this are thinned out evenly over time.
        max_snapshots: Only so many snapshots are used, evenly over time.

    Raises:
        DataValidationError: No query is left.
    """
    queries = data.queries[split]
    numbers = data.log.snapshot[queries.rows]
    if max_snapshots is not None:
        kept = spread(np.unique(numbers), max_snapshots)
        queries = queries.take(np.isin(numbers, kept))
    if max_queries is not None:
        queries = queries.take(spread(np.arange(len(queries)), max_queries))
    seen = _seen_items(data, split) if candidates == "seen" else None
    found = EvaluationSet(data, queries, tuple(_candidate_groups(data, queries, seen)))
    reasons = _find_reasons(found, seen)
    names, counts = np.unique(reasons[reasons != ""], return_counts=True)
    left_out = {str(name): int(count) for name, count in zip(names, counts, strict=True)}
    if len(counts) and counts.sum() == len(queries):
        raise DataValidationError(
            f"the {split} split has no query that can be evaluated: {left_out}"
        )
    return _without(found, reasons != "", left_out)


def build_request_set(data: EvaluationData, most: int) -> EvaluationSet:
    """Group the requests, evenly over time, by the snapshot that holds their candidates.

    Args:
        data: What ``EvaluationData.of_requests`` returns.
        most: At most this many requests.
    """
    queries = data.queries[REQUESTS]
    queries = queries.take(spread(np.arange(len(queries)), most))
    return EvaluationSet(data, queries, tuple(_candidate_groups(data, queries)))


def rank(scorer: Scorer, evaluation_set: EvaluationSet, length: int) -> Ranking:
    """Rank every query's candidates; keep the ``length`` best.

    A score that is not a number counts as high as any for the others, and as low as any for the
    positive item, so that a broken model cannot gain by it.
    """
    n = len(evaluation_set.queries)
    ranks = np.zeros(n, dtype=np.int32)
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
                ranks[queries], candidates[queries] = rank_positives(
                    scores, group.positive[block], found.eligible
                )
                best, best_scores = top_k(scores, found.eligible, length)
                top[queries, : best.shape[1]] = _items_at(group, best)
                top_scores[queries, : best.shape[1]] = best_scores
                return _count_not_finite(scores), found.removed

            for broken, by_rule in threads.map(fill, group.blocks()):
                not_finite += broken
                removed.update(by_rule)
    return Ranking(ranks, top, top_scores, candidates, not_finite, dict(removed))


def recommend(scorer: Scorer, evaluation_set: EvaluationSet, length: int) -> tuple[Ints, Floats]:
    """Answer every query as a server would: the best candidates, whatever the positive item is.

    Returns:
        [n, length] items, best first, -1 where there were fewer, and their scores.
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
    scores: Floats, positive: Ints, eligible: Flags | None = None
) -> tuple[Ints, Ints]:
    """Rank of the positive candidate in each row, and the number of eligible candidates.

    Args:
        scores: [B, C].
        positive: [B] column of the positive candidate; it must be eligible.
        eligible: [B, C] which candidates are; None for all.

    Returns:
        [B] 1 + number of other candidates with a score >= that of the positive one, and [B]
        number of candidates.
    """
    below = scores < scores[np.arange(len(scores)), positive][:, None]
    candidates = np.full(len(scores), scores.shape[1], dtype=np.int32)
    if eligible is not None:
        candidates = _count_true(eligible)
        below &= eligible
    return candidates - _count_true(below), candidates


def top_k(scores: Floats, eligible: Flags | None, length: int) -> tuple[Ints, Floats]:
    """The best candidates of each row, best first; -1 and -inf where there are fewer.

    Only scores [B, C] of eligible candidates that are finite are among them.
    """
    fit = eligible
    finite = np.isfinite(scores)
    if not finite.all():
        fit = finite if eligible is None else eligible & finite
    usable = scores if fit is None else np.where(fit, scores, np.float32(-np.inf))
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
    """At most so many of the values, evenly over their order."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).round().astype(np.int64)]


def _find_reasons(evaluation_set: EvaluationSet, seen: Flags | None) -> NDArray[np.str_]:
    """[n] why a query cannot be evaluated, "" where it can: which rule removes its positive."""
    data, queries = evaluation_set.data, evaluation_set.queries
    longest = max(len(name) for name in (*data.rules.names, NOT_SEEN))
    reasons = np.full(len(queries), "", dtype=f"<U{longest}")
    for group in evaluation_set.groups:
        items = CandidateItems(data, group.snapshot)
        for block in group.blocks():
            positive, which = group.positive[block], group.queries[block]
            there = positive >= 0
            reasons[which[~there]] = NOT_LIVE
            if there.any():
                asked = QueryBlock.of(data, queries, which[there])
                reasons[which[there]] = data.rules.find_reasons(items, asked, positive[there])
    if seen is not None:
        reasons[~seen[data.log.item[queries.rows]]] = NOT_SEEN
    return reasons


def _without(evaluation_set: EvaluationSet, gone: Flags, left_out: dict[str, int]) -> EvaluationSet:
    """The evaluation set without some of its queries."""
    number = np.cumsum(~gone) - 1
    groups = []
    for group in evaluation_set.groups:
        stays = ~gone[group.queries]
        if stays.any():
            kept = number[group.queries[stays]]
            groups.append(CandidateGroup(group.snapshot, kept, group.positive[stays]))
    queries = evaluation_set.queries.take(~gone)
    return EvaluationSet(evaluation_set.data, queries, tuple(groups), left_out)


def _seen_items(data: EvaluationData, split: str) -> Flags:
    """[N] items with an event before the split began."""
    before = data.log.before(data.split_start(split))
    seen = np.zeros(data.catalogue.size, dtype=np.bool_)
    seen[data.log.item[:before]] = True
    first = data.read_candidates(int(data.log.snapshot[data.queries[split].rows].min()))
    seen[first.items[first.popularity.sum(axis=1) > 0]] = True
    return seen


def _candidate_groups(
    data: EvaluationData, queries: Queries, seen: Flags | None = None
) -> Iterator[CandidateGroup]:
    snapshots = data.log.snapshot[queries.rows]
    for number in np.unique(snapshots):
        snapshot = data.read_candidates(int(number), seen)
        here = np.flatnonzero(snapshots == number)
        items = data.log.item[queries.rows[here]].astype(np.int64)
        positive = CandidateItems(data, snapshot).positions(items)
        yield CandidateGroup(snapshot, here, positive.astype(np.int32))


def _items_at(group: CandidateGroup, positions: Ints) -> Ints:
    """Item indices of positions among the candidates; -1 stays -1."""
    return np.where(positions >= 0, group.snapshot.items[positions], -1)


def _count_true(flags: Flags) -> Ints:
    """Count by row, several times quicker than count_nonzero with an axis."""
    return np.add.reduce(flags.view(np.uint8), axis=1, dtype=np.int32)


def _count_not_finite(scores: Floats) -> int:
    finite = np.isfinite(scores)
    return 0 if finite.all() else int(np.count_nonzero(~finite))
