from datetime import timedelta

import numpy as np
import pytest

from monitoring.quality.concept import Repeats, find_latest, rank_exactly, rank_labels
from monitoring.quality.join import read_events
from monitoring.quality.settings import QualitySettings
from refit.drift import Window
from refit.errors import DataValidationError
from tests.monitoring.quality.feeds import DAY, MONDAY, TOWERS, answer, event, write, write_index

MINUTE = timedelta(minutes=1)
PERIOD = Window(start=MONDAY, end=MONDAY + DAY)


def test_ranks_are_those_of_a_full_sort():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(70_000, 8)).astype(np.float32)
    queries = random.normal(size=(20, 8)).astype(np.float32)
    items = random.integers(0, len(vectors), 20)
    order = np.argsort(-(queries.astype(float) @ vectors.T.astype(float)), axis=1)
    expected = [int(np.flatnonzero(order[i] == items[i])[0]) + 1 for i in range(20)]
    assert rank_exactly(queries, vectors, items) == pytest.approx(expected, abs=1)


def test_what_histories_add_counts_in_ranks():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(40_000, 4)).astype(np.float32)
    queries = random.normal(size=(20, 4)).astype(np.float32)
    items, n = random.integers(0, len(vectors), 20), 300
    query = random.integers(0, 20, n)
    item = np.where(random.random(n) < 0.2, items[query], random.integers(0, len(vectors), n))
    repeats = Repeats(query, item, random.normal(scale=9, size=n).astype(np.float32))
    scores = queries.astype(float) @ vectors.T.astype(float)
    np.add.at(scores, (repeats.query, repeats.item), repeats.added)
    order = np.argsort(-scores, axis=1)
    expected = [int(np.flatnonzero(order[i] == items[i])[0]) + 1 for i in range(20)]
    assert rank_exactly(queries, vectors, items, repeats) == pytest.approx(expected, abs=1)
    assert rank_exactly(queries, vectors, items) != pytest.approx(expected, abs=1)


def test_the_latest_row_of_the_same_person_is_found():
    people, times = np.array([1, 0, 1, 1]), np.array([10, 20, 30, 50])
    found = find_latest(people, times, np.array([1, 1, 0, 0, 2]), np.array([40, 9, 20, 19, 99]))
    assert found.tolist() == [2, -1, 1, -1, -1]


def test_labels_are_organic_choices_that_the_answer_did_not_show(tmp_path):
    index = write_index(tmp_path / "i", ["a", "b", "c"], [[1, 0], [0.5, 0.5], [0, 1]])
    query = [1.0, 0.1]  # ranks a, b, c
    answers = [
        answer("r1", MONDAY, "u1", query_embedding=query, item_ids=["a"]),
        answer("r2", MONDAY, "u2", query_embedding=query, item_ids=["a"]),
    ]
    added = {"repeat_item_ids": ["sold", "c"], "repeat_scores": [9.0, 1.5]}  # ranks c, a, b
    lifted = [answers[0], answers[1] | added]
    events = [
        event(MONDAY + MINUTE, user="u1", item="b"),
        event(MONDAY + MINUTE, user="u1", item="a"),  # shown
        event(MONDAY + MINUTE, "r1", user="u1", item="c"),  # an outcome
        event(MONDAY + MINUTE, user="u2", item="c", kind="purchase"),
        event(MONDAY + MINUTE, user="u2", item="c", kind="hide"),
        event(MONDAY + MINUTE, user="u2", item="sold"),  # not in the index
        event(MONDAY + 180 * MINUTE, user="u2", item="b"),  # too late
        event(MONDAY - MINUTE, user="u2", item="b"),  # before
        event(MONDAY + MINUTE, user="u3", item="b"),  # nobody that was answered
    ]
    log, feed = write(tmp_path, answers, events)
    found = read_events(feed, None, MONDAY - DAY, MONDAY + DAY)
    labels = rank_labels(QualitySettings(), log, found, index, TOWERS, [PERIOD])
    assert sorted(labels.rank.tolist()) == [2, 3]
    assert labels.unknown == 1
    assert labels.sums(2, PERIOD).rate == 0.5
    assert labels.mean_reciprocal_rank(PERIOD) == pytest.approx((1 / 2 + 1 / 3) / 2)
    log, _ = write(tmp_path, lifted, events)
    labels = rank_labels(QualitySettings(), log, found, index, TOWERS, [PERIOD])
    assert sorted(labels.rank.tolist()) == [1, 2]
    other = write_index(tmp_path / "o", ["a"], [[1, 0]], "others")
    with pytest.raises(DataValidationError, match="built with towers others"):
        rank_labels(QualitySettings(), log, found, other, TOWERS, [PERIOD])
