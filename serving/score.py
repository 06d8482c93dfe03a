"""Score: what ranks the candidates; the place of a ranker."""

from typing import Protocol

from serving.retrieval import Candidates, Search


class CandidateScorer(Protocol):
    """Ranks the candidates of one answer."""

    def score(self, search: Search, candidates: Candidates) -> Candidates:
        """The same candidates with the scores and in the order in which they would be shown."""
        ...


class KeepScores:
    """Keeps the scores of the retrievers, and the order in which they share the places."""

    def score(self, search: Search, candidates: Candidates) -> Candidates:
        """The candidates as they are."""
        return candidates
