from datetime import timedelta

import pyarrow as pa
import pytest

from monitoring.quality.join import read_events
from monitoring.quality.propensity import read_shown_items
from monitoring.quality.settings import QualitySettings
from refit.drift import Window
from refit.prediction import PREDICTION_SCHEMA, PROPENSITIES
from tests.monitoring.quality.feeds import DAY, MONDAY, TOWERS, answer, event, write

PERIOD = Window(start=MONDAY, end=MONDAY + DAY)


def read(tmp_path, answers, events, schema):
    log, feed = write(tmp_path, answers, events, schema)
    found = read_events(feed, None, PERIOD.start, PERIOD.end)
    return read_shown_items(QualitySettings(), log, found, TOWERS, PERIOD)


def test_rates_are_weighted_by_how_rarely_an_item_is_shown(tmp_path):
    answers = [
        answer("a", MONDAY, "u1", item_ids=["x", "y"], propensities=[1.0, 0.5]),
        answer("b", MONDAY, "u2", item_ids=["x", "z"], propensities=[1.0, 0.25]),
        answer("c", MONDAY, "u3", item_ids=["x", "z"], propensities=[0.0, float("nan")]),
        answer("d", MONDAY, "u4", item_ids=["x"]),
    ]
    soon = MONDAY + timedelta(minutes=1)
    events = [event(soon, "a", item="y"), event(soon, "b", item="other")]
    shown = read(tmp_path, answers, events, pa.schema([*PREDICTION_SCHEMA, PROPENSITIES]))
    assert shown.weight.tolist() == [1, 2, 1, 4]
    assert shown.unusable == 2
    assert shown.sums("click", PERIOD).rate == pytest.approx(2 / 8)
    assert shown.sums("purchase", PERIOD).rate == 0
    assert shown.effective_size(PERIOD) == pytest.approx(64 / 22)
    assert shown.rates_by_slot("click", PERIOD) == pytest.approx([0, 2 / 6])


def test_a_log_without_propensities_has_no_such_rate(tmp_path):
    answers = [answer("a", MONDAY, item_ids=["x"])]
    assert read(tmp_path, answers, [event(MONDAY, "a")], PREDICTION_SCHEMA) is None
