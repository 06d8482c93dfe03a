"""Admission: how many calls run and wait at once, over HTTP and gRPC together."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from refit.errors import RefitError
from serving.counters import Counters


class Overloaded(RefitError):  # noqa: N818 - a state, not a fault
    """Too many requests wait already."""


class Admission:
    """Runs synchronous calls on a bounded number of threads, with a bounded queue.

    All of it belongs to one event loop.

    Args:
        threads: Number of calls that run at once.
        queue: Number of calls that may wait.
        counters: Counts refused calls as ``refit_shed_requests``.
    """

    def __init__(self, threads: int, queue: int, counters: Counters) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="answer")
        self._places, self._taken = threads + queue, 0
        self._counters = counters

    async def run[T](self, call: Callable[..., T], *arguments: Any) -> T:
        """Run a call on a thread and return its result.

        Raises:
            Overloaded: The queue is full; the call was not run.
        """
        if self._taken >= self._places:
            self._counters.add("refit_shed_requests")
            raise Overloaded("too many requests wait for an answer; try again later")
        self._taken += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)
        finally:
            self._taken -= 1

    def close(self) -> None:
        """Finish what runs and drop what waits."""
        self._pool.shutdown(cancel_futures=True)
