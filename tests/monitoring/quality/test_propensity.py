from datetime import timedelta

import pyarrow as pa
import pytest

from monitoring.quality.join import read_events
from monitoring.quality.propensity import read_shown_items
from monitoring.quality.settings import QualitySettings
from refit.drift import Window
from refit.prediction import PREDICTION_SCHEMA
from tests.monitoring.quality.feeds import DAY, MONDAY, TOWERS, answer, event, write

PERIOD = Window(start=MONDAY, end=MONDAY + DAY)


def read(tmp_path, answers, events, schema=PREDICTION_SCHEMA):
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
    shown = read(tmp_path, answers, events)
    assert shown.weight.tolist() == [1, 2, 1, 4]
    assert shown.unusable == 2
    assert shown.sums("click", PERIOD).rate == pytest.approx(2 / 8)
    assert shown.sums("purchase", PERIOD).rate == 0
    assert shown.effective_size(PERIOD) == pytest.approx(64 / 22)
    assert shown.rates_by_slot("click", PERIOD) == pytest.approx([0, 2 / 6])


def test_rates_are_told_by_source_and_by_the_slot_of_the_whole_list(tmp_path):
    drawn, chosen = "exploration", "towers"
    answers = [
        answer(
            "a",
            MONDAY,
            "u1",
            item_ids=["x", "y"],
            propensities=[0.9, 0.1],
            sources=[chosen, drawn],
            positions=[0, 1],
        ),
        answer(
            "b",
            MONDAY,
            "u2",
            item_ids=["x", "y"],
            propensities=[0.9, 0.9],
            sources=[chosen, chosen],
            positions=[10, 11],
        ),
        answer("c", MONDAY, "u3", item_ids=["x"], propensities=[0.5]),
    ]
    soon = MONDAY + timedelta(minutes=1)
    shown = read(tmp_path, answers, [event(soon, "a", item="y"), event(soon, "b", item="x")])
    assert shown.slot.tolist() == [0, 1, 10, 11, 0]
    assert shown.rates_by_source("click", PERIOD) == pytest.approx({drawn: 1.0, chosen: 1 / 3})


def test_a_log_of_an_earlier_version_has_no_such_rate(tmp_path):
    later = ("sources", "positions", "propensities", "bucket")
    schema = pa.schema([field for field in PREDICTION_SCHEMA if field.name not in later])
    answers = [answer("a", MONDAY, item_ids=["x"])]
    assert read(tmp_path, answers, [event(MONDAY, "a")], schema) is None


def test_a_log_without_propensities_has_no_such_rate(tmp_path):
    answers = [answer("a", MONDAY, item_ids=["x"])]
    assert read(tmp_path, answers, [event(MONDAY, "a")]) is None
