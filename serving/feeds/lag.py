"""How far a process is behind a feed, and whether it may answer."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from serving.counters import Counters


@dataclass
class FeedLag:
    """How far behind a process is.

    Attributes:
        behind: What was not read at the last look, in messages or bytes; None where unknown.
        newest: The latest time of a line that was used.
        answers: Whether the feed answered at the last look.
        gaps: How often lines were gone before they were read.
    """

    behind: int | None = None
    newest: datetime | None = None
    answers: bool = False
    gaps: int = 0
    clock: Callable[[], float] = time.monotonic
    _counted_gaps: int = 0
    _at_end: float = field(default=-math.inf)

    def looked(self, behind: int | None, gaps: int) -> None:
        """Record that everything there was has been used, as far as it is known."""
        self.behind, self.gaps, self.answers = behind, gaps, True
        if not behind:
            self._at_end = self.clock()

    def failed(self) -> None:
        """Record that the feed did not answer."""
        self.answers = False

    @property
    def seconds(self) -> float:
        """Seconds since the feed was last read to its end; infinite before the first time."""
        return self.clock() - self._at_end

    def is_ready(self, most_seconds: float) -> bool:
        """Whether answers may rest on what was read.

        A process that was never at the end does not know what was sold. One that has fallen behind
        is worse than its neighbours. A feed that has gone away is the same for all of them.
        """
        if self._at_end == -math.inf:
            return False
        return not self.answers or self.seconds <= most_seconds

    def measure(self, feed: str, counters: Counters) -> None:
        """Set the gauges of a feed and count its gaps."""
        if self._at_end > -math.inf:
            counters.set("refit_feed_lag_seconds", self.seconds, feed=feed)
        if self.behind is not None:
            counters.set("refit_feed_behind", self.behind, feed=feed)
        if self.newest is not None:
            age = (datetime.now(UTC) - self.newest).total_seconds()
            counters.set("refit_feed_newest_age_seconds", age, feed=feed)
        counters.set("refit_feed_answers", float(self.answers), feed=feed)
        counters.add("refit_feed_gaps", self.gaps - self._counted_gaps, feed=feed)
        self._counted_gaps = self.gaps

    def report(self) -> dict[str, Any]:
        """What the status of a server says of a feed."""
        known = self._at_end > -math.inf
        return {
            "lag_seconds": round(self.seconds, 3) if known else None,
            "behind": self.behind,
            "newest": self.newest.isoformat() if self.newest else None,
            "answers": self.answers,
            "gaps": self.gaps,
        }
