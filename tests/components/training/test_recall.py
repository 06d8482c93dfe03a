"""Validation recall: which items a positive is ranked among."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.training.recall import PURCHASE, RecallMeter

VIEW = 1
SCORES = np.array([5.0, 4.0, 3.0, 2.0, 1.0], np.float32)
"""Of five live items, the same for every query."""
HISTORY = np.array([[0, 1, 0], [0, 2, -1], [0, 9, -1], [-1, -1, -1]])
"""An item twice; the positive itself; an item that is not live; nothing."""
KINDS = np.array(
    [
        [PURCHASE, VIEW, PURCHASE],
        [PURCHASE, PURCHASE, 0],
        [PURCHASE, PURCHASE, 0],
        [0, 0, 0],
    ]
)
POSITIVE = 2
SNAPSHOT = SimpleNamespace(
    item=np.arange(5),
    age_days=np.zeros(5, np.float32),
    popularity=np.zeros((5, 0), np.float32),
    content_rows=lambda items: items,
    rows_of=lambda items: np.where((items >= 0) & (items < 5), items, -1),
)


class SameSnapshot:
    def __getitem__(self, number: int) -> SimpleNamespace:
        return SNAPSHOT

    def live(self, number: int, items: np.ndarray) -> np.ndarray:
        return items < 5


class FixedScores:
    """Towers of one entry: an item's is its score, a query's is 1."""

    item_tower = SimpleNamespace(
        content=lambda codes: codes["id"][:, None],
        embed=lambda content, age_days, popularity: content,
    )
    query_tower = SimpleNamespace(weigh_repeats=lambda event_types, age_days: None)

    def embed_queries(self, codes: Any, history: tf.Tensor, *seen: tf.Tensor) -> tf.Tensor:
        return tf.ones([tf.shape(history)[0], 1])


class FourExamples(SimpleNamespace):
    def __len__(self) -> int:
        return len(HISTORY)


@pytest.mark.parametrize(("hides_bought", "ranks"), [(False, [2, 2, 2, 2]), (True, [1, 1, 1, 2])])
def test_what_was_bought_is_left_out_where_the_market_hides_it(
    hides_bought: bool, ranks: list[int]
) -> None:
    examples = FourExamples(
        snapshot=np.zeros(4, int),
        item=np.full(4, POSITIVE),
        user=np.arange(4),
        codes={},
        history=HISTORY,
        history_event_type=KINDS,
        history_age_days=np.zeros(HISTORY.shape, np.float32),
    )
    catalogue = {"id": tf.constant(np.append(SCORES, np.zeros(5, np.float32)))}
    meter = RecallMeter(
        FixedScores(),  # type: ignore[arg-type]
        examples,  # type: ignore[arg-type]
        SameSnapshot(),  # type: ignore[arg-type]
        catalogue,
        limit=10,
        seed=0,
        hides_bought=hides_bought,
    )
    assert meter.ranks().tolist() == ranks
    assert meter.recall_at(2) == sum(rank < 2 for rank in ranks) / 4
