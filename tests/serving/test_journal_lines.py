import queue
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from refit.prediction import PREDICTION_SCHEMA
from serving.journal_lines import read_days, write_lines
from serving.polled_queue import PolledQueue
from tests.serving.test_prediction_log import NOON, prediction

EVENING = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)


def test_lines_are_read_back_by_day_whatever_they_hold():
    odd = replace(prediction(2), user_id='"\n\\ö\u2028', item_ids=[], scores=[], context="{}")
    written = [prediction(0), replace(odd, time=EVENING), replace(prediction(3), time=NOON)]
    later = replace(prediction(1), time=datetime(2026, 3, 2, tzinfo=UTC), query_embedding=None)
    days = read_days(write_lines([*written, later]))
    assert {day: len(table) for day, table in days.items()} == {"2026-03-01": 3, "2026-03-02": 1}
    assert all(table.schema.equals(PREDICTION_SCHEMA) for table in days.values())
    for one, row in zip(written, days["2026-03-01"].to_pylist(), strict=True):
        assert row == vars(one)
    assert days["2026-03-02"].to_pylist() == [vars(later)]


def test_a_damaged_line_is_left_out_and_the_others_are_read():
    first, second = (write_lines([prediction(n)]) for n in range(2))
    damaged = first[: len(first) // 2] + b"}\n" + second + first[:-20]
    (table,) = read_days(damaged).values()
    assert table["request_id"].to_pylist() == ["r1"]
    assert read_days(b"") == read_days(first[:-20]) == {}


def test_a_polled_queue_is_first_in_first_out_bounded_and_waits():
    waiting = PolledQueue(2)
    with pytest.raises(queue.Empty):
        waiting.get_nowait()
    started = time.monotonic()
    with pytest.raises(queue.Empty):
        waiting.get(timeout=0.05)
    assert time.monotonic() - started >= 0.05
    waiting.put_nowait(1)
    waiting.put_nowait(2)
    with pytest.raises(queue.Full):
        waiting.put_nowait(3)
    assert [waiting.get(), waiting.get()] == [1, 2]
    assert waiting.empty()
    late = threading.Timer(0.1, lambda: waiting.put_nowait(4))
    late.start()
    assert waiting.get() == 4
    late.join()
