"""What the lines of both feeds have in common: the contract's checks, and how they are read."""

import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from refit.errors import ServiceUnreachable
from serving.feeds.dead_letters import DeadLetters
from serving.feeds.feed import Line, LiveFeed
from serving.feeds.lag import FeedLag
from serving.request import Id, Number

INVISIBLE = ("Cc", "Cf", "Zl", "Zp")
_VISIBLE_ASCII = re.compile(r"[!-~]+")


def check_id(text: str) -> str:
    """An id as the data contract wants it.

    Raises:
        ValueError: It is blank, or holds control or invisible characters.
    """
    if _VISIBLE_ASCII.fullmatch(text):
        return text
    if not text.strip():
        raise ValueError("empty")
    if any(unicodedata.category(sign) in INVISIBLE for sign in text):
        raise ValueError("holds control or invisible characters")
    return text


def check_price(price: float) -> float:
    """A price as the data contract wants it.

    Raises:
        ValueError: It is negative.
    """
    if price < 0:
        raise ValueError("negative")
    return price


ContractId = Annotated[Id, AfterValidator(check_id)]
Price = Annotated[Number, AfterValidator(check_price)]


class FeedLine(BaseModel, ABC):
    """A line of a feed."""

    model_config = ConfigDict(frozen=True, strict=True)

    @property
    @abstractmethod
    def time(self) -> datetime:
        """When it happened."""

    @property
    @abstractmethod
    def key(self) -> str:
        """What it is about: lines of one key stay in order."""


def parse_line[T: FeedLine](kind: type[T], line: Line, latest: datetime | None) -> T:
    """Read a line.

    Args:
        kind: What it is.
        line: The line.
        latest: Later times are in the future; None lets all through.

    Raises:
        ValueError: It is not JSON, or breaks the contract; the message has the reason.
    """
    if line.fault:
        raise ValueError(line.fault)
    try:
        parsed = kind.model_validate(_read_json(line.content))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {message}" if where else message) from None
    if latest is not None and parsed.time > latest:
        raise ValueError(f"the time {parsed.time.isoformat()} is in the future")
    return parsed


def _read_json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None


@dataclass
class FeedReader[T: FeedLine]:
    """Reads a feed as typed lines; those that break the contract become dead letters.

    Attributes:
        feed: The feed.
        kind: What its lines are.
        dead_letters: Where lines are kept that cannot be used.
        ahead: How far in the future a time may be; None: there is no now.
        lag: How far behind this process is.
    """

    feed: LiveFeed
    kind: type[T]
    dead_letters: DeadLetters
    ahead: timedelta | None = None
    lag: FeedLag = field(default_factory=FeedLag)

    def read(self, use: Callable[[T, Line], None]) -> None:
        """Use every line since the last call.

        Args:
            use: What to do with a line. An error of it makes the line a dead letter; the message of
                a ValueError is the reason.

        Raises:
            ServiceUnreachable: The feed does not answer.
        """
        try:
            self._use_all(use)
        except ServiceUnreachable:
            self.lag.failed()
            raise
        self.lag.looked(self.feed.behind, self.feed.gaps)

    def parsed(self) -> Iterator[T]:
        """Every line since the last call that keeps the contract.

        Raises:
            ServiceUnreachable: The feed does not answer.
        """
        for parsed, _ in self._parse():
            yield parsed

    def _use_all(self, use: Callable[[T, Line], None]) -> None:
        for parsed, line in self._parse():
            try:
                use(parsed, line)
            except Exception as error:  # one line must not hold up all that follow
                self.dead_letters.keep(line, _reason(error))
            else:
                self.lag.newest = max(self.lag.newest or parsed.time, parsed.time)

    def _parse(self) -> Iterator[tuple[T, Line]]:
        for line in self.feed.read():
            latest = None if self.ahead is None else datetime.now(UTC) + self.ahead
            try:
                parsed = parse_line(self.kind, line, latest)
            except Exception as error:  # as above
                self.dead_letters.keep(line, _reason(error))
            else:
                yield parsed, line


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
