"""Baselines against numbers computed by hand, and the events they learn from."""

import numpy as np
import pytest
import scipy.sparse as sp

from components.evaluation.baselines.cooccurrence import count_cooccurrence
from components.evaluation.baselines.ease import fit_ease
from components.evaluation.data import EvaluationData, code_numbers
from components.evaluation.item_similarity import HistoryScorer, Similarity, user_items
from components.evaluation.metrics import hit_rate
from components.evaluation.naive_bayes import (
    NEWNESS,
    NaiveBayesPopularity,
    NaiveBayesScorer,
    PopularityFactor,
)
from components.evaluation.ranking import build_evaluation_set, rank
from components.evaluation.settings import BaselineSettings, EvaluationSettings
from components.evaluation.tuning import NotRun, load_baselines, tune_baselines
from refit.features import FeatureSpec
from tests.factories import MANIFEST, example, item, make_market, write_features

SETTINGS = EvaluationSettings(cuts=(5, 10), metric="hit_rate_at_10", guard_metric="ndcg_at_10")


@pytest.fixture
def shop(tmp_path):
    """Item 0: two parties. Item 1: work. Item 2: nothing. Day 20 is the test's snapshot."""
    events = {
        "train": [
            example("ann", 0, 6.0, occasion="party"),
            example("bob", 0, 13.0, occasion="party"),
            example("bob", 1, 13.0, occasion="work"),
        ],
        "validation": [example("eve", 1, 15.0, occasion="party")],
        "test": [
            example("ann", 0, 25.0, occasion="party"),
            example("fay", 1, 26.0, occasion="work"),
        ],
    }
    items = [item(0, brand="cos"), item(1, brand="acne"), item(2, brand="cos")]
    folder = write_features(tmp_path / "shop", items, events, [0.0, 15.0, 20.0, 30.0])
    return EvaluationData(folder)


def table(data, factor, snapshot=2):
    naive_bayes = NaiveBayesPopularity(data, 10, 2)
    return naive_bayes, naive_bayes.table(factor, data.read_candidates(snapshot))


def tune_all(data, grid=BaselineSettings()):  # noqa: B008 - frozen
    settings = SETTINGS.model_copy(update={"baselines": grid})
    return {
        baseline.name: outcome
        for baseline, outcome in tune_baselines(load_baselines(grid), data, settings)
    }


def test_popularity_decays_by_half_life_and_counts_only_events_before_the_snapshot(shop):
    _, scores = table(shop, PopularityFactor(half_life_days=7.0, strength=1e-9))
    expected = [0.25 + 0.5, 0.5 + 0.5 ** (5 / 7)]
    assert np.exp(scores[0][:2]) == pytest.approx(expected, rel=2 * NEWNESS)
    _, earlier = table(shop, PopularityFactor(half_life_days=7.0, strength=1e-9), snapshot=1)
    assert np.exp(earlier[0][:2]) == pytest.approx(
        [0.5 ** (9 / 7) + 0.5 ** (2 / 7), 0.5 ** (2 / 7)], rel=2 * NEWNESS
    )


def test_the_counts_of_snapshots_and_of_examples_agree(shop):
    for column in ("", "occasion"):
        of = {}
        for source in ("examples", "snapshots"):
            factor = PopularityFactor("", column, 7.0, 0.5, source)
            naive_bayes, scores = table(shop, factor)
            codes = naive_bayes.codes(factor, shop.queries["test"])
            of[source] = scores[codes]
        assert of["examples"] == pytest.approx(of["snapshots"], abs=1e-5)


def test_popularity_in_context_is_naive_bayes_smoothed_towards_the_overall_share(shop):
    factor = PopularityFactor(column="occasion", half_life_days=1e9, strength=10.0)
    naive_bayes, scores = table(shop, factor)
    row = naive_bayes.codes(factor, shop.queries["test"])[0]  # a party; 3 of 4 events are parties
    share = 3 / 4
    expected = [
        np.log((2 + 10 * share) / (2 + 10) / share),
        np.log((1 + 10 * share) / (2 + 10) / share),
        0.0,
    ]
    assert scores[row] == pytest.approx(expected, abs=1e-4)


def test_attributes_are_demand_over_supply(shop):
    _, scores = table(shop, PopularityFactor(attribute="brand", half_life_days=1e9))
    # cos: 2 of 4 events, 2 candidates; acne: 2 of 4 events, 1 item; "other": nothing.
    cos, acne = np.log((2 + 1) / (4 + 3) / 2), np.log((2 + 1) / (4 + 3) / 1)
    assert scores[0] == pytest.approx([cos, acne, cos], abs=1e-6)


def test_later_events_change_no_score(tmp_path, shop):
    def scores(extra):
        events = {
            "train": [example("ann", 0, 6.0), example("bob", 1, 13.0)],
            "validation": [example("eve", 1, 15.0)],
            "test": [example("ann", 0, 25.0), *extra],
        }
        folder = tmp_path / f"future{len(extra)}"
        data = EvaluationData(
            write_features(folder, [item(0), item(1)], events, [0.0, 15.0, 20.0, 30.0])
        )
        factors = (
            PopularityFactor(),
            PopularityFactor(column="occasion"),
            PopularityFactor(attribute="brand"),
        )
        return NaiveBayesScorer(NaiveBayesPopularity(data, 10, 2), factors).at(
            data.queries["test"].take(np.array([0])), data.read_candidates(2)
        )(np.array([0]))

    later = [example("bob", 1, 26.0), example("eve", 1, 27.0)]
    assert np.array_equal(scores([]), scores(later))


