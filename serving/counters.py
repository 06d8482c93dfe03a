"""Counters, gauges and timers of a recommender, in the format of Seldon's metrics."""

import threading
from collections import defaultdict, deque
from typing import Any

Metric = dict[str, Any]
_Key = tuple[str, tuple[tuple[str, str], ...]]
MOST_PENDING = 10_000
"""Maximum number of gauges and timings between two drains; the oldest are dropped."""


class Counters:
    """Measurements since the last drain, and totals since the start; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: deque[Metric] = deque(maxlen=MOST_PENDING)
        self._increments: defaultdict[_Key, float] = defaultdict(float)
        self._totals: defaultdict[_Key, float] = defaultdict(float)

    def add(self, name: str, value: float = 1, **tags: str) -> None:
        """Increment a counter."""
        key = (name, tuple(sorted(tags.items())) if tags else ())
        with self._lock:
            self._increments[key] += value
            self._totals[key] += value

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
                for (key, key_tags), value in self._totals.items()
                if key == name and wanted <= set(key_tags)
            )

    def drain(self) -> list[Metric]:
        """Return and clear the measurements since the last call."""
        with self._lock:
            counts = [
                {"type": "COUNTER", "key": name, "value": value, "tags": dict(tags)}
                for (name, tags), value in self._increments.items()
            ]
            measured = list(self._pending)
            self._pending.clear()
            self._increments.clear()
        return counts + measured

    def _append(self, kind: str, name: str, value: float, tags: dict[str, str]) -> None:
        with self._lock:
            self._pending.append({"type": kind, "key": name, "value": value, "tags": tags})
