"""Novelty, diversity, shares and calibration, against values worked out by hand."""

import math

import numpy as np
import pytest

from components.evaluation.beyond_accuracy import (
    BeyondAccuracy,
    calibration_error,
    diversity_of_categories,
    diversity_of_vectors,
    measure_reliability,
    novelty,
    surprise,
)
from components.evaluation.data import EvaluationData
from components.evaluation.gate import apply_gate
from components.evaluation.ranking import Ranking, build_evaluation_set
from components.evaluation.results import Beyond, ExposureShare, ReliabilityBin
from components.evaluation.settings import BeyondSettings, Bound, EvaluationSettings
from refit.errors import UsageError
from tests.components.evaluation.test_gate import SETTINGS as GATE
from tests.components.evaluation.test_gate import with_method
from tests.factories import example, item, make_market, write_features

SETTINGS = EvaluationSettings(
    cuts=(2,), metric="hit_rate_at_2", guard_metric="hit_rate_at_2", slice_floors=()
)


def test_novelty_is_the_surprise_in_bits():
    """Of 3 users, 3 have chosen item 0 (one twice), 1 has chosen item 1, nobody item 2."""
    user, item_ = np.array([0, 1, 2, 2, 0]), np.array([0, 0, 0, 0, 1])
    top = np.array([[0, 1], [2, -1]])
    bits = surprise(user, item_, 3)
    assert bits == pytest.approx([0, math.log2(4 / 2), math.log2(4)])
    assert novelty(top, bits) == pytest.approx((0 + 1 + 2) / 3)
    assert novelty(np.full((1, 2), -1), bits) is None


def test_diversity_of_vectors_is_the_mean_cosine_distance():
    vector = np.array([[2, 0], [0, 1], [-1, 0], [0, 0]], dtype=np.float32)
    assert diversity_of_vectors(np.array([[0, 1]]), vector) == pytest.approx(1.0)
    assert diversity_of_vectors(np.array([[0, 0]]), vector) == pytest.approx(0.0, abs=1e-6)
    assert diversity_of_vectors(np.array([[0, 2]]), vector) == pytest.approx(2.0)
    three = np.array([[0, 1, 2]])  # pairs: 1, 2, 1
    assert diversity_of_vectors(three, vector) == pytest.approx(4 / 3)
    with_gaps = np.array([[0, 3, 2], [0, -1, -1]])  # item 3 has no vector; one list has no pair
    assert diversity_of_vectors(with_gaps, vector) == pytest.approx(2.0)
    assert diversity_of_vectors(np.array([[0, 3]]), vector) is None


def test_diversity_of_categories_is_the_share_of_columns_that_differ():
    brand, colour = np.array([0, 0, 1, -1]), np.array([0, 1, 1, -1])
    pairs = {(0, 1): 0.5, (0, 2): 1.0, (1, 2): 0.5, (0, 3): 1.0, (3, 3): 1.0}
    for pair, expected in pairs.items():
        assert diversity_of_categories(np.array([pair]), [brand, colour]) == expected
    three = np.array([[0, 1, 2]])
    assert diversity_of_categories(three, [brand, colour]) == pytest.approx(2 / 3)
    padded = np.array([[0, 1, -1], [2, -1, -1]])
    assert diversity_of_categories(padded, [brand, colour]) == 0.5
    assert diversity_of_categories(np.array([[0, -1]]), [brand]) is None


def market(tmp_path, **more):
    """Four items live on day 35: two of seller a, two of b; one listed on day 30; sizes S, M."""
    sellers, sizes = ("a", "a", "b", None), ("S", "M", "M", "M")
    items = [
        item(
            i,
            seller_id=sellers[i],
            size=sizes[i],
            price=float(10 * (i + 1)),
            known_at=30.0 if i == 3 else 0.0,
            **more,
        )
        for i in range(4)
    ]
    examples = {
        "train": [example(f"u{n}", n % 2, n + 1.0) for n in range(4)],
        "validation": [example("u0", 1, 31.0)],
        "test": [example(f"u{n}", n, 35.1 + n) for n in range(4)],
    }
    folder = write_features(tmp_path / "features", items, examples, [0.0, 31.0, 35.0, 45.0])
    return build_evaluation_set(EvaluationData(folder), "test")


def ranking(top, scores=None):
    top = np.array(top, dtype=np.int32)
    if scores is None:
        scores = np.tile(np.arange(top.shape[1], 0, -1), (len(top), 1))
    ones = np.ones(len(top), dtype=np.int32)
    return Ranking(ones, top, np.array(scores, dtype=np.float32), ones, 0, {})


