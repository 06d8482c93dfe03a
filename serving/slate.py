"""Slate: which candidates are shown, where, and with which probability.

Two things are done to the order of the candidates. First a list is chosen greedily: at each place
the best of the next candidates, less what it repeats of those above it (Maximal Marginal Relevance,
Carbonell and Goldstein 1998), of those that keep the caps. Then some slots are drawn at random.

**Exploration.** Let S be the slots that may be drawn, s their number, E the listings to explore, e
their number, and x the share. Each slot of S is drawn with probability x, independently. Beside it,
the slots of S get different entries of a list of n = max(s, e) places at random, of which e hold
the listings and the others nothing. A drawn slot shows the listing of its entry; if the entry holds
nothing, or the slot is not drawn, it shows the item that was chosen for it. So at every slot of S

- a listing of E is shown with probability x / n,
- the chosen item is shown with probability 1 - x e / n,

and at every other slot the chosen item is shown with probability 1. These are the probabilities
that are logged: of this item in this slot, over all draws, given the request and what the server
knew. They are no probabilities given other slots. An item that gives way to a listing is not shown
further down; it comes first on the next page.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from refit.columns import Flags
from refit.errors import UsageError
from refit.predicates import SELLER, AnyOf, Predicate, UnderShown
from refit.prediction import EXPLORATION
from serving.catalogue import Catalogue, to_unit
from serving.retrieval import Candidates, Search, listed_within
from serving.stage_settings import ExplorationSettings, SlateSettings


@dataclass(frozen=True)
class Slate:
    """What is shown.

    Attributes:
        items: Item ids and scores, by slot.
        rows: Their rows in the pool.
        sources: Where each item comes from: its retriever, or ``exploration``.
        propensities: The probability with which each was shown in its slot; None where nothing
            was drawn at random.
        given_up: By how much the mean score of the chosen list is below that of the first
            candidates, in the query tower's scores; None where the order of the candidates was
            kept or there is no query vector.
    """

    items: list[tuple[str, float]]
    rows: list[int]
    sources: list[str]
    propensities: list[float] | None = None
    given_up: float | None = None


def check_caps(settings: SlateSettings, catalogue: Catalogue) -> None:
    """Check that a bundle has the columns to cap.

    Raises:
        UsageError: It has not.
    """
    there = sorted({*catalogue.attributes, *([SELLER] if catalogue.sellers else [])})
    for column in settings.caps:
        if column not in there:
            raise UsageError(
                f"slate.caps: the items have no column {column!r} to cap; "
                f"they have: {', '.join(there)}"
            )


def compose(
    settings: SlateSettings,
    search: Search,
    candidates: Candidates,
    k: int,
    request_id: str,
    first: int = 0,
) -> Slate:
    """Choose the k items that are shown, and draw the slots that explore.

    Args:
        settings: How.
        search: What was searched for.
        candidates: What was found, in order.
        k: Number of slots.
        request_id: Seeds the draw: the same request id draws the same.
        first: Number of the first slot; that of a later page is not 0.
    """
    if settings.chooses:
        chosen, given_up = _choose(settings, search, candidates, k)
        rows, scores = candidates.rows[chosen].tolist(), candidates.scores[chosen].tolist()
        sources = [candidates.sources[i] for i in chosen]
    else:
        rows, scores = candidates.rows[:k].tolist(), candidates.scores[:k].tolist()
        sources, given_up = list(candidates.sources[:k]), None
    propensities = None
    exploration = settings.exploration
    if exploration.share and search.query is not None:
        draw = _draw(exploration, search, rows, first, request_id)
        propensities = draw.propensities
        for slot, (row, score) in draw.shown.items():
            rows[slot], scores[slot], sources[slot] = row, score, EXPLORATION
    items = list(zip(search.pool.item_ids(rows), scores, strict=True))
    return Slate(items, rows, sources, propensities, given_up)


def _choose(
    settings: SlateSettings, search: Search, candidates: Candidates, k: int
) -> tuple[list[int], float | None]:
    """The candidates of each slot, and what this gives up of the scores."""
    vectors = to_unit(search.pool.content(candidates.rows)) if settings.diversity else None
    groups = [search.pool.values(column, candidates.rows) for column in settings.caps]
    chosen = choose(
        len(candidates), k, settings.diversity, vectors, groups, list(settings.caps.values())
    )
    if search.query is None or not chosen:
        return chosen, None
    scores = search.pool.score(search.query, candidates.rows)
    return chosen, float(scores[: len(chosen)].mean() - scores[chosen].mean())


def choose(
    n: int,
    k: int,
    diversity: float,
    vectors: NDArray[np.float32] | None,
    groups: Sequence[Sequence[object]],
    caps: Sequence[int],
) -> list[int]:
    """Choose k of n candidates in order, greedily.

    The value of candidate r of n is ``(1 - diversity) (1 - r / n) - diversity * likeness``, where
    its likeness is the largest cosine to what was chosen before. It depends on the order of the
    candidates alone, because scores of different retrievers cannot be compared.

    Args:
        n: Number of candidates.
        k: Number to choose.
        diversity: Between 0 and 1.
        vectors: [n, C] unit vectors of the candidates; None without diversity.
        groups: For each cap, [n] the value of each candidate, None where missing.
        caps: How many candidates of one value may be chosen; broken only where fewer than k would
            be left.

    Returns:
        Numbers of the candidates, by slot.
    """
    value = (1 - diversity) * (1 - np.arange(n) / max(n, 1))
    likeness = np.full(n, -1.0)
    waiting = np.ones(n, dtype=np.bool_)
    within = np.ones(n, dtype=np.bool_)
    codes = [_number(values) for values in groups]
    counts = [np.zeros(n, dtype=np.int64) for _ in groups]
    chosen: list[int] = []
    while len(chosen) < min(k, n):
        open_to: Flags = waiting & within
        allowed = open_to if open_to.any() else waiting
        worth = value if vectors is None else value - diversity * np.maximum(likeness, 0)
        best = int(np.argmax(np.where(allowed, worth, -np.inf)))
        chosen.append(best)
        waiting[best] = False
        if vectors is not None:
            likeness = np.maximum(likeness, vectors @ vectors[best])
        for code, count, cap in zip(codes, counts, caps, strict=True):
            if code[best] >= 0:
                count[code[best]] += 1
                if count[code[best]] == cap:
                    within &= code != code[best]
    return chosen


@dataclass(frozen=True)
class _Draw:
    """The slots that show a drawn listing, its row and score; and every slot's probability."""

    shown: dict[int, tuple[int, float]]
    propensities: list[float]


