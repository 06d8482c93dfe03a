"""Full-catalogue ranking: where the chosen item stood among all the stock live at that moment.

rank = 1 + number of other candidates that score at least as high: ties never help.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.evaluation.data import (
    CandidateSnapshot,
    EvaluationData,
    Flags,
    Floats,
    Ints,
    Longs,
    Queries,
)
from refit.errors import DataValidationError
from refit.feature_tables import REQUESTS

THREADS = min(4, os.cpu_count() or 1)
BLOCK_CELLS = 2_000_000
"""Scores held at once; small enough to stay near the processor."""

ScoreBlock = Callable[[Longs], Floats]
"""From positions [B] in the queries to the scores [B, C] of a moment's candidates."""


class Scorer(Protocol):
    """One way to recommend: the model, the champion or a baseline."""

    def at(self, queries: Queries, moment: CandidateSnapshot) -> ScoreBlock:
        """Get ready to score a moment's candidates, knowing nothing later than the moment."""
        ...


@dataclass(frozen=True)
class CandidateGroup:
    """The queries that choose from the same moment's stock.

    Attributes:
        moment: What stands to choice.
        queries: [R] positions in the queries.
        chosen: [R] position of the chosen item among the candidates; of a request the item that
            was met first, -1 where it is no candidate.
    """

    moment: CandidateSnapshot
    queries: Longs
    chosen: Ints


