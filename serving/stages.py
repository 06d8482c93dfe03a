"""The stages between the query and the answer: retrieve, score, slate."""

from dataclasses import dataclass, replace
from datetime import datetime

from serving.catalogue import Catalogue
from serving.pool import Pool
from serving.query import Query
from serving.request import Request
from serving.retrieval import (
    Candidates,
    Search,
    ask,
    load_retrievers,
    share_places,
)
from serving.score import CandidateScorer, KeepScores
from serving.slate import Slate, check_caps, compose
from serving.stage_settings import POPULAR, SIMILAR, RetrievalSettings, SlateSettings


@dataclass(frozen=True)
class AnswerRequest:
    """What is asked of the stages, beside the pool.

    Attributes:
        request: The request.
        request_id: Its id; seeds what is drawn at random.
        now: When it is answered.
        query: What the query tower says; None where it gave no answer.
        retriever: The only retriever to use; empty uses those of the settings, or ``popular``
            where there is no query.
        about: Items that the request is about.
        first: Number of the first slot.
    """

    request: Request
    request_id: str
    now: datetime
    query: Query | None = None
    retriever: str = ""
    about: tuple[str, ...] = ()
    first: int = 0


class Stages:
    """Retrieve, score and compose, as the settings say; the rules have been applied before.

    Args:
        retrieval: Where candidates come from.
        slate: What is shown of them.

    Raises:
        UsageError: A retriever does not exist or cannot be imported in this environment.
    """

    def __init__(self, retrieval: RetrievalSettings, slate: SlateSettings) -> None:
        self.retrieval, self.slate = retrieval, slate
        self.scorer: CandidateScorer = KeepScores()
        self._weights = {name: part for name, part in retrieval.retrievers.items() if part}
        self._retrievers = load_retrievers([*self._weights, POPULAR, SIMILAR])

    def check(self, catalogue: Catalogue) -> None:
        """Check that a bundle has what the settings need.

        Raises:
            UsageError: It has not; the message names the setting.
        """
        check_caps(self.slate, catalogue)

    def answer(self, pool: Pool, asked: AnswerRequest) -> Slate:
        """Run the stages.

        Raises:
            RefitError: A retriever failed.
        """
        k = asked.request.k
        search = Search(
            asked.request,
            asked.now,
            self.slate.count_candidates(k),
            self.weigh(pool.catalogue, asked.query),
            pool,
            self.retrieval,
            asked.about,
        )
        candidates = self.retrieve(search, asked.retriever)
        candidates = self.scorer.score(search, candidates)
        return compose(self.slate, search, candidates, k, asked.request_id, asked.first)

    def weigh(self, catalogue: Catalogue, query: Query | None) -> Query | None:
        """A query with the weight of popularity in its vector."""
        if query is None or self.retrieval.popularity == 1:
            return query
        weighed = query.vector.copy()
        weighed[catalogue.learned_size :] *= self.retrieval.popularity
        return replace(query, vector=weighed)

    def retrieve(self, search: Search, only: str = "") -> Candidates:
        """Ask the retrievers, and share the places among them."""
        weights = self._weights
        if only or search.query is None:
            weights = {only or POPULAR: 1.0}
        found = {name: ask(name, self._retrievers[name], search) for name in weights}
        return share_places(search.pool, found, weights, search.k)
