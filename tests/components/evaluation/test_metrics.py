"""Metrics against numbers computed by hand."""

import numpy as np
import pytest

from components.evaluation.bootstrap import Replicates
from components.evaluation.metrics import (
    coverage,
    exposure,
    gini,
    hit_rate,
    mrr,
    ndcg,
    per_query,
    recall,
)

RANKS = np.array([1, 2, 3, 10, 11, 100, 101], dtype=np.int32)


def test_hit_rate_counts_ranks_up_to_and_including_k():
    assert hit_rate(RANKS, 10).tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert hit_rate(RANKS, 100).mean() == pytest.approx(6 / 7)


def test_ndcg_discounts_by_the_binary_logarithm_of_the_rank():
    expected = [1.0, 1 / np.log2(3), 0.5, 1 / np.log2(11), 0, 0, 0]
    assert ndcg(RANKS, 10) == pytest.approx(expected)


def test_mrr_is_the_reciprocal_rank_within_the_cut():
    assert mrr(RANKS, 10) == pytest.approx([1, 1 / 2, 1 / 3, 1 / 10, 0, 0, 0])
    assert mrr(RANKS, 100)[4:] == pytest.approx([1 / 11, 1 / 100, 0])


def test_every_metric_is_computed_at_every_cut():
    names = set(per_query(RANKS, (10, 50, 100)))
    assert names == {f"{m}_at_{k}" for m in ("hit_rate", "ndcg", "mrr") for k in (10, 50, 100)}


def test_rank_one_scores_one_on_every_metric():
    first = np.ones(5, dtype=np.int32)
    assert all((values == 1).all() for values in per_query(first, (1, 10, 100)).values())


def test_exposure_counts_shown_items_by_owner():
    top = np.array([[0, 1, -1], [0, 2, 1]], dtype=np.int32)
    assert exposure(top, np.arange(4, dtype=np.int32), 4).tolist() == [2, 2, 1, 0]
    seller = np.array([0, 0, -1, 1], dtype=np.int32)
    assert exposure(top, seller, 2).tolist() == [4, 0]


def test_coverage_is_the_share_that_is_shown_at_least_once():
    assert coverage(np.array([2.0, 2.0, 1.0, 0.0])) == 0.75
    assert np.isnan(coverage(np.empty(0)))


@pytest.mark.parametrize(
    ("exposures", "expected"),
    [
        ([5, 5, 5, 5], 0.0),
        ([0, 0, 0, 8], 0.75),  # one of four is shown alone: (n - 1) / n
        ([1, 2, 3], 2 / 9),  # mean absolute difference 8/9 over twice the mean 2
        ([1, 3], 0.25),
    ],
)
def test_gini(exposures, expected):
    assert gini(np.array(exposures, dtype=float)) == pytest.approx(expected)


def test_gini_of_nothing_is_nan():
    assert np.isnan(gini(np.zeros(3)))
    assert np.isnan(gini(np.empty(0)))


def columns(n, **values):
    return {"n": np.ones(n), **{name: np.asarray(v, dtype=float) for name, v in values.items()}}


def test_intervals_contain_the_mean_and_shrink_with_more_users():
    random = np.random.default_rng(1)
    widths = []
    for n in (200, 20_000):
        hits = random.random(n) < 0.3
        drawn = Replicates(np.arange(n, dtype=np.int32), columns(n, hits=hits), 500, seed=3)
        found = drawn.mean("hits", "n")
        assert found.value == pytest.approx(hits.mean())
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.3)


def test_interval_matches_the_normal_approximation():
    n = 10_000
    hits = np.arange(n) % 5 == 0
    found = Replicates(np.arange(n, dtype=np.int32), columns(n, hits=hits), 2000, 5).mean(
        "hits", "n"
    )
    half = 1.96 * np.sqrt(0.2 * 0.8 / n)
    assert found.high - found.value == pytest.approx(half, rel=0.15)
    assert found.value - found.low == pytest.approx(half, rel=0.15)


def test_the_queries_of_a_user_are_resampled_together():
    n = 4000
    hits = (np.arange(n) // 100) % 2  # 40 users with 100 queries each, all hit or all missed
    clustered = Replicates(np.arange(n) // 100, columns(n, hits=hits), 1000, 7).mean("hits", "n")
    alone = Replicates(np.arange(n), columns(n, hits=hits), 1000, 7).mean("hits", "n")
    assert (clustered.high - clustered.low) > 5 * (alone.high - alone.low)


def test_differences_are_paired():
    n = 2000
    base = np.random.default_rng(0).random(n)
    drawn = Replicates(np.arange(n), columns(n, model=base + 0.1, other=base), 300, 1)
    gain = drawn.difference("model", "other", "n")
    assert gain.value == pytest.approx(0.1)
    assert gain.high - gain.low < 1e-9


def test_the_same_seed_gives_the_same_interval():
    values = columns(50, hits=np.arange(50) % 3 == 0)
    one, other = (Replicates(np.arange(50), values, 200, 9).mean("hits", "n") for _ in range(2))
    assert one == other


def test_without_queries_nothing_is_measured():
    values = columns(4, hits=[0, 0, 0, 0], none=[0, 0, 0, 0])
    found = Replicates(np.arange(4), values, 200, 9).mean("hits", "none")
    assert (found.value, found.low, found.high) == (None, None, None)


STARTS = np.array([0, 3, 4, 6])
"""Three queries, with three positives, one and two."""
SEVERAL = np.array([1, 3, 30, 2, 4, 5], dtype=np.int32)


def test_recall_is_the_share_of_the_positives_that_are_found():
    assert recall(SEVERAL, 3, STARTS) == pytest.approx([2 / 3, 1, 0])
    assert recall(SEVERAL, 4, STARTS) == pytest.approx([2 / 3, 1, 1 / 2])


def test_a_query_with_several_positives_is_a_hit_with_one_of_them():
    assert hit_rate(SEVERAL, 3, STARTS).tolist() == [1, 1, 0]
    assert mrr(SEVERAL, 4, STARTS) == pytest.approx([1, 1 / 2, 1 / 4])


def test_ndcg_of_several_positives_is_a_share_of_the_best_possible_list():
    second, third = 1 / np.log2(3), 1 / 2
    of_two = (1 / np.log2(5) + 1 / np.log2(6)) / (1 + second)
    assert ndcg(SEVERAL, 5, STARTS) == pytest.approx(
        [(1 + third) / (1 + second + third), second, of_two]
    )
    # No list of two finds three: the best has two of them.
    assert ndcg(SEVERAL, 2, STARTS) == pytest.approx([1 / (1 + second), second, 0])


def test_one_positive_each_is_measured_as_without_starts():
    starts = np.arange(len(RANKS) + 1)
    found = per_query(RANKS, (1, 10), starts)
    alone = per_query(RANKS, (1, 10))
    assert found.keys() == {*alone, "recall_at_1", "recall_at_10"}
    for name, values in alone.items():
        assert found[name].tolist() == values.tolist()
    assert found["recall_at_10"].tolist() == alone["hit_rate_at_10"].tolist()