@dataclass(frozen=True)
class EvaluationSet:
    """All that is ranked: queries with a chosen item that could have been offered.

    Attributes:
        data: The features folder.
        queries: [n] the queries.
        rounds: The same queries by moment.
        left_out: Queries that were left out, by reason.
        exclude_history_types: Items in the history by these event types are not offered.
    """

    data: EvaluationData
    queries: Queries
    rounds: tuple[CandidateGroup, ...]
    left_out: dict[str, int]
    exclude_history_types: tuple[str, ...] = ()

    def blocks(self, group: CandidateGroup) -> Iterator[slice]:
        """Cut a round so that a block's scores fit near the processor."""
        size = max(1, BLOCK_CELLS // max(1, len(group.moment.items)))
        for start in range(0, len(group.queries), size):
            yield slice(start, min(start + size, len(group.queries)))

    def closed(self, group: CandidateGroup, block: slice) -> Flags | None:
        """[B, C] candidates that a query may not be offered; None when it may be offered all.

        Not live at its time (not known yet, or gone; gone by this very event is still live), the
        user's own listings, and what its history excludes.
        """
        catalogue, log = self.data.catalogue, self.data.log
        items = group.moment.items
        queries = group.queries[block]
        rows = self.queries.rows[queries]
        time = log.time[rows]
        closed: Flags | None = None
        known_at, gone_at, seller = (
            column[items] for column in (catalogue.known_at, catalogue.gone_at, catalogue.seller)
        )
        if known_at.max() > time.min():
            closed = known_at[None, :] > time[:, None]
        if gone_at.min() < time.max():
            closed = _either(closed, gone_at[None, :] < time[:, None])
        if seller.max() >= 0:
            closed = _either(closed, seller[None, :] == log.user[rows][:, None])
        if self.exclude_history_types:
            closed = _either(closed, self._in_history(group, queries))
        return closed

    def _in_history(self, group: CandidateGroup, queries: Longs) -> Flags:
        position = np.full(self.data.catalogue.size, -1, dtype=np.int32)
        position[group.moment.items] = np.arange(len(group.moment.items), dtype=np.int32)
        past = self.queries.history
        items = past.item[queries]
        found = np.where(items >= 0, position[items], -1)
        counts = (found >= 0) & np.isin(past.event_type[queries], self.exclude_history_types)
        closed = np.zeros((len(queries), len(group.moment.items)), dtype=np.bool_)
        row, place = np.nonzero(counts)
        closed[row, found[row, place]] = True
        return closed


@dataclass(frozen=True)
class Ranking:
    """What a scorer made of a evaluation_set.

    Attributes:
        rank: [n] place of the chosen item, 1 is the best.
        top: [n, K] the items it would have shown, best first, -1 where there were fewer.
        scores: [n, K] their scores.
        candidates: [n] how many items stood to choice.
        not_finite: Scores that were no finite number.
    """

    rank: Ints
    top: Ints
    scores: Floats
    candidates: Ints
    not_finite: int


def build_evaluation_set(
    data: EvaluationData,
    split: str,
    candidates: str = "live",
    exclude_history_types: tuple[str, ...] = (),
    max_queries: int | None = None,
    max_moments: int | None = None,
) -> EvaluationSet:
    """Lay out the queries of a split with the stock live at each moment.

    Args:
        data: The features folder.
        split: ``validation`` or ``test``.
        candidates: ``live``, or ``seen``: only items with an event before the split began.
        exclude_history_types: Items in the history by these event types are not offered.
        max_queries: More queries than this are thinned out evenly over time.
        max_moments: Only so many snapshots are looked at, evenly over time.

    Raises:
        DataValidationError: No query is left.
    """
    queries = data.queries[split]
    snapshots = data.log.snapshot[queries.rows]
    if max_moments is not None:
        kept = spread(np.unique(snapshots), max_moments)
        queries = queries.take(np.isin(snapshots, kept))
    if max_queries is not None:
        queries = queries.take(spread(np.arange(len(queries)), max_queries))
    seen = _seen_items(data, split) if candidates == "seen" else None
    reasons = _reasons(data, queries, seen, exclude_history_types)
    snapshots = data.log.snapshot[queries.rows]
    moments: list[CandidateSnapshot] = []
    for snapshot in np.unique(snapshots):
        moment = data.read_candidates(int(snapshot), seen)
        moments.append(moment)
        here = snapshots == snapshot
        offered = np.isin(data.log.item[queries.rows[here]], moment.items)
        reasons[here] = np.where(offered | (reasons[here] != ""), reasons[here], "not live")
    names, counts = np.unique(reasons[reasons != ""], return_counts=True)
    left_out = {str(name): int(count) for name, count in zip(names, counts, strict=True)}
    queries = queries.take(reasons == "")
    if not len(queries):
        raise DataValidationError(f"the {split} split has no query that can be judged: {left_out}")
    rounds = tuple(_candidate_groups(data, queries, moments))
    return EvaluationSet(data, queries, rounds, left_out, exclude_history_types)


def build_request_set(
    data: EvaluationData, most: int, exclude_history_types: tuple[str, ...] = ()
) -> EvaluationSet:
    """Lay out the requests, evenly over time, with the stock live at each moment.

    Args:
        data: What ``EvaluationData.of_requests`` gives.
        most: At most this many requests.
        exclude_history_types: Items in the history by these event types are not offered.
    """
    queries = data.queries[REQUESTS]
    queries = queries.take(spread(np.arange(len(queries)), most))
    snapshots = np.unique(data.log.snapshot[queries.rows])
    rounds = tuple(
        _candidate_groups(data, queries, [data.read_candidates(int(s)) for s in snapshots])
    )
    return EvaluationSet(data, queries, rounds, {}, exclude_history_types)


def rank(scorer: Scorer, evaluation_set: EvaluationSet, length: int) -> Ranking:
    """Rank every query's candidates; keep the ``length`` best.

    A score that is no number counts as high as any for the others, and as low as any for the
    chosen item, so that a broken model cannot gain by it.
    """
    n = len(evaluation_set.queries)
    places = np.zeros(n, dtype=np.int32)
    candidates = np.zeros(n, dtype=np.int32)
    top = np.full((n, length), -1, dtype=np.int32)
    top_scores = np.full((n, length), -np.inf, dtype=np.float32)
    not_finite = 0
    with ThreadPoolExecutor(THREADS) as threads:
        for group in evaluation_set.rounds:
            score = scorer.at(evaluation_set.queries, group.moment)

            def fill(block: slice, group: CandidateGroup = group, score: ScoreBlock = score) -> int:
                queries = group.queries[block]
                scores = score(queries)
                closed = evaluation_set.closed(group, block)
                places[queries], candidates[queries] = place(scores, group.chosen[block], closed)
                best, best_scores = top_k(scores, closed, length)
                shown = np.where(best >= 0, group.moment.items[best], -1)
                top[queries, : best.shape[1]], top_scores[queries, : best.shape[1]] = (
                    shown,
                    best_scores,
                )
                return _count_not_finite(scores)

            not_finite += sum(threads.map(fill, evaluation_set.blocks(group)))
    return Ranking(places, top, top_scores, candidates, not_finite)


def recommend(scorer: Scorer, evaluation_set: EvaluationSet, length: int) -> tuple[Ints, Floats]:
    """Answer every query as a server would: the best candidates, whatever was chosen.

    Returns:
        [n, length] items, best first, -1 where there were fewer, and their scores.
    """
    n = len(evaluation_set.queries)
    top = np.full((n, length), -1, dtype=np.int32)
    scores = np.full((n, length), -np.inf, dtype=np.float32)
    for group in evaluation_set.rounds:
        score = scorer.at(evaluation_set.queries, group.moment)
        for block in evaluation_set.blocks(group):
            queries = group.queries[block]
            best, values = top_k(score(queries), evaluation_set.closed(group, block), length)
            top[queries, : best.shape[1]] = np.where(best >= 0, group.moment.items[best], -1)
            scores[queries, : best.shape[1]] = values
    return top, scores


def place(scores: Floats, chosen: Ints, closed: Flags | None = None) -> tuple[Ints, Ints]:
    """Place of the chosen candidate in each row, and the number of candidates.

    Args:
        scores: [B, C].
        chosen: [B] column of the chosen candidate; it must not be closed.
        closed: [B, C] what does not stand to choice.

    Returns:
        [B] 1 + number of other candidates with a score >= the chosen one's, and [B] candidates.
    """
    below = scores < scores[np.arange(len(scores)), chosen][:, None]
    candidates = np.full(len(scores), scores.shape[1], dtype=np.int32)
    if closed is not None:
        candidates -= _count_true(closed)
        below &= ~closed
    return candidates - _count_true(below), candidates


def top_k(scores: Floats, closed: Flags | None, length: int) -> tuple[Ints, Floats]:
    """The best candidates of each row, best first; -1 and -inf where there are fewer.

    Scores [B, C] that are closed, or no number, are never among them.
    """
    unfit = closed
    if not np.isfinite(scores).all():
        unfit = _either(closed, ~np.isfinite(scores))
    held = scores if unfit is None else np.where(unfit, np.float32(-np.inf), scores)
    length = min(length, held.shape[1])
    rows = np.arange(len(held))[:, None]
    cut = held.shape[1] - length
    best = (
        np.argpartition(held, cut, axis=1)[:, cut:]
        if cut
        else np.tile(np.arange(length), (len(held), 1))
    )
    best = best[rows, np.argsort(-held[rows, best], axis=1, kind="stable")].astype(np.int32)
    values = held[rows, best]
    return np.where(np.isneginf(values), np.int32(-1), best), values


def spread(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the values, evenly over their order."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).round().astype(np.int64)]


def _reasons(
    data: EvaluationData, queries: Queries, seen: Flags | None, exclude_history_types: Sequence[str]
) -> NDArray[np.str_]:
    """Why a query cannot be judged, "" where it can."""
    catalogue, log = data.catalogue, data.log
    item, user, time = (column[queries.rows] for column in (log.item, log.user, log.time))
    reasons = np.full(len(queries), "", dtype="<U24")
    past = queries.history
    had = (past.item == item[:, None]) & np.isin(past.event_type, exclude_history_types)
    reasons[had.any(axis=1)] = "had it already"
    reasons[catalogue.seller[item] == user] = "own listing"
    reasons[(catalogue.known_at[item] > time) | (catalogue.gone_at[item] < time)] = "not live"
    if seen is not None:
        reasons[~seen[item]] = "item not seen"
    return reasons


def _seen_items(data: EvaluationData, split: str) -> Flags:
    """[N] items with an event before the split began."""
    before = data.log.before(data.split_start(split))
    seen = np.zeros(data.catalogue.size, dtype=np.bool_)
    seen[data.log.item[:before]] = True
    first = data.read_candidates(int(data.log.snapshot[data.queries[split].rows].min()))
    seen[first.items[first.popularity.sum(axis=1) > 0]] = True
    return seen


def _candidate_groups(
    data: EvaluationData, queries: Queries, moments: Sequence[CandidateSnapshot]
) -> Iterator[CandidateGroup]:
    position = np.full(data.catalogue.size, -1, dtype=np.int32)
    snapshots = data.log.snapshot[queries.rows]
    for moment in moments:
        here = np.flatnonzero(snapshots == moment.snapshot)
        if len(here):
            position[moment.items] = np.arange(len(moment.items), dtype=np.int32)
            yield CandidateGroup(moment, here, position[data.log.item[queries.rows[here]]])


def _either(closed: Flags | None, more: Flags) -> Flags:
    return more if closed is None else closed | more


def _count_true(flags: Flags) -> Ints:
    """Count by row, several times quicker than count_nonzero with an axis."""
    return np.add.reduce(flags.view(np.uint8), axis=1, dtype=np.int32)


def _count_not_finite(scores: Floats) -> int:
    finite = np.isfinite(scores)
    return 0 if finite.all() else int(np.count_nonzero(~finite))
