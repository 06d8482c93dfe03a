"""Processes that live markets side by side, each on one core."""

import gc
import os
from concurrent.futures import ProcessPoolExecutor

import pyarrow as pa
from threadpoolctl import threadpool_limits

GC_THRESHOLD = 100_000
"""Objects made between two collections: markets make many and leave no cycles."""


def open_pool(processes: int | None = None) -> ProcessPoolExecutor:
    """Start so many processes, one for each core if not given.

    More threads in each would only wait for each other.
    """
    cores = len(os.sched_getaffinity(0))
    return ProcessPoolExecutor(processes or cores, initializer=_use_one_core)


def _use_one_core() -> None:
    threadpool_limits(1)
    pa.set_cpu_count(1)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
