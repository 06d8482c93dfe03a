"""What to ingest, from where, and how strict to be about it."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, field_validator, model_validator

from refit.errors import UsageError
from refit.settings import Settings

REJECT = "reject"
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _with_zone(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


Moment = Annotated[datetime, AfterValidator(_with_zone)]
"""A point in time; a date is its midnight, and one without a zone is UTC."""


class RejectedShares(Settings):
    """The largest share of a table's rows that may be rejected before the run stops.

    Attributes:
        events: Share of the events, 0 to 1.
        items: Share of the items.
        users: Share of the users.
    """

    events: Share = 0.01
    items: Share = 0.01
    users: Share = 0.01


class Paths(Settings):
    """Where the tables of the source ``files`` are: each a file, or a folder of its parts.

    Attributes:
        events: The events table; empty finds it below ``path``.
        items: The items table; likewise.
        users: The users table; likewise.
    """

    events: str = ""
    items: str = ""
    users: str = ""


class IngestSettings(Settings):
    """What to ingest, from where, and how strict to be about it.

    Attributes:
        source: Name of the source; ``components.ingestion.sources.SOURCES`` lists them.
        path: The source's file or folder, or its URL (any that fsspec knows, such as
            ``s3://bucket/folder``), from which it is copied first; the source's module says which
            files. For ``simulated``: what ``refit simulate`` wrote, else a past is made.
        paths: Only for ``files``: tables that are not found under ``path`` by their own name;
            likewise.
        simulated: Only for ``simulated``: the settings of the simulated marketplace.
        delimiter: Between the fields of a CSV file; empty lets the reader find out.
        start: Events before it are left out. None: the first event.
        end: Events from it on are left out. None: ``as_of``, else midnight after the last event.
        as_of: What is later than this lies in the future and is rejected. None: now.
        validation_start: Where validation begins; needs ``test_start``.
        test_start: Where test begins; needs ``validation_start``.
        validation_days: Length of validation, instead of ``validation_start``.
        test_days: Length of test, instead of ``test_start``.
        naive_times: What a time without a zone means: a zone's IANA name, or ``reject``. None: what
            the source declares, ``reject`` for ``files``.
        context_columns: Event columns beyond the contract to keep. None: the source's own.
        item_columns: Item columns beyond the contract to keep. None: the source's own.
        user_columns: User columns to keep. None: the source's own.
        number_columns: Which of these to read as numbers; CSV says nothing of a column's kind.
        currency: ISO 4217 code that prices must be in: an item without a currency takes it, one in
            another is rejected. Empty: not looked at.
        max_rejected: The share of rejected rows that a run survives.
        rejected_folder: Where a failed run leaves its rejected rows, a folder or a URL. Empty:
            beside the output, which on a cluster is lost with the pod.
        memory_limit: How much DuckDB may hold in memory; the rest goes to disk.
        threads: Threads for DuckDB; 0 takes all there are.
    """

    source: str
    path: str = ""
    paths: Paths = Paths()
    simulated: dict[str, Any] = {}
    delimiter: str = ""
    start: Moment | None = None
    end: Moment | None = None
    as_of: Moment | None = None
    validation_start: Moment | None = None
    test_start: Moment | None = None
    validation_days: int | None = Field(default=None, ge=1)
    test_days: int | None = Field(default=None, ge=1)
    naive_times: str | None = None
    context_columns: tuple[str, ...] | None = None
    item_columns: tuple[str, ...] | None = None
    user_columns: tuple[str, ...] | None = None
    number_columns: tuple[str, ...] = ()
    currency: str = Field(default="", pattern=r"^([A-Z]{3})?$")
    max_rejected: RejectedShares = RejectedShares()
    rejected_folder: str = ""
    memory_limit: str = Field(default="2GB", pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$")
    threads: int = Field(default=0, ge=0)

    @field_validator("source")
    @classmethod
    def _is_known(cls, name: str) -> str:
        from components.ingestion.sources import SOURCES

        if name not in SOURCES:
            raise ValueError(f"unknown source; the sources are {', '.join(SOURCES)}")
        return name

    @field_validator("naive_times")
    @classmethod
    def _is_zone(cls, zone: str | None) -> str | None:
        if zone not in (None, REJECT) and zone not in available_timezones():
            raise ValueError(f"neither {REJECT!r} nor the IANA name of a time zone")
        return zone

    @field_validator("simulated")
    @classmethod
    def _is_a_marketplace(cls, values: dict[str, Any]) -> dict[str, Any]:
        from simulation.settings import read_settings

        try:
            read_settings(values)
        except UsageError as error:
            raise ValueError(str(error).removeprefix("SimulationSettings: ")) from None
        return values

    @model_validator(mode="after")
    def _has_one_split(self) -> Self:
        times = (self.validation_start, self.test_start)
        days = (self.validation_days, self.test_days)
        by_times = all(part is not None for part in times)
        by_days = all(part is not None for part in days)
        if by_times == by_days or any(times) != by_times or any(days) != by_days:
            raise ValueError(
                "give either validation_start and test_start, or validation_days and test_days"
            )
        bounds = [b for b in (self.start, *times, self.end) if b is not None]
        if any(b >= later for b, later in pairwise(bounds)):
            raise ValueError("needs start < validation_start < test_start < end")
        return self
