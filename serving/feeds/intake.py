"""Lines of a feed that come as requests: checked, then appended to the feed.

A door calls it; the servers then read the lines from the feed, like all others. For teams without
Kafka, and for tests of a feed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from refit.errors import UsageError
from serving.feeds.activity import ActivityEvent
from serving.feeds.feed import MAX_LINE_BYTES, Line, Position
from serving.feeds.lines import FeedLine, parse_line
from serving.feeds.opening import open_writer
from serving.feeds.settings import LiveFeedSettings
from serving.feeds.stock import StockChange
from serving.feeds.writing import FeedWriter

MOST_LINES = 10_000
MOST_REASONS = 20


@dataclass(frozen=True)
class IntakeCounts:
    """What became of the lines of one request.

    Attributes:
        accepted: Lines that are in the feed now.
        refused: Lines that break the contract; they are not in the feed.
        reasons: Of the first refused lines, number, from 0, and reason.
    """

    accepted: int
    refused: int
    reasons: Sequence[tuple[int, str]] = field(default_factory=tuple)


class Intake:
    """Takes lines of one feed.

    Args:
        kind: What the lines are.
        writer: Where they are appended.
        ahead: How far in the future a time may be; None: there is no now.
    """

    def __init__(
        self, kind: type[FeedLine], writer: FeedWriter, ahead: timedelta | None = None
    ) -> None:
        self._kind, self._writer, self._ahead = kind, writer, ahead

    def accept(self, lines: Sequence[bytes]) -> IntakeCounts:
        """Check lines and append those that keep the contract; blank ones are skipped.

        When it returns, the accepted lines are safe. Sending lines again does no harm.

        Raises:
            UsageError: There are more than ``MOST_LINES``.
            ServiceUnreachable: The feed cannot be written; send all lines again.
        """
        if len(lines) > MOST_LINES:
            raise UsageError(f"{len(lines)} lines at once; send at most {MOST_LINES}")
        latest = None if self._ahead is None else datetime.now(UTC) + self._ahead
        good: list[tuple[str, bytes]] = []
        reasons: list[tuple[int, str]] = []
        refused = 0
        for number, line in enumerate(lines):
            content = line.strip()
            if not content:
                continue
            try:
                good.append((self._check(content, latest).key, content))
            except ValueError as error:
                refused += 1
                if refused <= MOST_REASONS:
                    reasons.append((number, str(error)))
        if good:
            self._writer.append(good)
        return IntakeCounts(len(good), refused, tuple(reasons))

    def close(self) -> None:
        """Close the feed."""
        self._writer.close()

    def _check(self, content: bytes, latest: datetime | None) -> FeedLine:
        if b"\n" in content or b"\r" in content:
            raise ValueError("holds a line end")
        if len(content) >= MAX_LINE_BYTES:
            raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
        return parse_line(self._kind, Line(content, Position("", 0)), latest)


def open_intakes(settings: LiveFeedSettings, has_now: bool = True) -> dict[str, Intake]:
    """The intakes of the feeds that have an address, by name: ``stock`` and ``activity``.

    Args:
        settings: Settings of the feeds.
        has_now: False under ``allow_replay``.

    Raises:
        UsageError: An address is malformed.
    """
    ahead = timedelta(seconds=settings.ahead_seconds) if has_now else None
    feeds: dict[str, tuple[str, type[FeedLine]]] = {
        "stock": (settings.stock, StockChange),
        "activity": (settings.activity, ActivityEvent),
    }
    return {
        name: Intake(kind, open_writer(address, settings), ahead)
        for name, (address, kind) in feeds.items()
        if address
    }
