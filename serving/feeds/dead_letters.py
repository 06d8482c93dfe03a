"""Lines that could not be used: kept in a file with the reason, each once, and counted."""

import json
from pathlib import Path

from serving.counters import Counters
from serving.feeds.feed import Line

MOST_KEPT = 100_000
"""So many lines are kept by a process; further ones are only counted."""
MOST_BYTES = 2000


class DeadLetters:
    """The lines of one feed that this process could not use.

    Args:
        path: The file they are kept in.
        counters: Where they are counted.
        metric: As what.
        only_count: Whether a line that cannot be kept, on a full disk, is only counted; else it is
            an OSError.
    """

    def __init__(
        self, path: Path, counters: Counters, metric: str, only_count: bool = False
    ) -> None:
        self.path, self._counters, self._metric = path, counters, metric
        self._only_count = only_count
        self._seen: set[tuple[str, int]] = set()
        counters.add(metric, 0)

    def keep(self, line: Line, reason: str) -> None:
        """Keep one line, unless it was kept before."""
        position = (line.position.source, line.position.offset)
        if position in self._seen:
            return
        self._counters.add(self._metric)
        if len(self._seen) >= MOST_KEPT:
            return
        self._seen.add(position)
        text = line.content[:MOST_BYTES].decode(errors="replace")
        entry = {"file": position[0], "offset": position[1], "reason": reason, "line": text}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError:
            if not self._only_count:
                raise
