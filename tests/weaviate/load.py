"""Requests that are asked all the time, and what they were answered with."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from serving.recommender import Recommender
from tests.serving.tiny import NOW

PAUSE = 0.02
"""Seconds between two requests of a thread: the nodes need the processor too."""


@dataclass
class Load:
    """What requests under load were answered with."""

    answers: int = 0
    fallbacks: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    bundles: set[str] = field(default_factory=set)

    def count(self, answer: dict, seconds: float) -> None:
        self.answers += 1
        self.seconds.append(seconds)
        self.bundles.add(answer["bundle_id"])
        if answer["fallback"]:
            self.fallbacks[answer["fallback"]] = self.fallbacks.get(answer["fallback"], 0) + 1


@contextmanager
def under_load(recommender: Recommender, threads: int = 3) -> Iterator[Load]:
    """Ask all the time."""
    load, stop, lock = Load(), threading.Event(), threading.Lock()

    def ask(number: int) -> None:
        rng = np.random.default_rng(number)
        while not stop.wait(PAUSE):
            require = {"size": [str(rng.choice(["S", "M", "L"]))]} if rng.random() < 0.5 else {}
            body = {"user_id": f"user-{rng.integers(0, 29)}", "require": require, "time": NOW}
            started = time.perf_counter()
            try:
                answer = recommender.recommend(body)
                assert answer["items"]
            except Exception as error:
                load.failures.append(repr(error))
                continue
            with lock:
                load.count(answer, time.perf_counter() - started)

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    for thread in asking:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in asking:
            thread.join()