def _draw(
    settings: ExplorationSettings, search: Search, rows: Sequence[int], first: int, request_id: str
) -> _Draw:
    slots = [slot for slot in range(len(rows)) if first + slot >= settings.first_slot]
    propensities = [1.0] * len(rows)
    shown: dict[int, tuple[int, float]] = {}
    listings = _find_nearest(settings, search, rows) if slots else []
    if not listings:
        return _Draw(shown, propensities)
    entries = max(len(slots), len(listings))
    rng = random_generator(settings.salt, request_id)
    drawn = (rng.random(len(slots)) < settings.share).tolist()
    entry = rng.permutation(entries).tolist()
    for i, slot in enumerate(slots):
        if drawn[i] and entry[i] < len(listings):
            shown[slot] = listings[entry[i]]
            propensities[slot] = settings.share / entries
        else:
            propensities[slot] = 1.0 - settings.share * len(listings) / entries
    return _Draw(shown, propensities)


def _find_nearest(
    settings: ExplorationSettings, search: Search, rows: Sequence[int]
) -> list[tuple[int, float]]:
    """Rows and scores of the listings to draw from: the nearest ones, without what is shown."""
    if search.query is None:
        return []
    wanted = settings.listings + len(rows)
    found = search.pool.recommend(search.query, wanted, new_or_under_shown(settings, search.now))
    shown = set(map(search.pool.item_id, rows))
    pairs = zip(found.rows.tolist(), found.scores.tolist(), strict=True)
    new = [pair for pair in pairs if search.pool.item_id(pair[0]) not in shown]
    return new[: settings.listings]


def new_or_under_shown(settings: ExplorationSettings, now: datetime) -> Predicate:
    """What is explored, whether it is eligible or not."""
    new = listed_within(settings.new_days, now)
    return AnyOf((new, UnderShown(settings.under_shown)))


def random_generator(salt: str, request_id: str) -> np.random.Generator:
    """The generator of one request: the same salt and request id give the same draws."""
    digest = hashlib.sha256(f"{salt}:{request_id}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16])))


def _number(values: Sequence[object]) -> NDArray[np.int64]:
    """[n] a number for each value, -1 where it is missing."""
    numbers: dict[object, int] = {}
    return np.array(
        [-1 if value is None else numbers.setdefault(value, len(numbers)) for value in values],
        dtype=np.int64,
    )
