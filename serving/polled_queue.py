"""A bounded queue whose reader looks from time to time, so that putting wakes nobody up.

To wake a thread takes tens of microseconds of the one that answers, which then competes with
it; so does every look. What waits for the next look is lost if the process is killed.
"""

import queue
import time
from collections import deque

POLL_SECONDS = 0.05


class PolledQueue[T]:
    """Any threads may put; one gets. As ``queue.Queue``, as far as that is used.

    Args:
        capacity: How many may wait. Threads that put at the same moment may exceed it by as many.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: deque[T] = deque()

    def put_nowait(self, item: T) -> None:
        """Add an item.

        Raises:
            queue.Full: Too many wait.
        """
        if len(self._waiting) >= self._capacity:
            raise queue.Full
        self._waiting.append(item)

    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def get_nowait(self) -> T:
        """Take the first item.

        Raises:
            queue.Empty: There is none.
        """
        try:
            return self._waiting.popleft()
        except IndexError:
            raise queue.Empty from None

    def get(self, timeout: float | None = None) -> T:
        """Take the first item, and wait for it.

        Raises:
            queue.Empty: There is none after ``timeout`` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self._waiting.popleft()
            except IndexError:
                left = POLL_SECONDS if until is None else until - time.monotonic()
                if left <= 0:
                    raise queue.Empty from None
                time.sleep(min(POLL_SECONDS, left))
