"""Concept: how the champion ranks, in the whole catalogue, what people find without it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring import tables
from monitoring.quality.intervals import Integers, PersonSums
from monitoring.quality.join import HOUR, EventFeed, within
from monitoring.quality.settings import QualitySettings
from refit.drift import Window
from refit.errors import DataValidationError

WIDE = ("query_embedding", "item_ids", "repeat_item_ids", "repeat_scores")
NARROW = ("request_id", "embedding_version", "user_id", "time", "fallback")
ITEMS_AT_ONCE = 32_768
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class RankedLabels:
    """Items that people chose by themselves, with their rank for the query shortly before.

    Attributes:
        person: [L] number of the person.
        time: [L] when the query was answered, microseconds since 1970.
        rank: [L] rank among all items of the index, from 1.
        unknown: Chosen items that are not in the index.
    """

    person: Integers
    time: Integers
    rank: Integers
    unknown: int

    def sums(self, k: int, period: Window) -> PersonSums | None:
        """The share of labels among the k nearest items, by person; None without labels."""
        inside = within(self.time, period)
        if not inside.any():
            return None
        return PersonSums.of(self.person[inside], (self.rank[inside] <= k).astype(float))

    def mean_reciprocal_rank(self, period: Window) -> float:
        """Mean of 1 / rank over a period's labels."""
        return float((1 / self.rank[within(self.time, period)]).mean())


def rank_labels(
    settings: QualitySettings,
    log: Path,
    feed: EventFeed,
    index: Path,
    embedding_version: str,
    periods: Sequence[Window],
) -> RankedLabels:
    """Rank the labels of some periods in the whole index.

    A label is an event without request id that shows interest in an item of the index that the
    person's latest answer, at most ``concept_hours`` before, did not show. It is ranked by the
    answer's own query vector and what its history adds, exactly: ranks in a sample of items would
    say nothing about ranks in the catalogue (Krichene and Rendle, 2020). An index that is newer
    than a label no longer holds what was sold since; such labels are counted as unknown.

    Raises:
        DataValidationError: The index was built with other towers.
    """
    version, _, items, vectors = tables.read_listings(index)
    if version != embedding_version:
        raise DataValidationError(
            f"the index was built with towers {version}, the answers with {embedding_version}"
        )
    whole = Window(start=periods[0].start, end=periods[-1].end)
    files = tables.log_files(log, whole)
    narrow = tables.read_parts(files, NARROW, whole)
    rows = np.flatnonzero(
        np.asarray(pc.equal(narrow["embedding_version"], embedding_version))
        & np.asarray(pc.is_null(narrow["fallback"]))
        & np.asarray(pc.is_valid(narrow["user_id"]))
    )
    own = narrow.take(pa.array(rows))
    times = np.asarray(pc.cast(own["time"], pa.int64()).to_numpy())
    users = own["user_id"].combine_chunks().dictionary_encode()
    people = users.indices.to_numpy().astype(np.int64)
    organic = feed.organic
    person = _positions(organic.user, users.dictionary)
    interest = np.asarray(pc.is_in(organic.kind, pa.array(settings.click_events, pa.string())))
    event = np.flatnonzero(interest & (person >= 0))
    answer = find_latest(people, times, person[event], organic.time[event])
    recent = answer >= 0
    recent &= organic.time[event] - times[answer] <= settings.concept_hours * HOUR
    event, answer = event[recent], answer[recent]
    item = _positions(organic.item.take(pa.array(event)), items["item_id"].combine_chunks())
    unknown = int((item < 0).sum())
    answer, item = answer[item >= 0], item[item >= 0]
    kept = _draw(settings, periods, people[answer], times[answer])
    answer, item = answer[kept], item[kept]
    wide = tables.read_parts(files, WIDE, whole, rows[answer])
    names = items["item_id"].take(pa.array(item)).to_pylist()
    fresh = [
        vector is not None and name not in shown
        for name, vector, shown in zip(
            names,
            wide["query_embedding"].to_pylist(),
            wide["item_ids"].to_pylist(),
            strict=True,
        )
    ]
    wide, answer, item = wide.filter(pa.array(fresh, pa.bool_())), answer[fresh], item[fresh]
    queries = np.array(wide["query_embedding"].to_pylist(), dtype=np.float32)
    repeats = _read_repeats(wide, items["item_id"].combine_chunks())
    ranks = rank_exactly(queries.reshape(len(item), vectors.shape[1]), vectors, item, repeats)
    return RankedLabels(people[answer], times[answer], ranks, unknown)


