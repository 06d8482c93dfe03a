"""Where calls run, and how many may wait."""

import asyncio
import threading
import time

import pytest

from serving.counters import Counters
from serving.doors.admission import Admission, Overloaded


def run(body):
    asyncio.run(body)


def where(seconds: float = 0.0) -> bool:
    """Whether it runs on the event loop's thread."""
    time.sleep(seconds)
    return threading.current_thread() is threading.main_thread()


def test_quick_answers_run_on_the_event_loop_until_one_is_slow():
    async def ask():
        admission = Admission(2, 2, Counters(), alone=True)
        first = [await admission.answer(where) for _ in range(100)]
        assert not first[0], "nobody knows yet that it is quick"
        assert all(first[-50:])
        assert await admission.answer(where, 0.2), "this one was not expected"
        assert not await admission.answer(where)
        assert not await admission.run(where), "what is no answer never holds the loop"
        admission.close()

    run(ask())


def test_answers_that_need_another_process_run_on_threads():
    async def ask():
        admission = Admission(2, 2, Counters())
        assert not any([await admission.answer(where) for _ in range(100)])
        admission.close()

    run(ask())


def test_the_same_number_waits_on_the_event_loop_as_for_threads():
    async def ask():
        counters = Counters()
        admission = Admission(2, 3, counters, alone=True)
        for _ in range(100):
            await admission.answer(where)
        together = [admission.answer(where, 0.001) for _ in range(20)]
        found = await asyncio.gather(*together, return_exceptions=True)
        assert [type(one) for one in found] == [bool] * 5 + [Overloaded] * 15
        assert counters.total("refit_shed_requests") == 15
        assert await admission.answer(where), "the places are free again"
        with pytest.raises(ZeroDivisionError):
            await admission.answer(lambda: 1 / 0)
        admission.close()

    run(ask())
