"""The Quarantine: days of a table that training leaves out until a person releases them."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from refit.settings import Settings


def _to_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


UtcTime = Annotated[datetime, AfterValidator(_to_utc)]
"""A time; a date is read as its midnight, and a time without a zone as UTC."""
ITEMS, EVENTS = "items", "events"
TABLES = (ITEMS, EVENTS)
"""The tables of which training leaves out days."""
EVER = datetime(1970, 1, 1, tzinfo=UTC)
"""A quarantine that starts here is of the whole table, rows without a time among them."""


class Quarantine(Settings):
    """Rows of one table, by their time, that no model may learn from.

    Attributes:
        quarantine_id: Unique; the table and the end of the window.
        table: ``items`` or ``events``.
        start, end: The period of ``listed_at`` or ``event_time``, [start, end), UTC; no end means
            that it lasts until it is released.
        reason: The fault, for a person.
        alert_id: The alert that it came from.
        released_at, released_by, release_note: Empty while it is in force.
    """

    quarantine_id: str
    table: str
    start: datetime
    end: datetime | None = None
    reason: str
    alert_id: str = ""
    released_at: datetime | None = None
    released_by: str = ""
    release_note: str = ""

    @property
    def is_in_force(self) -> bool:
        """Whether it was not released."""
        return self.released_at is None


class PublishedQuarantines(Settings):
    """The quarantines in force, as the registry holds them for the runs that train.

    Attributes:
        quarantines: The earliest start first.
    """

    quarantines: tuple[Quarantine, ...] = ()


class QuarantinedDays(Settings):
    """A period of one table that a dataset leaves out.

    Attributes:
        quarantine_id: The quarantine, which ``refit quarantine release`` takes.
        table: ``items`` or ``events``.
        start: Begin of the period of ``listed_at`` or ``event_time``; 1970 means the whole table
            until ``end``, items without ``listed_at`` among them.
        end: Its end, exclusive. None: it has none.
        reason: The fault, for a person.
    """

    quarantine_id: str
    table: Literal["items", "events"]
    start: UtcTime
    end: UtcTime | None = None
    reason: str

    @property
    def is_of_all(self) -> bool:
        """Whether the table is in quarantine from its beginning."""
        return self.start <= EVER

    @model_validator(mode="after")
    def _has_time(self) -> Self:
        if self.end is not None and self.end <= self.start:
            raise ValueError("needs start < end")
        return self


def describe_release(ids: tuple[str, ...]) -> str:
    """The command that releases quarantines, for messages; of many, the first few."""
    more = f", and {len(ids) - 3} more" if len(ids) > 3 else ""
    return f"refit quarantine release {' '.join(ids[:3])} --reason REASON{more}"
