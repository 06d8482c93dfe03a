"""Full-catalogue ranking: ties, which candidates are eligible, and which queries are left out."""

import numpy as np
import pytest

from components.evaluation.data import DAY, EvaluationData
from components.evaluation.metrics import hit_rate, per_query
from components.evaluation.ranking import (
    build_evaluation_set,
    build_request_set,
    rank,
    rank_positives,
    spread,
    top_k,
)
from components.evaluation.settings import EvaluationSettings
from components.evaluation.slices import COLD, cut_slices
from refit.eligibility import MarketSettings
from refit.errors import DataValidationError
from tests.factories import MANIFEST, example, item, make_market, write_features

UNIQUE, REPLENISHABLE = MarketSettings(), MarketSettings(stock="replenishable")


class Fixed:
    """Scores by item index."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, dtype=np.float32)

    def at(self, queries, snapshot):
        return lambda which: np.tile(self.scores[snapshot.items], (len(which), 1))


class Perfect:
    """Knows the future."""

    def __init__(self, data):
        self.data = data

    def at(self, queries, snapshot):
        items = self.data.log.item[queries.rows]
        return lambda which: (snapshot.items[None, :] == items[which][:, None]).astype(np.float32)


class Random:
    """Knows nothing."""

    def at(self, queries, snapshot):
        random = np.random.default_rng(0)
        return lambda which: random.random((len(which), len(snapshot.items)), dtype=np.float32)


def scores(*values):
    return np.array([values], dtype=np.float32)


def positive(position):
    return np.array([position], dtype=np.int32)


def test_visits_of_each_day_are_answered_from_a_snapshot_of_another_age(tmp_path):
    visits = [example("u", 0, at, event_type="view") for at in (10.2, 10.9, 11.1, 12.3, 13.4)]
    features = write_features(
        tmp_path,
        [item(0, known_at=0.0)],
        {
            "train": [example("u", 0, 1.0)],
            "validation": [example("u", 0, 9.0)],
            "test": [example("u", 0, 10.5)],
            "requests": visits,
        },
        [0.0, 7.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0],
    )
    data = EvaluationData(features).of_requests()

    def find_times(*ages):
        found = build_request_set(data, 10, ages)
        return {
            int(row): group.snapshot.time / DAY for group in found.groups for row in group.queries
        }

    start = data.snapshot_times[0] / DAY
    assert find_times(0) == {
        0: start + 10,
        1: start + 10,
        2: start + 11,
        3: start + 12,
        4: start + 13,
    }
    # The second day's is four days old; on the third day there is none of 100 days.
    old = find_times(0, 4, 100)
    assert old == {0: start + 10, 1: start + 10, 2: start + 7, 3: start, 4: start + 13}


@pytest.mark.parametrize(
    ("values", "position", "expected"),
    [
        ((3, 2, 1), 0, 1),
        ((3, 2, 1), 2, 3),
        ((1, 1, 1), 1, 3),  # ties never help
        ((2, 1, 1), 1, 3),
        ((float("nan"), 1, 0), 1, 2),  # NaN ranks ahead of the positive item
        ((2, float("nan"), 0), 1, 3),  # and a positive item with NaN ranks last
        ((2, -np.inf, 0), 1, 3),
    ],
)
def test_the_rank_of_the_positive(values, position, expected):
    ranks, candidates = rank_positives(scores(*values), positive(position))
    assert (ranks[0], candidates[0]) == (expected, 3)


def test_an_ineligible_candidate_does_not_count():
    eligible = np.array([[False, True, True, False]])
    ranks, candidates = rank_positives(scores(9, 1, 2, 0), positive(1), eligible)
    assert (ranks[0], candidates[0]) == (2, 2)


def test_the_top_k_has_no_ineligible_item_and_no_score_that_is_not_finite():
    values = scores(9, 1, float("nan"), 2, 5)
    eligible = np.array([[False, True, True, True, True]])
    best, best_scores = top_k(values, eligible, 4)
    assert best[0].tolist() == [4, 3, 1, -1]
    assert best_scores[0].tolist() == [5, 2, 1, -np.inf]
    assert top_k(scores(1, 2, 3), None, 2)[0][0].tolist() == [2, 1]
    assert top_k(scores(1, 2), None, 5)[0][0].tolist() == [1, 0]


def test_spread_keeps_first_last_and_order():
    assert spread(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert spread(np.arange(3), 4).tolist() == [0, 1, 2]


BEFORE = {
    "train": [example("ann", 0, 1.0), example("bob", 1, 2.0)],
    "validation": [example("ann", 1, 11.0)],
}


def build(folder, items, test, market=REPLENISHABLE, hides=(), **settings):
    examples = {**BEFORE, "test": test, "hides": hides}
    manifest = MANIFEST.model_copy(update={"market": market})
    write_features(folder, items, examples, [0.0, 10.0, 20.0, 30.0], manifest)
    return build_evaluation_set(EvaluationData(folder), "test", **settings)


def test_only_items_live_at_the_time_of_the_query_are_candidates(tmp_path):
    items = [
        item(0),
        item(1),
        item(2, gone_at=21.0),  # gone before the query
        item(3, known_at=26.0),  # not listed yet
        item(4, gone_at=25.0),  # sold at the time of the query, to another user
    ]
    evaluation_set = build(tmp_path / "f", items, [example("ann", 0, 25.0)])
    found = rank(Fixed([0, 1, 9, 9, 9]), evaluation_set, 5)
    assert found.candidates.tolist() == [3]
    assert found.rank.tolist() == [3]
    assert found.top.tolist() == [[4, 1, 0, -1, -1]]


def test_an_item_is_no_candidate_while_it_is_away(tmp_path):
    items = [
        item(0, away=[(12.0, 13.0)]),
        item(1, away=[(22.0, 24.0), (25.5, 27.0)]),  # away before, and again after
        item(2, away=[(24.0, 26.0)]),
        item(3, away=[(24.0, 25.0)]),  # comes back with this event
        item(4, away=[(25.0, 26.0)]),  # goes with this event
    ]
    evaluation_set = build(tmp_path / "f", items, [example("ann", 0, 25.0)])
    assert rank(Fixed([0, 1, 9, 9, 2]), evaluation_set, 5).top.tolist() == [[4, 1, 0, -1, -1]]


def test_an_item_that_comes_back_with_the_event_itself_is_left_out(tmp_path):
    examples = [example("ann", 0, 25.0), example("bob", 1, 26.0)]
    evaluation_set = build(tmp_path / "f", [item(0, away=[(21.0, 25.0)]), item(1)], examples)
    assert evaluation_set.left_out == {"not_live": 1}


def test_an_item_sold_by_this_event_is_live(tmp_path):
    evaluation_set = build(
        tmp_path / "f", [item(0, gone_at=25.0), item(1)], [example("ann", 0, 25.0)]
    )
    assert rank(Fixed([2, 1]), evaluation_set, 2).rank.tolist() == [1]
    assert evaluation_set.left_out == {}


def test_own_listings_are_ineligible(tmp_path):
    items = [item(0), item(1, seller_id="ann"), item(2, seller_id="bob"), item(3, seller_id="eve")]
    evaluation_set = build(
        tmp_path / "f", items, [example("ann", 0, 25.0), example("bob", 0, 26.0)]
    )
    found = rank(Fixed([0, 1, 2, 3]), evaluation_set, 4)
    assert found.top.tolist() == [[3, 2, 0, -1], [3, 1, 0, -1]]
    assert found.rank.tolist() == [3, 3]


def test_bought_items_are_eligible_only_if_stock_is_replenishable(tmp_path):
    items, test = [item(0), item(1), item(2)], [example("ann", 2, 25.0)]
    unique = build(tmp_path / "a", items, test, UNIQUE)
    found = rank(Fixed([2, 1, 0]), unique, 3)
    assert found.rank.tolist() == [1]
    assert found.removed["bought"] == 2
    found = rank(Fixed([2, 1, 0]), build(tmp_path / "b", items, test), 3)
    assert found.rank.tolist() == [3]
    assert "bought" not in found.removed


def test_a_purchase_is_never_forgotten_however_much_was_viewed_since(tmp_path):
    views = [example("ann", 1, 25.0 + i / 100, event_type="view") for i in range(22)]
    items, test = [item(0), item(1), item(2)], [*views, example("ann", 2, 26.0)]
    evaluation_set = build(tmp_path / "f", items, test, UNIQUE)
    last = evaluation_set.queries.history.item[-1]
    assert set(last.tolist()) == {1}, "the history has no other item"
    assert rank(Fixed([2, 1, 0]), evaluation_set, 3).top[-1].tolist() == [2, -1, -1]


def test_later_purchases_and_hides_are_not_known(tmp_path):
    items = [item(number) for number in range(5)]
    test = [example("eve", 2, 25.0), example("eve", 3, 25.0), example("eve", 4, 26.0)]
    hides = [example("eve", 0, 25.5), example("eve", 1, 26.0), example("bob", 4, 20.0)]
    evaluation_set = build(tmp_path / "f", items, test, UNIQUE, hides)
    assert evaluation_set.left_out == {}, "the items of one basket do not exclude each other"
    found = rank(Fixed(range(5)), evaluation_set, 5)
    assert found.candidates.tolist() == [5, 5, 2]
    assert found.top[2].tolist() == [4, 1, -1, -1, -1]
    assert (found.removed["bought"], found.removed["hidden"]) == (2, 1)


def test_a_positive_that_was_bought_or_hidden_before_is_left_out(tmp_path):
    test = [example("ann", 0, 25.0), example("eve", 1, 25.0), example("eve", 0, 25.0)]
    hides = [example("eve", 1, 24.0)]
    evaluation_set = build(tmp_path / "f", [item(0), item(1)], test, UNIQUE, hides)
    assert evaluation_set.left_out == {"bought": 1, "hidden": 1}
    assert len(evaluation_set.queries) == 1


def test_queries_with_an_ineligible_positive_are_left_out_and_counted(tmp_path):
    items = [item(0), item(1, seller_id="ann"), item(2, gone_at=24.0), item(3), item(4)]
    test = [
        example("ann", 0, 25.0),
        example("ann", 1, 25.0),
        example("eve", 2, 25.0),
        example("eve", 3, 25.0),
    ]
    evaluation_set = build(tmp_path / "f", items, test)
    assert evaluation_set.left_out == {"not_live": 1, "own_listing": 1}
    seen = build(tmp_path / "g", items, test, candidates="seen")
    assert seen.left_out["item not seen"] == 2
    assert len(seen.queries) == 1
    assert rank(Fixed([0, 1, 2, 3, 4]), seen, 2).candidates.tolist() == [1]


def test_nothing_to_evaluate_is_an_error(tmp_path):
    with pytest.raises(DataValidationError, match="no query that can be evaluated"):
        build(tmp_path / "f", [item(0, gone_at=21.0), item(1)], [example("ann", 0, 25.0)])


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return EvaluationData(
        make_market(tmp_path_factory.mktemp("market") / "f", n_items=200, rolling=True)
    )


def test_a_perfect_model_ranks_every_positive_first(market):
    evaluation_set = build_evaluation_set(market, "test")
    assert len(evaluation_set.groups) == 3
    assert (rank(Perfect(market), evaluation_set, 10).rank == 1).all()


def test_a_random_model_hits_about_k_in_n(market):
    evaluation_set = build_evaluation_set(market, "test")
    found = rank(Random(), evaluation_set, 10)
    expected = (20 / found.candidates).mean()
    error = np.sqrt(expected * (1 - expected) / len(found.rank))
    assert abs(hit_rate(found.rank, 20).mean() - expected) < 4 * error


def test_a_constant_model_hits_nothing(market):
    found = rank(Fixed(np.ones(200)), build_evaluation_set(market, "test"), 10)
    assert (found.rank == found.candidates).all()


def test_scores_that_are_not_finite_are_counted(market):
    evaluation_set = build_evaluation_set(market, "test")
    values = np.ones(200)
    values[3] = np.nan
    assert rank(Fixed(values), evaluation_set, 10).not_finite > 0


def test_sampling_queries_keeps_the_time_span(market):
    whole, thin = (build_evaluation_set(market, "test", max_queries=m) for m in (None, 20))
    assert len(thin.queries) <= 20
    assert thin.queries.rows[0] == whole.queries.rows[0]
    assert thin.queries.rows[-1] == whole.queries.rows[-1]


BASKETS = [
    example("ann", 2, 25.0),
    example("eve", 4, 25.0),
    example("ann", 3, 25.0),
    example("ann", 5, 26.0),
]


def build_together(folder, items, test, market=REPLENISHABLE, **settings):
    build(folder, items, test, market)
    return build_evaluation_set(EvaluationData(folder, "together"), "test", **settings)


def test_the_events_of_a_user_at_one_time_are_one_query(tmp_path):
    evaluation_set = build_together(tmp_path / "f", [item(i) for i in range(6)], BASKETS)
    log, queries = evaluation_set.data.log, evaluation_set.queries
    assert log.user_ids[log.user[queries.rows]].tolist() == ["ann", "eve", "ann"]
    found = rank(Fixed([6, 5, 4, 3, 2, 1]), evaluation_set, 4)
    assert found.starts.tolist() == [0, 2, 3, 4]
    assert found.rank.tolist() == [3, 4, 5, 6]  # other relevant items stand in the same list
    assert found.first.tolist() == [3, 5, 6]
    assert found.top.tolist() == [[0, 1, 2, 3]] * 3
    values = per_query(found.rank, (3, 4), found.starts)
    assert values["recall_at_3"].tolist() == [0.5, 0, 0]
    assert values["recall_at_4"].tolist() == [1, 0, 0]
    of_two = (1 / 2 + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    assert values["ndcg_at_4"] == pytest.approx([of_two, 0, 0])


def test_the_ranks_do_not_depend_on_how_events_are_joined(tmp_path):
    items = [item(i) for i in range(6)]
    together = build_together(tmp_path / "f", items, BASKETS)
    each = build(tmp_path / "g", items, BASKETS)
    scorer = Fixed([3, 1, 4, 1, 5, 9])
    rows = together.queries.positives.rows
    found = rank(scorer, each, 2).rank
    assert rank(scorer, together, 2).rank.tolist() == found[np.argsort(np.argsort(rows))].tolist()


def test_of_several_positives_the_ineligible_ones_are_left_out_and_counted(tmp_path):
    test = [
        example("ann", 0, 25.0),  # bought before
        example("ann", 2, 25.0),
        example("bob", 1, 25.0),  # bought before, and nothing else
        example("eve", 1, 25.0),
    ]
    items = [item(0), item(1), item(2)]
    evaluation_set = build_together(tmp_path / "f", items, test, UNIQUE)
    assert evaluation_set.left_out == {"bought": 2}
    log, rows = evaluation_set.data.log, evaluation_set.queries.rows
    assert [log.user_ids[user] for user in log.user[rows]] == ["ann", "eve"]
    assert log.item[rows].tolist() == [2, 1]
    found = rank(Fixed([3, 2, 1]), evaluation_set, 3)
    assert (found.rank.tolist(), found.starts.tolist()) == ([1, 2], [0, 1, 2])


def test_queries_with_several_positives_are_thinned_out_whole(tmp_path):
    items = [item(i) for i in range(6)]
    evaluation_set = build_together(tmp_path / "f", items, BASKETS, max_queries=2)
    found = rank(Fixed([6, 5, 4, 3, 2, 1]), evaluation_set, 4)
    assert (found.rank.tolist(), found.starts.tolist()) == ([3, 4, 6], [0, 2, 3])


def test_queries_with_several_positives_are_not_cut_by_item(tmp_path):
    evaluation_set = build_together(tmp_path / "f", [item(i) for i in range(6)], BASKETS)
    settings = EvaluationSettings(slice_min_n=1, slice_columns=("size", "occasion"))
    found = cut_slices(evaluation_set, settings)
    assert found["known users"].tolist() == [True, False, True]
    assert found["occasion: party"].all()
    assert not found[COLD].any()
    assert not any(name.startswith(("size", "price", "known items")) for name in found)
