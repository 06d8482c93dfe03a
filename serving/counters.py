"""Counters, gauges and timers of a recommender, in the format of Seldon's metrics."""

import threading
from collections import defaultdict, deque
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

Metric = dict[str, Any]
Key = tuple[str, tuple[tuple[str, str], ...]]
MOST_PENDING = 10_000
"""Maximum number of gauges and timings between two drains; the oldest are dropped."""


@lru_cache(maxsize=4096)
def key_of(name: str, **tags: str) -> Key:
    """What a counter of this name and these tags is known by."""
    return (name, tuple(sorted(tags.items())) if tags else ())


class Counters:
    """Measurements since the last drain, and totals since the start; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: deque[Metric] = deque(maxlen=MOST_PENDING)
        self._increments: defaultdict[Key, float] = defaultdict(float)
        self._drained: defaultdict[Key, float] = defaultdict(float)

    def add(self, name: str, value: float = 1, **tags: str) -> None:
        """Increment a counter."""
        self.add_all([(key_of(name, **tags), value)])

    def add_all(self, counts: Iterable[tuple[Key, float]]) -> None:
        """Increment several counters."""
        with self._lock:
            for key, value in counts:
                self._increments[key] += value

    def set(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge."""
        self._append("GAUGE", name, value, tags)

    def time(self, name: str, milliseconds: float, **tags: str) -> None:
        """Add one timing to a histogram."""
        self._append("TIMER", name, milliseconds, tags)

    def total(self, name: str, **tags: str) -> float:
        """The total of a counter since the start, summed over all tags that are not given."""
        wanted = set(tags.items())
        with self._lock:
            return sum(
                value
                for counts in (self._drained, self._increments)
                for (key, key_tags), value in counts.items()
                if key == name and wanted <= set(key_tags)
            )

    def drain(self) -> list[Metric]:
        """Return and clear the measurements since the last call."""
        with self._lock:
            counts = [
                {"type": "COUNTER", "key": name, "value": value, "tags": dict(tags)}
                for (name, tags), value in self._increments.items()
            ]
            for key, value in self._increments.items():
                self._drained[key] += value
            measured = list(self._pending)
            self._pending.clear()
            self._increments.clear()
        return counts + measured

    def _append(self, kind: str, name: str, value: float, tags: dict[str, str]) -> None:
        with self._lock:
            self._pending.append({"type": kind, "key": name, "value": value, "tags": tags})