def test_bins_are_equally_filled_and_missing_is_a_value_of_its_own():
    coded = code_numbers(np.array([1.0, 2.0, 3.0, 4.0, np.nan]), 2)
    assert coded.codes.tolist() == [0, 0, 1, 1, 2]
    assert len(coded.values) == 3


USERS = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]], dtype=np.float32))


def test_cooccurrence_divides_by_both_degrees():
    found = count_cooccurrence(USERS, 0.5).matrix.toarray()
    assert found[0] == pytest.approx([0, 2 / (3 * 2**0.5), 1 / (3 * 2**0.5)])
    assert found[1] == pytest.approx([2 / (2 * 3**0.5), 0, 0])


def test_ease_is_the_closed_form():
    gram = (USERS.T @ USERS).toarray() + 2.0 * np.eye(3)
    inverse = np.linalg.inv(gram)
    expected = np.eye(3) - inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(expected, 0)
    found = fit_ease(USERS, 2.0)
    assert found.known.tolist() == [0, 1, 2]
    assert found.matrix == pytest.approx(expected, abs=1e-5)


def test_profiles_hold_the_latest_distinct_items(shop):
    found = user_items(shop, shop.log.starts[2], profile_length=1).toarray()
    names = list(shop.log.user_ids)
    assert found[names.index("ann")].tolist() == [1, 0, 0]
    assert found[names.index("bob")].sum() == 1
    both = user_items(shop, shop.log.starts[2], profile_length=5).toarray()
    assert both[names.index("bob")].tolist() == [1, 1, 0]


def test_the_newest_history_item_weighs_most_and_popularity_is_added(shop):
    naive_bayes = NaiveBayesPopularity(shop, 10, 2)
    similarity = Similarity(np.arange(3), np.eye(3, dtype=np.float32))
    queries = shop.queries["test"]
    popular = PopularityFactor(half_life_days=1e9, strength=1e-9)
    scorer = HistoryScorer(naive_bayes, similarity, 0.5, 0.01, popular)
    scores = scorer.at(queries, shop.read_candidates(2))(np.arange(2))
    assert scores[0].argmax() == 0  # what ann bought
    assert scores[1] == pytest.approx([0.01, 0.01, 0.0], abs=0.01 * 2 * NEWNESS)  # fay is new


@pytest.mark.parametrize("rolling", [False, True])
def test_every_baseline_is_tuned_and_ranked(tmp_path, rolling):
    data = EvaluationData(make_market(tmp_path / "market", n_items=60, rolling=rolling))
    evaluation_set = build_evaluation_set(data, "test")
    value = {}
    for name, tuned in tune_all(data).items():
        assert tuned.chosen["validation"] > 0
        value[name] = hit_rate(rank(tuned.scorer, evaluation_set, 10).rank, 10).mean()
    assert list(value) == [
        "popularity",
        "popularity in context",
        "attributes in context",
        "co-occurrence",
        "EASE",
    ]
    # The context of a query determines its positive, so counts by context must gain here.
    assert value["popularity in context"] > 2 * value["popularity"]


def test_ease_runs_in_its_sparse_form_with_many_items(tmp_path):
    data = EvaluationData(make_market(tmp_path / "market"))
    found = tune_all(data, BaselineSettings(ease_max_items=10, ease_neighbours=5))
    assert found["EASE"].chosen["neighbours"] == 5
    assert found["EASE"].chosen["validation"] > 0


def test_a_baseline_is_the_same_without_the_others(tmp_path):
    data = EvaluationData(make_market(tmp_path / "market"))
    together = tune_all(data)
    for name, extension in (("attributes in context", "attributes_in_context"), ("EASE", "ease")):
        alone = tune_all(data, BaselineSettings(include=(extension,)))
        assert list(alone) == [name]
        assert alone[name].chosen == together[name].chosen


def test_attributes_have_a_factor_where_every_order_is_equally_good(shop):
    found = tune_all(shop)["attributes in context"]  # three items, judged by the first ten
    assert found.chosen["validation"] == 1.0
    assert found.chosen["factors"]


def test_items_without_attributes_or_context_leave_baselines_out(tmp_path):
    spec = FeatureSpec(history_length=3, popularity_half_lives_days=(7.0,))
    manifest = MANIFEST.model_copy(update={"spec": spec, "popularity_values": {}})
    items = [{"item_id": f"i{n}"} for n in range(3)]
    events = {
        "train": [example("ann", 0, 1.0), example("bob", 1, 2.0)],
        "validation": [example("ann", 1, 11.0)],
        "test": [example("bob", 0, 21.0)],
    }
    folder = write_features(tmp_path / "f", items, events, [0.0, 10.0, 20.0, 30.0], manifest)
    found = tune_all(EvaluationData(folder))
    assert found["popularity in context"] == NotRun("the feature spec names no context column")
    assert found["attributes in context"] == NotRun("the items have no attributes")
