"""Full-catalogue ranking: ties, what stands to choice, and what is left out."""

import numpy as np
import pytest

from components.evaluation.data import EvaluationData
from components.evaluation.metrics import hit_rate
from components.evaluation.ranking import build_evaluation_set, place, rank, spread, top_k
from refit.errors import DataValidationError
from tests.factories import example, item, make_market, write_features


class Fixed:
    """Scores by item index."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, dtype=np.float32)

    def at(self, queries, moment):
        return lambda which: np.tile(self.scores[moment.items], (len(which), 1))


class Perfect:
    """Knows the future."""

    def __init__(self, data):
        self.data = data

    def at(self, queries, moment):
        chosen = self.data.log.item[queries.rows]
        return lambda which: (moment.items[None, :] == chosen[which][:, None]).astype(np.float32)


class Random:
    """Knows nothing."""

    def at(self, queries, moment):
        random = np.random.default_rng(0)
        return lambda which: random.random((len(which), len(moment.items)), dtype=np.float32)


def scores(*values):
    return np.array([values], dtype=np.float32)


def chosen(position):
    return np.array([position], dtype=np.int32)


@pytest.mark.parametrize(
    ("values", "position", "expected"),
    [
        ((3, 2, 1), 0, 1),
        ((3, 2, 1), 2, 3),
        ((1, 1, 1), 1, 3),  # ties never help
        ((2, 1, 1), 1, 3),
        ((float("nan"), 1, 0), 1, 2),  # what is no number is ahead of the chosen item
        ((2, float("nan"), 0), 1, 3),  # and a chosen item without a number comes last
        ((2, -np.inf, 0), 1, 3),
    ],
)
def test_place(values, position, expected):
    places, candidates = place(scores(*values), chosen(position))
    assert (places[0], candidates[0]) == (expected, 3)


def test_what_is_closed_is_not_counted():
    closed = np.array([[True, False, False, True]])
    places, candidates = place(scores(9, 1, 2, 0), chosen(1), closed)
    assert (places[0], candidates[0]) == (2, 2)


def test_top_holds_no_closed_and_no_broken_score():
    values = scores(9, 1, float("nan"), 2, 5)
    closed = np.array([[True, False, False, False, False]])
    best, best_scores = top_k(values, closed, 4)
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


def hold(folder, items, test, **settings):
    write_features(folder, items, {**BEFORE, "test": test}, [0.0, 10.0, 20.0, 30.0])
    data = EvaluationData(folder)
    return build_evaluation_set(data, "test", **settings)


def test_only_what_is_live_at_the_moment_stands_to_choice(tmp_path):
    items = [
        item(0),
        item(1),
        item(2, gone_at=21.0),  # gone before the query
        item(3, known_at=26.0),  # not listed yet
        item(4, gone_at=25.0),  # sold at this very moment, to somebody else
    ]
    evaluation_set = hold(tmp_path / "f", items, [example("ann", 0, 25.0)])
    found = rank(Fixed([0, 1, 9, 9, 9]), evaluation_set, 5)
    assert found.candidates.tolist() == [3]
    assert found.rank.tolist() == [3]
    assert found.top.tolist() == [[4, 1, 0, -1, -1]]


def test_an_item_sold_by_this_event_is_live(tmp_path):
    evaluation_set = hold(
        tmp_path / "f", [item(0, gone_at=25.0), item(1)], [example("ann", 0, 25.0)]
    )
    assert rank(Fixed([2, 1]), evaluation_set, 2).rank.tolist() == [1]
    assert evaluation_set.left_out == {}


def test_own_listings_are_not_offered(tmp_path):
    items = [item(0), item(1, seller_id="ann"), item(2, seller_id="bob"), item(3, seller_id="eve")]
    evaluation_set = hold(tmp_path / "f", items, [example("ann", 0, 25.0), example("bob", 0, 26.0)])
    found = rank(Fixed([0, 1, 2, 3]), evaluation_set, 4)
    assert found.top.tolist() == [[3, 2, 0, -1], [3, 1, 0, -1]]
    assert found.rank.tolist() == [3, 3]


def test_history_is_offered_unless_settings_say_otherwise(tmp_path):
    items, test = [item(0), item(1), item(2)], [example("ann", 2, 25.0)]
    evaluation_set = hold(tmp_path / "a", items, test)
    assert rank(Fixed([2, 1, 0]), evaluation_set, 3).rank.tolist() == [3]
    evaluation_set = hold(tmp_path / "b", items, test, exclude_history_types=("purchase",))
    assert rank(Fixed([2, 1, 0]), evaluation_set, 3).rank.tolist() == [1]
    evaluation_set = hold(tmp_path / "c", items, test, exclude_history_types=("view",))
    assert rank(Fixed([2, 1, 0]), evaluation_set, 3).rank.tolist() == [3]


def test_what_could_not_be_offered_is_left_out_and_counted(tmp_path):
    items = [item(0), item(1, seller_id="ann"), item(2, gone_at=24.0), item(3), item(4)]
    test = [
        example("ann", 0, 25.0),
        example("ann", 1, 25.0),
        example("eve", 2, 25.0),
        example("eve", 3, 25.0),
    ]
    evaluation_set = hold(tmp_path / "f", items, test)
    assert evaluation_set.left_out == {"not live": 1, "own listing": 1}
    seen = hold(tmp_path / "g", items, test, candidates="seen")
    assert seen.left_out["item not seen"] == 2
    assert len(seen.queries) == 1
    assert rank(Fixed([0, 1, 2, 3, 4]), seen, 2).candidates.tolist() == [1]


def test_nothing_to_judge_is_an_error(tmp_path):
    with pytest.raises(DataValidationError, match="no query that can be judged"):
        hold(tmp_path / "f", [item(0, gone_at=21.0), item(1)], [example("ann", 0, 25.0)])


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return EvaluationData(
        make_market(tmp_path_factory.mktemp("market") / "f", n_items=200, rolling=True)
    )


def test_a_perfect_model_is_always_first(market):
    evaluation_set = build_evaluation_set(market, "test")
    assert len(evaluation_set.rounds) == 3
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


def test_scores_that_are_no_number_are_counted(market):
    evaluation_set = build_evaluation_set(market, "test")
    values = np.ones(200)
    values[3] = np.nan
    assert rank(Fixed(values), evaluation_set, 10).not_finite > 0


def test_thinning_keeps_the_span_of_time(market):
    whole, thin = (build_evaluation_set(market, "test", max_queries=m) for m in (None, 20))
    assert len(thin.queries) <= 20
    assert thin.queries.rows[0] == whole.queries.rows[0]
    assert thin.queries.rows[-1] == whole.queries.rows[-1]