def test_shares_of_exposure_against_shares_of_stock(tmp_path):
    settings = SETTINGS.model_copy(
        update={"beyond": BeyondSettings(new_days=6.0, small_seller_listings=1, price_bands=2)}
    )
    lists = ranking([[0, 1], [0, 3], [0, 1], [0, -1]])
    found = BeyondAccuracy(settings, market(tmp_path)).measure(lists)
    parts = {part.part: (part.stock, part.exposure) for part in found.parts}
    assert parts["new listings"] == pytest.approx((1 / 4, 1 / 7))
    assert parts["small sellers"] == pytest.approx((1 / 4, 0.0)), (
        "b has one listing, None is nobody"
    )
    assert parts["size: S"] == pytest.approx((1 / 4, 4 / 7))
    assert parts["size: M"] == pytest.approx((3 / 4, 3 / 7))
    assert parts["price: 10 to 25"] == pytest.approx((2 / 4, 6 / 7))
    assert parts["price: 25 to 40"] == pytest.approx((2 / 4, 1 / 7))
    values = found.values
    assert values["new_listings_at_2"] == pytest.approx(4 / 7)
    assert values["small_sellers_at_2"] == 0.0
    assert values["size_parity_at_2"] == pytest.approx(4 / 7)
    assert values["price_parity_at_2"] == pytest.approx(2 / 7)
    assert values["age_days_at_2"] == pytest.approx((6 * 35 + 5) / 7)
    # Item 1 is bought a day after its first list, item 3 two days after; the others at once.
    assert values["days_to_sale_at_2"] == pytest.approx(1.5)
    assert set(found.why) == {"calibration_error_at_2"} or not found.why


def test_what_is_not_there_is_none_and_says_why(tmp_path):
    settings = SETTINGS.model_copy(update={"beyond": BeyondSettings(new_days=0.5)})
    found = BeyondAccuracy(settings, market(tmp_path)).measure(ranking([[-1, -1]] * 4))
    assert set(found.values) == set(found.why)
    assert all(value is None for value in found.values.values())
    assert found.why["new_listings_at_2"].startswith("no live item is new")


def test_the_ratio_of_a_part_that_is_not_there_is_unknown():
    assert ExposureShare(part="size: S", stock=0.2, exposure=0.1).ratio == pytest.approx(0.5)
    assert ExposureShare(part="size: S", stock=0.0, exposure=0.0).ratio is None


def test_calibration_learns_from_the_earlier_half_and_is_judged_on_the_later(tmp_path):
    """Scores of 2 are chosen half of the time early on, and always later; scores of 1 never."""
    features = make_market(tmp_path / "features")
    evaluation_set = build_evaluation_set(EvaluationData(features), "test")
    queries, data = evaluation_set.queries, evaluation_set.data
    n = len(queries)
    positive = data.log.item[queries.rows]
    other = (positive + 1) % data.catalogue.size
    early = np.argsort(np.argsort(data.log.time[queries.rows], kind="stable")) < n // 2
    missed = early & (np.arange(n) % 2 == 0)
    top = np.stack([np.where(missed, other, positive), (other + 1) % data.catalogue.size], axis=1)
    bins = measure_reliability(evaluation_set, ranking(top, [[2.0, 1.0]] * n), 2)
    assert sum(part.n for part in bins) == 2 * (n - n // 2)
    rate = 1 - missed[early].mean()
    for part in bins:
        if part.promised > 0.1:
            assert (part.promised, part.happened) == pytest.approx((rate, 1.0))
        else:
            assert (part.promised, part.happened) == pytest.approx((0.0, 0.0))
    assert calibration_error(bins) == pytest.approx((1 - rate) / 2, abs=0.01)
    assert measure_reliability(evaluation_set, ranking(np.full((n, 2), -1)), 2) == ()
    nothing = ranking(top, np.full((n, 2), np.nan))
    assert measure_reliability(evaluation_set, nothing, 2) == ()


def test_the_calibration_error_weighs_by_places():
    bins = (
        ReliabilityBin(promised=0.1, happened=0.2, n=30),
        ReliabilityBin(promised=0.5, happened=0.2, n=10),
    )
    assert calibration_error(bins) == pytest.approx((30 * 0.1 + 10 * 0.3) / 40)
    assert calibration_error(()) is None


@pytest.mark.parametrize(
    ("name", "bound", "reason"),
    [
        ("novelty_at_10", Bound(at_least=4.0), ""),
        ("novelty_at_10", Bound(at_least=6.0), "novelty at 10 is 5, at least 6 is needed"),
        ("novelty_at_10", Bound(at_most=4.0), "novelty at 10 is 5, at most 4 is allowed"),
        ("size_parity_at_10", Bound(at_least=0.5), "size parity at 10 was not measured: no size"),
        ("diversity_at_10", Bound(at_least=0.5), "diversity at 10 was not measured: it is not"),
        ("hit_rate_at_100", Bound(at_least=0.5), "hit rate at 100 is 0.3, at least 0.5"),
    ],
)
def test_the_gate_bounds_what_the_settings_name(name, bound, reason):
    beyond = Beyond(
        values={"novelty_at_10": 5.0, "size_parity_at_10": None},
        why={"size_parity_at_10": "no size"},
    )
    settings = GATE.model_copy(update={"bounds": {name: bound}})
    verdict = apply_gate(settings, with_method(0, beyond=beyond.model_dump()))
    assert reason in " | ".join(verdict.reasons)
    assert verdict.passed is (not reason)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"noveltie_at_10": {"at_least": 1.0}}, "did you mean 'novelty_at_10'"),
        ({"novelty_at_50": {"at_least": 1.0}}, "unknown measurement 'novelty_at_50'"),
        ({"novelty_at_10": {}}, "needs at_least, at_most or both"),
        ({"novelty_at_10": {"atleast": 1.0}}, "unknown name; did you mean 'at_least'"),
    ],
)
def test_an_unknown_bound_is_an_error(bounds, message):
    with pytest.raises(UsageError, match=message):
        EvaluationSettings.parse({"bounds": bounds})
