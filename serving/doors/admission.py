"""Admission: how many calls run and wait at once, over HTTP and gRPC together."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from refit.errors import RefitError
from serving.counters import Counters

QUICK_SECONDS = 0.002
"""Answers that take less run on the event loop: handing one to a thread costs about as much."""
NEWEST_SHARE = 0.1
"""The weight of the latest answer in the moving average of how long answers take."""


class Overloaded(RefitError):  # noqa: N818 - a state, not a fault
    """Too many requests wait already."""


class Admission:
    """Runs synchronous calls on a bounded number of threads, with a bounded queue.

    Answers that are quick and wait for no other process run one after another on the event loop;
    the same number of them may wait. All of it belongs to one event loop.

    Args:
        threads: Number of calls that run at once.
        queue: Number of calls that may wait.
        counters: Counts refused calls as ``refit_shed_requests``.
        alone: Whether an answer needs no other process, such as a model server.
    """

    def __init__(self, threads: int, queue: int, counters: Counters, alone: bool = False) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="answer")
        self._places, self._taken = threads + queue, 0
        self._counters = counters
        self._alone, self._seconds = alone, 2 * QUICK_SECONDS

    async def answer[T](self, call: Callable[..., T], *arguments: Any) -> T:
        """Run a call that answers a request, and return its result.

        Raises:
            Overloaded: The queue is full; the call was not run.
        """
        if not self._alone or self._seconds >= QUICK_SECONDS:
            return await self.run(self._timed, call, *arguments)
        self._take_place()
        try:
            # Those that were read as well take their places, or are refused, before this one runs.
            await asyncio.sleep(0)
            return self._timed(call, *arguments)
        finally:
            self._taken -= 1

    async def run[T](self, call: Callable[..., T], *arguments: Any) -> T:
        """Run a call on a thread and return its result.

        Raises:
            Overloaded: The queue is full; the call was not run.
        """
        self._take_place()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)
        finally:
            self._taken -= 1

    def close(self) -> None:
        """Finish what runs and drop what waits."""
        self._pool.shutdown(cancel_futures=True)

    def _take_place(self) -> None:
        if self._taken >= self._places:
            self._counters.add("refit_shed_requests")
            raise Overloaded("too many requests wait for an answer; try again later")
        self._taken += 1

    def _timed[T](self, call: Callable[..., T], *arguments: Any) -> T:
        started = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            took = time.perf_counter() - started
            self._seconds += NEWEST_SHARE * (took - self._seconds)