def find_latest(people: Integers, times: Integers, person: Integers, moments: Integers) -> Integers:
    """[E] position of each person's latest row before a moment; -1 for none.

    Args:
        people: [N] who.
        times: [N] when.
        person: [E] whose row is looked for.
        moments: [E] before when.
    """
    if not len(people):
        return np.full(len(person), -1, dtype=np.int64)
    order = np.lexsort((times, people))
    moment = np.concatenate([times, moments])
    start, span = int(moment.min()), int(np.ptp(moment)) + 1
    if int(people.max()) + 1 >= 2**63 // span:
        raise DataValidationError("too many people to look labels up; lower quality.baseline_days")
    keys = people[order] * span + (times[order] - start)
    at = np.searchsorted(keys, person * span + (moments - start), side="right") - 1
    found = order[np.maximum(at, 0)]
    return np.where((at >= 0) & (people[found] == person), found, -1).astype(np.int64)


@dataclass(frozen=True)
class Repeats:
    """What histories add to R scores.

    Attributes:
        query: [R] whose.
        item: [R] of which item.
        added: [R].
    """

    query: Integers
    item: Integers
    added: NDArray[np.float32]

    def within(self, start: int, end: int) -> "Repeats":
        """Those of the items from ``start`` to ``end``, which are numbered from 0 then."""
        inside = (self.item >= start) & (self.item < end)
        return Repeats(self.query[inside], self.item[inside] - start, self.added[inside])


NO_REPEATS = Repeats(
    np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
)


def rank_exactly(
    queries: Vectors, vectors: Vectors, items: Integers, repeats: Repeats = NO_REPEATS
) -> Integers:
    """[L] ranks of items among all of them by score, from 1; equal scores do not count.

    Args:
        queries: [L, D] query vectors.
        vectors: [N, D] vectors of the items.
        items: [L] the item of each query.
        repeats: What is added to the inner products.
    """
    better = np.zeros(len(items), dtype=np.int64)
    if not len(items):
        return better
    own = np.einsum("ld,ld->l", queries, np.asarray(vectors[items]))
    labels = repeats.item == items[repeats.query]
    np.add.at(own, repeats.query[labels], repeats.added[labels])
    bar = own + 1e-6 * np.abs(own)  # the same product may round differently in a block
    for start in range(0, len(vectors), ITEMS_AT_ONCE):
        scores = queries @ np.asarray(vectors[start : start + ITEMS_AT_ONCE]).T
        here = repeats.within(start, start + ITEMS_AT_ONCE)
        np.add.at(scores, (here.query, here.item), here.added)
        better += (scores > bar[:, None]).sum(axis=1)
    return better + 1


def _read_repeats(answers: pa.Table, items: pa.Array) -> Repeats:
    """What the histories of answers add to the items of the index."""
    lists = answers["repeat_item_ids"].combine_chunks()
    item = _positions(pa.chunked_array([pc.list_flatten(lists)]), items)
    added = pc.list_flatten(answers["repeat_scores"].combine_chunks())
    known = item >= 0
    query = np.asarray(pc.list_parent_indices(lists)).astype(np.int64)
    return Repeats(query[known], item[known], np.asarray(added, dtype=np.float32)[known])


def _draw(
    settings: QualitySettings, periods: Sequence[Window], people: Integers, times: Integers
) -> Integers:
    """Positions of at most ``concept_queries`` labels of each period, all of a person or none."""
    kept: list[int] = []
    random = np.random.default_rng(0)
    for period in periods:
        rows = np.flatnonzero(within(times, period))
        order = random.permutation(people.max() + 1 if len(people) else 0)
        rows = rows[np.argsort(order[people[rows]], kind="stable")]
        kept += rows[: settings.concept_queries].tolist()
    return np.array(sorted(kept), dtype=np.int64)


def _positions(values: pa.ChunkedArray, among: pa.Array) -> Integers:
    """[N] where each value stands in an array without repeats; -1 if it does not."""
    found = pc.fill_null(pc.index_in(values, value_set=among), -1)
    return np.asarray(found).astype(np.int64)
