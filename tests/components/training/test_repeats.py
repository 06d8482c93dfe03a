"""What the events of a history add to the scores of their own items."""

import numpy as np
import pytest
import tensorflow as tf

from components.training.repeats import FASTER, RepeatWeights, find_repeats
from components.training.settings import TrainSettings
from components.training.towers import QueryTower
from tests.components.training import conftest
from tests.components.training.test_in_process import VOCABULARY

EVENT_TYPES = tf.constant([[2, 1, 0], [1, 0, 0], [0, 0, 0]])
AGES = tf.constant([[0.0, 6.0, 0.0], [1e9, 0.0, 0.0], [0.0, 0.0, 0.0]])


def weigh(event_types: list[float], recency: float = 0.0, growth: float = 0.0) -> np.ndarray:
    layer = RepeatWeights()
    assert not layer(EVENT_TYPES, AGES).numpy().any(), "nothing is added before it is learned"
    values = np.zeros(layer.variables[0].shape, np.float32)
    values[: len(event_types), 0] = event_types
    layer.set_weights([values, recency, growth])
    return np.asarray(layer(EVENT_TYPES, AGES))


def test_an_event_adds_by_its_type_and_nothing_where_there_is_none() -> None:
    expected = FASTER * np.array([[-0.3, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(weigh([9.0, 0.5, -0.3]), expected, rtol=1e-6)


def test_age_and_number_of_events_scale_it_by_two_at_most() -> None:
    found = weigh([9.0, 0.5, -0.3], recency=0.1, growth=0.2)
    amount, age = 0.2 * np.log(3), 0.1 * np.log(7)
    share = 1 / (1 + np.exp(-FASTER * np.array([amount, amount - age])))
    np.testing.assert_allclose(found[0, :2], 2 * FASTER * share * [-0.3, 0.5], rtol=1e-5)
    assert found[1, 0] == pytest.approx(0, abs=1e-6), "of long ago"
    assert weigh([0.0, 0.5], recency=-9.0)[1, 0] == pytest.approx(2 * FASTER * 0.5)


def test_events_are_found_among_the_candidates() -> None:
    places, events = find_repeats(tf.constant([[4, -1, 2], [7, 0, 4]]), tf.constant(5))
    assert places.numpy().tolist() == [[0, 4], [0, 2], [1, 0], [1, 4]]
    assert events.numpy().tolist() == [[0, 0], [0, 2], [1, 1], [1, 2]]


@pytest.mark.parametrize("changes", [{"repeats": False}, {"towers": "popularity"}])
def test_towers_without_them_add_nothing(small: TrainSettings, changes: dict[str, object]) -> None:
    settings = small.model_copy(update=changes)
    tower = QueryTower(settings, conftest.manifest(), VOCABULARY)
    assert tower.weigh_repeats(EVENT_TYPES, AGES) is None
