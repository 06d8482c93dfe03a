"""Work that a thread does before its result is needed."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

DEPTH = 4
"""Batches that are built ahead of the step: enough that one slow one, which reads a snapshot, does
not hold up the steps."""


def build_ahead[T](items: Iterator[T], depth: int = DEPTH) -> Iterator[T]:
    """The same items in the same order, of which a thread makes the next ones meanwhile.

    An error is raised where its item would have been.

    Args:
        items: Advanced by the thread only.
        depth: How many are made ahead, at most.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        waiting = deque(thread.submit(next, items, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item  # type: ignore[misc]  # it is not the end
