"""How good a model's lists in a simulated market are, beside those of a perfect recommender."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from components.evaluation.data import (
    CandidateSnapshot,
    EvaluationData,
    Floats,
    Ints,
    Longs,
    Queries,
)
from components.evaluation.ranking import (
    EvaluationSet,
    ScoreBlock,
    Scorer,
    build_evaluation_set,
    recommend,
)
from components.evaluation.towers import load_model
from pipelines.settings import RunSettings
from simulation.choice import NOT_SHOWN
from simulation.marketplace import CONTEXT_COLUMNS, Marketplace
from simulation.oracle import Oracle

HIT_RATE, CHANCE = "hit_rate_at_10", "chance of a sale"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
K = 10


class Truth:
    """The true utility of items for the visitor of each query, as a scorer of candidates.

    What the visitor bought is on sale for them. What chance decides is not known: what they were
    shown, looked at and took.

    Args:
        data: Features of a simulated market.
        market: The same market.
    """

    def __init__(self, data: EvaluationData, market: Marketplace) -> None:
        self._data, self._oracle = data, Oracle(market)
        self._contexts = data.log.table.select(CONTEXT_COLUMNS).to_pylist()

    def at(self, queries: Queries, snapshot: CandidateSnapshot) -> ScoreBlock:
        """Prepare to score a snapshot's candidates."""
        items = self._data.catalogue.item_id[snapshot.items].tolist()

        def score(block: Longs) -> Floats:
            found = [
                self._oracle.utilities(*self._visit(row, items), if_available=False)
                for row in queries.rows[block].tolist()
            ]
            return np.nan_to_num(np.stack(found), nan=float(NOT_SHOWN)).astype(np.float32)

        return score

    def judge(self, scorer: Scorer, evaluation_set: EvaluationSet) -> dict[str, float]:
        """``HIT_RATE`` and ``CHANCE`` of a scorer's lists of ten; see ``measure_lists``."""
        rows = evaluation_set.queries.rows
        top, _ = recommend(scorer, evaluation_set, K)
        hits = (top == self._data.log.item[rows, None]).any(axis=1)
        chances = [self._chance_of_sale(*at) for at in zip(rows.tolist(), top, strict=True)]
        return {HIT_RATE: float(hits.mean()), CHANCE: float(np.mean(chances))}

    def _chance_of_sale(self, row: int, items: Ints) -> float:
        """Of a list of item indices, best first, -1 for none, for the query of a row of the log."""
        shown = self._data.catalogue.item_id[items[items >= 0]].tolist()
        return self._oracle.chance_of_sale(*self._visit(row, shown), if_available=False)

    def _visit(
        self, row: int, items: Sequence[str]
    ) -> tuple[str, dict[str, str], Sequence[str], datetime]:
        log = self._data.log
        context = {name: value or "" for name, value in self._contexts[row].items()}
        time = EPOCH + timedelta(microseconds=int(log.time[row]))
        return str(log.user_ids[log.user[row]]), context, items, time


def measure_lists(
    settings: RunSettings, features: Path, model: Path
) -> dict[str, dict[str, float]]:
    """Measure lists of ten for the test queries.

    Args:
        settings: Of the run; its market is simulated once more.
        features: Features folder.
        model: Model folder.

    Returns:
        Two means over the queries, ``HIT_RATE``, and ``CHANCE``, the true chance that the list ends
        in a purchase: of ``model``, and of ``perfect``, the items of highest true utility. No list
        has a higher chance.
    """
    data = EvaluationData(features)
    evaluation_set = build_evaluation_set(
        data, "test", settings.evaluation.candidates, max_queries=settings.evaluation.max_queries
    )
    truth = Truth(data, Marketplace(settings.ingestion.simulated))
    scorers = {"model": load_model(data, model), "perfect": truth}
    return {name: truth.judge(scorer, evaluation_set) for name, scorer in scorers.items()}
