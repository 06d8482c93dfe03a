"""Scores of queries whose histories add to the scores of their own items."""

import numpy as np

from components.evaluation.data import CandidateSnapshot
from components.evaluation.towers import QueryOutputs

ITEMS = np.array([2, 5, 9], dtype=np.int32)
SNAPSHOT = CandidateSnapshot(
    0, 0, ITEMS, np.zeros(3, dtype=np.float32), np.zeros((3, 1), dtype=np.float32)
)
VECTORS = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32)
QUERIES = np.array([[1, 2], [3, 0]], dtype=np.float32)
HISTORY = np.array([[9, 2, 9, -1], [7, 5, -1, -1]], dtype=np.int32)  # 7 is no candidate
REPEATS = np.array([[0.5, -4, 0.25, 99], [1, 2, 99, 99]], dtype=np.float32)


def test_scores_are_products_and_what_each_event_adds() -> None:
    score = QueryOutputs(QUERIES, HISTORY, REPEATS).over(SNAPSHOT, VECTORS)
    expected = [[1 - 4, 2, 3 + 0.75], [3, 0 + 2, 3]]
    np.testing.assert_allclose(score(np.array([0, 1])), expected)
    np.testing.assert_allclose(score(np.array([1, 0, 1])), [expected[i] for i in (1, 0, 1)])


def test_a_tower_without_repeats_scores_by_products() -> None:
    embedded = QueryOutputs(QUERIES, HISTORY)
    score = embedded.over(SNAPSHOT, VECTORS)
    np.testing.assert_allclose(score(np.array([0, 1])), QUERIES @ VECTORS.T)
    assert set(embedded.outputs(np.array([1]))) == {"embedding"}


def test_without_candidates_there_are_no_scores() -> None:
    nothing = SNAPSHOT.take(np.zeros(3, dtype=np.bool_))
    score = QueryOutputs(QUERIES, HISTORY, REPEATS).over(nothing, VECTORS[:0])
    assert score(np.array([0, 1])).shape == (2, 0)
