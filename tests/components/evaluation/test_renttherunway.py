"""Known baselines on real rentals: frozen at 2017-07-01, items seen before, every test row."""

import pytest

from components.evaluation.data import EvaluationData
from components.evaluation.metrics import per_query
from components.evaluation.naive_bayes import (
    NaiveBayesPopularity,
    NaiveBayesScorer,
    PopularityFactor,
)
from components.evaluation.ranking import build_evaluation_set, rank
from components.features.build import build_features
from components.features.settings import FeatureSettings
from components.ingestion.ingest import ingest
from components.ingestion.settings import IngestSettings

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def evaluation_set(public_data, tmp_path_factory):
    base = tmp_path_factory.mktemp("rentals")
    ingestion = {
        "source": "renttherunway",
        "path": str(public_data / "renttherunway"),
        "validation_start": "2017-05-01",
        "test_start": "2017-07-01",
        "end": "2018-01-09",
    }
    spec = {
        "item_categorical": ["category_1"],
        "context_categorical": ["occasion", "size"],
        "history_length": 10,
        "popularity_half_lives_days": [120],
        "popularity_by": ["occasion", "size"],
        "snapshot_every_days": 365,
    }
    ingest(IngestSettings.parse(ingestion), base / "dataset")
    market = {"stock": "replenishable"}
    settings = FeatureSettings.parse({"spec": spec, "market": market, "frozen_at_cut": True})
    build_features(settings, base / "dataset", base / "features")
    return build_evaluation_set(EvaluationData(base / "features"), "test", "seen")


def hit_rates(evaluation_set, *factors):
    scorer = NaiveBayesScorer(NaiveBayesPopularity(evaluation_set.data, 100, 6), factors)
    values = per_query(rank(scorer, evaluation_set, 100).rank, (10, 100))
    return values["hit_rate_at_10"].mean(), values["hit_rate_at_100"].mean()


POPULARITY = PopularityFactor(half_life_days=120.0)


def test_the_queries_and_candidates_are_as_known(evaluation_set):
    assert len(evaluation_set.queries) == pytest.approx(28_830, abs=50)  # without exact duplicates
    assert evaluation_set.left_out.keys() == {"item not seen"}
    assert [len(group.snapshot.items) for group in evaluation_set.groups] == [4083]


def test_recent_popularity_is_as_known(evaluation_set):
    assert hit_rates(evaluation_set, POPULARITY) == pytest.approx((0.025, 0.138), abs=0.001)


@pytest.mark.parametrize("source", ["examples", "snapshots"])
def test_popularity_by_occasion_and_size_is_as_known(evaluation_set, source):
    by = [
        PopularityFactor(column=column, half_life_days=120.0, strength=10.0, source=source)
        for column in ("occasion", "size")
    ]
    assert hit_rates(evaluation_set, POPULARITY, *by) == pytest.approx((0.058, 0.263), abs=0.0015)
