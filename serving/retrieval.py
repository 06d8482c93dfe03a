"""Retrieve: where the candidates of an answer come from.

A retriever finds items for a request, within what the eligibility rules allow. Several share the
places of an answer. Each is a module; see ``Retriever`` for what it has to offer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np

from refit.extensions import naming
from refit.predicates import ListedAfter
from serving.catalogue import Catalogue, Rows, Scores
from serving.engines.engine import EngineFailure
from serving.pool import Found, Pool
from serving.query import Query
from serving.request import Request
from serving.stage_settings import RETRIEVERS, RetrievalSettings

_ADVICE = "correct it, or remove it from retrieval.retrievers"


@dataclass(frozen=True)
class Search:
    """What a retriever is asked for.

    Attributes:
        request: The request.
        now: When it is answered.
        k: How many items are wanted.
        query: What the query tower says; None where there is nothing. Then only ``popular``, or
            ``similar`` for a request about an item, is asked.
        pool: The items, with what the rules allow of them.
        settings: Of the retrievers.
        about: Items that the request is about.
    """

    request: Request
    now: datetime
    k: int
    query: Query | None
    pool: Pool
    settings: RetrievalSettings
    about: tuple[str, ...] = ()

    @property
    def catalogue(self) -> Catalogue:
        """The bundle."""
        return self.pool.catalogue


class Retriever(Protocol):
    """One source of candidates; a module with this name is one."""

    def retrieve(self, search: Search) -> Found:
        """Find at most ``search.k`` eligible items, best first; none if it has none to offer."""
        ...


@dataclass(frozen=True)
class Candidates:
    """C candidates of an answer in the order in which they would be shown, each item once.

    Attributes:
        rows: [C] their rows in the pool.
        scores: [C] what ranks them; scores of different sources cannot be compared.
        sources: [C] the retriever that each place belongs to.
    """

    rows: Rows
    scores: Scores
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)


def load_retrievers(names: Sequence[str]) -> dict[str, Retriever]:
    """Import retrievers by name.

    Raises:
        UsageError: One does not exist or cannot be imported in this environment.
    """
    return {name: RETRIEVERS.load(name) for name in names}


def ask(name: str, retriever: Retriever, search: Search) -> Found:
    """Run one retriever, and leave out what the rules forbid, whatever it returned.

    Raises:
        EngineFailure: The engine on other machines gave no answer.
        RefitError: It failed; the message names it.
    """
    with naming(f"retriever {name!r}", _ADVICE, lambda error: isinstance(error, EngineFailure)):
        found = retriever.retrieve(search)
        allowed = search.pool.is_eligible(found.rows)
    if allowed.all():
        return found
    return Found(found.rows[allowed], found.scores[allowed])


def listed_within(days: float, now: datetime) -> ListedAfter:
    """The condition that an item was listed in the last ``days``."""
    return ListedAfter(int((now.timestamp() - 86_400 * days) * 1e6))


def share_places(
    pool: Pool, found: Mapping[str, Found], weights: Mapping[str, float], k: int
) -> Candidates:
    """Share k places among retrievers in proportion to their weights, evenly over the list.

    Each place goes to the retriever that is furthest behind its share, the first of equal ones,
    and to its best item that has no place yet. An item that several found belongs to the one that
    placed it.
    """
    if len(found) == 1:
        ((name, only),) = found.items()
        rows, scores = only.rows[:k], only.scores[:k]
        return Candidates(rows, scores, (name,) * len(rows))
    waiting = {
        name: list(zip(one.rows.tolist(), one.scores.tolist(), strict=True))[::-1]
        for name, one in found.items()
    }
    total = sum(weights[name] for name in found)
    credit = dict.fromkeys(found, 0.0)
    seen: set[str] = set()
    places: list[tuple[int, float, str]] = []
    while len(places) < k:
        for name in waiting:
            while waiting[name] and pool.item_id(waiting[name][-1][0]) in seen:
                waiting[name].pop()
        offering = [name for name in waiting if waiting[name] and weights[name] > 0]
        if not offering:
            break
        for name in found:
            credit[name] += weights[name] / total
        taker = max(offering, key=lambda name: credit[name])
        credit[taker] -= 1.0
        row, score = waiting[taker].pop()
        seen.add(pool.item_id(row))
        places.append((row, score, taker))
    return Candidates(
        np.array([row for row, _, _ in places], dtype=np.int64),
        np.array([score for _, score, _ in places], dtype=np.float32),
        tuple(name for _, _, name in places),
    )
