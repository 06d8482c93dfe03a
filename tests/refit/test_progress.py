import logging
import threading

import pytest

from refit import progress
from refit.progress import (
    EVENT_MARK,
    EVENTS_VARIABLE,
    Meter,
    Progress,
    StepChange,
    listening,
    parse_event,
    send_event,
    write_event,
)

EVENTS = [
    StepChange("train", "running"),
    StepChange("train", "failed", 1.5),
    Progress("search", 10, 20, "examples", 3.5, True, {"loss": 0.25, "recall@100": 0.5}),
]


class Clock:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def heard():
    events = []
    with listening(events.append):
        yield events


@pytest.fixture
def logged(monkeypatch):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda entry: lines.append(entry.getMessage())
    log = logging.getLogger("refit")
    monkeypatch.setattr(log, "handlers", [handler])
    before = log.level
    log.setLevel(logging.INFO)  # unlike the attribute, this forgets what was off before
    yield lines
    log.setLevel(before)


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_an_event_is_written_as_one_line_and_parsed_again(event, capsys):
    write_event(event)
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert written.startswith(EVENT_MARK)
    assert parse_event(f"    {written}") == event  # kfp's runner indents


@pytest.mark.parametrize(
    "line",
    [
        "",
        "10:00:00 [train] started",
        EVENT_MARK,
        f"{EVENT_MARK}not json",
        f'{EVENT_MARK}{{"step": {{"unknown": 1}}}}',
        f'{EVENT_MARK}{{"other": {{}}}}',
        f"{EVENT_MARK}[1, 2]",
    ],
)
def test_any_other_line_is_not_an_event(line):
    assert parse_event(line) is None


def test_events_are_written_only_if_the_parent_reads_them(monkeypatch, capsys):
    monkeypatch.delenv(EVENTS_VARIABLE, raising=False)
    send_event(EVENTS[0])
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(EVENTS_VARIABLE, "1")
    send_event(EVENTS[0])
    assert parse_event(capsys.readouterr().err) == EVENTS[0]


def test_a_listener_gets_the_events_instead(monkeypatch, capsys, heard):
    monkeypatch.setenv(EVENTS_VARIABLE, "1")
    send_event(EVENTS[0])
    assert heard == [EVENTS[0]]
    assert capsys.readouterr().err == ""


def test_a_meter_reports_amounts_and_the_time_left(clock, heard):
    with Meter("search", 100, "examples", at_most=True) as meter:
        for _ in range(4):
            clock.now += 1.0
            meter.advance(10)
    assert [event.done for event in heard] == [0, 10, 20, 30, 40, 40]
    assert [event.seconds_left for event in heard] == [None, 9.0, 8.0, 7.0, 6.0, 6.0]
    assert [event.finished for event in heard] == [False] * 5 + [True]
    assert all(event.at_most and event.unit == "examples" for event in heard)


def test_work_of_an_earlier_process_does_not_count_as_pace(clock, heard):
    meter = Meter("search", 100, "examples", done=80)
    clock.now += 2.0
    meter.advance(10)
    assert (heard[-1].done, heard[-1].seconds_left) == (90, 2.0)


def test_a_meter_sends_few_events_however_often_it_is_advanced(clock, heard):
    meter = Meter("search", 10_000, "examples")
    for _ in range(10_000):
        clock.now += 0.001
        meter.advance()
    assert 45 <= len(heard) <= 55  # ten seconds


def test_metrics_are_sent_at_once(clock, heard):
    meter = Meter("search", 10, "examples")
    meter.measure(loss=0.5)
    meter.measure(loss=0.25)
    assert [event.metrics for event in heard] == [{"loss": 0.5}, {"loss": 0.25}]


def test_a_long_task_with_logs_is_logged_every_few_seconds(clock, heard, logged):
    quiet, loud = Meter("rank", 100, "queries"), Meter("search", 100, "examples", logs=True)
    for _ in range(12):
        clock.now += 1.0
        quiet.advance()
        loud.advance(2)
    assert logged == [
        "search: 2 examples/s, about 45 s left",
        "search: 2 examples/s, about 40 s left",
    ]


def test_threads_share_a_meter(heard):
    with Meter("rank", 4_000, "queries") as meter:
        threads = [
            threading.Thread(target=lambda: [meter.advance() for _ in range(1_000)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert heard[-1].done == 4_000
