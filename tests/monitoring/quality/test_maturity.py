from datetime import timedelta

import numpy as np
import pytest

from monitoring.quality.join import join_answers, read_events
from monitoring.quality.maturity import Delays, explain_immature, find_silence, period_of
from monitoring.quality.settings import QualitySettings
from refit.drift import Window
from tests.monitoring.quality.feeds import (
    DAY,
    MONDAY,
    TOWERS,
    answer,
    day_window,
    event,
    live,
    write,
)

SETTINGS = QualitySettings()
EARLIER = Delays(np.full(300, 0.02), 0.0)


def explain(tmp_path, answers, events, day=4, **changes):
    settings = QualitySettings(**changes)
    log, feed_path = write(tmp_path, answers, events)
    window = day_window(day)
    period = period_of(settings, window)
    feed = read_events(feed_path, None, MONDAY, window.end)
    joined = join_answers(settings, log, feed, TOWERS, period)
    return explain_immature(settings, feed, joined, np.ones(len(joined.time), bool), EARLIER)


def test_a_window_is_about_the_answers_that_matured_in_it():
    window = day_window(2)
    period = period_of(SETTINGS, window)
    assert period.end == window.end - timedelta(hours=30)
    assert period.end - period.start == DAY


def test_complete_outcomes_can_be_measured(tmp_path):
    assert explain(tmp_path, *live(5)) == ""
    assert explain(tmp_path, *live(5, late=6)) == ""
    assert explain(tmp_path, *live(5, arrives=6)) == ""


def test_a_feed_that_does_not_reach_is_said(tmp_path):
    stopped = live(5, until=MONDAY + 4 * DAY - timedelta(hours=6))
    why = explain(tmp_path, *stopped)
    assert "the events reach to 2024-01-04 1" in why
    assert "feed_lag_hours" in why
    assert "no events in this period" in explain(tmp_path, live(5)[0], [])


def test_outcomes_that_stop_while_other_events_go_on_are_missing(tmp_path):
    answers, events = live(5)
    browsing = [event(MONDAY + timedelta(hours=h)) for h in range(120)]
    gone = [e for e in events if e["event_time"] < MONDAY + 2 * DAY]
    why = explain(tmp_path, answers, gone + browsing)
    assert "events with request_id have stopped" in why
    hole = [
        e
        for e in events
        if not timedelta(hours=72) <= e["event_time"] - MONDAY < timedelta(hours=82)
    ]
    why = explain(tmp_path, answers, hole + browsing)
    assert "no outcome of the" in why
    assert "from 2024-01-03 23:55 to 2024-01-04 10:04" in why


def test_outcomes_that_come_too_late_make_the_rate_unknown(tmp_path):
    why = explain(tmp_path, *live(5, late=lambda day: 26 if day >= 2 else 0))
    assert "outcomes arrive later than before: 100.0%" in why
    assert explain(tmp_path, *live(5, late=lambda day: 20 if day >= 2 else 0)) == ""


def test_a_run_without_outcomes_is_a_gap_only_if_chance_does_not_explain_it():
    found = np.tile([True, False, False, False], 250)
    people = np.arange(1000)
    assert find_silence(found, people) == (1, 1)
    gap = found.copy()
    gap[400:500] = False
    assert find_silence(gap, people) == (397, 500)
    one = people.copy()
    one[390:510] = 390  # one person who looked at much and clicked on nothing
    assert find_silence(gap, one)[0] == find_silence(gap, one)[1]
    worse = np.zeros(1000, bool)
    worse[::40] = True
    worse[400:500] = False
    start, end = find_silence(worse, people)
    assert start == end, "a model that nobody clicks on has long runs, too"


def test_delays_are_those_that_everybody_could_see():
    delays = Delays.of(SETTINGS, np.array([1.0, 2.0, 26.0, 40.0, np.nan]))
    assert delays.hours.tolist() == [1, 2, 26]
    assert delays.median == 2
    assert delays.late == pytest.approx(1 / 3)


def test_an_answer_that_was_logged_twice_counts_once_and_an_item_is_bought_once(tmp_path):
    at = MONDAY
    answers = [answer("a", at, "u1"), answer("a", at, "u1"), answer("b", at, None)]
    hour = timedelta(hours=1)
    events = [
        event(at + hour, "a", "purchase", item="x", price=10.0),
        event(at + hour, "a", "purchase", item="x", price=10.0),
        event(at + hour, "a", "purchase", item="y", price=None),
        event(at + 30 * hour, "b", "view"),
    ]
    log, feed_path = write(tmp_path, answers, events)
    feed = read_events(feed_path, None, at, at + 2 * DAY)
    joined = join_answers(SETTINGS, log, feed, TOWERS, Window(start=at, end=at + DAY))
    assert joined.hits["purchase"].tolist() == [True, False]
    assert joined.hits["click"].tolist() == [True, False]
    assert joined.revenue.tolist() == [10, 0]
    assert joined.unpriced.tolist() == [1, 0]
    assert joined.known.tolist() == [True, False]
    assert joined.delay.tolist() == [1, 30]
