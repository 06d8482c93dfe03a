"""The protocol of feeds.

A feed is a log of lines to which others append. Every process reads it by itself, from the time of
its bundle on, and keeps its positions in memory: what it knows is built from the feed alone, so a
process that was killed builds the same again, and nothing is lost. What is built from the lines
does not depend on their order, nor on how often a line is read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class Position:
    """Where a line is: its file and byte offset, or its topic, partition and offset."""

    source: str
    offset: int


@dataclass(frozen=True)
class Line:
    """One line of a feed.

    Attributes:
        content: Its bytes, without the line end.
        position: Where it is.
        fault: Why it cannot be read; empty if it can.
    """

    content: bytes
    position: Position
    fault: str = ""


class LiveFeed(Protocol):
    """A log of lines, read by one thread of one process."""

    def read(self) -> Iterator[Line]:
        """The lines since the last call, as far as they are there now.

        A line counts as read when the next one is asked for: after an error in between, it comes
        again.

        Raises:
            ServiceUnreachable: The feed does not answer.
        """
        ...

    @property
    def behind(self) -> int | None:
        """How much is not read yet: messages, or bytes of files; None where that is unknown."""
        ...

    @property
    def gaps(self) -> int:
        """How often lines were gone before they were read."""
        ...

    @property
    def positions(self) -> Mapping[str, Any]:
        """Where it goes on, as JSON values by file or partition; for ``resume``."""
        ...

    def resume(self, positions: Mapping[str, Any]) -> None:
        """Go on from earlier positions; what has changed since is read from its start.

        Call it before the first line is read. Servers do not: what they know is rebuilt.
        """
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...
