"""The truth of a small simulated market as a scorer."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from components.evaluation.data import CandidateSnapshot, EvaluationData, Queries
from components.evaluation.ranking import ScoreBlock, Scorer, build_evaluation_set
from components.features.build import build_features
from components.ingestion.ingest import ingest
from pipelines.settings import RunSettings, read_settings
from simulation.marketplace import Marketplace
from tests.benchmarks.quality.perfect import CHANCE, HIT_RATE, Truth

SMALL = "{days: 12, n_shoppers: 200, listings_per_day: 40, visits_per_day: 150}"


@dataclass(frozen=True)
class Worst:
    """Ranks what is best last."""

    best: Scorer

    def at(self, queries: Queries, snapshot: CandidateSnapshot) -> ScoreBlock:
        score = self.best.at(queries, snapshot)
        return lambda block: -score(block)


@pytest.fixture(scope="module")
def settings() -> RunSettings:
    return read_settings("simulated", [f"ingestion.simulated={SMALL}"])


@pytest.fixture(scope="module")
def data(settings: RunSettings, tmp_path_factory: pytest.TempPathFactory) -> EvaluationData:
    folder: Path = tmp_path_factory.mktemp("small")
    ingest(settings.ingestion, folder / "dataset")
    build_features(settings.features, folder / "dataset", folder / "features")
    return EvaluationData(folder / "features")


def test_lists_by_true_utility_are_the_best_and_the_reverse_the_worst(
    settings: RunSettings, data: EvaluationData
) -> None:
    truth = Truth(data, Marketplace(settings.ingestion.simulated))
    evaluation_set = build_evaluation_set(data, "test")
    perfect, worst = (truth.judge(each, evaluation_set) for each in (truth, Worst(truth)))
    assert 0.3 < perfect[CHANCE] < 1
    assert worst[CHANCE] < 0.01
    # What people took is mostly among what suits them best, also where they bought it.
    assert perfect[HIT_RATE] > 0.5
    assert worst[HIT_RATE] < 0.01
