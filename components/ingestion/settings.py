"""Settings of the ingestion step."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, field_validator, model_validator

from components.ingestion.health.settings import HealthSettings
from components.ingestion.sources import SOURCES
from refit.errors import UsageError
from refit.settings import Settings
from refit.tables import MemoryLimit, ThreadCount

REJECT = "reject"
MOST_DAYS = 36_500
"""A hundred years: the window of any data, and little enough to be subtracted from any date."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _to_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


UtcTime = Annotated[datetime, AfterValidator(_to_utc)]
"""A time; a date is read as its midnight, and a time without a zone as UTC."""


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
    """Settings of the ingestion step.

    Attributes:
        source: The source to read: the name of a built-in one (a module of
            ``components.ingestion.sources``), of one that an installed package offers, or a dotted
            name such as ``acme.refit:SOURCE``.
        path: The source's file or folder; the source's module says which. A URL that fsspec can
            read, such as ``s3://bucket/folder``, is copied to local disk first. ``simulated``
            reads the output of ``refit simulate`` here, and simulates a history without a path.
        paths: Only for ``files``: tables that are not in ``path`` under their own name; URLs too.
        options: Only for sources that define options of their own: the values of those options.
        simulated: Only for ``simulated``: the settings of the simulated marketplace.
        delimiter: Between the fields of a CSV file; empty detects it.
        start: Earlier events are left out. None: the time of the first event.
        end: Events from this time on are left out. None: ``as_of``, else midnight after the last
            event.
        as_of: Rows with a later time are rejected as being in the future. None: now.
        validation_start: Where validation begins; needs ``test_start``.
        test_start: Where test begins; needs ``validation_start``.
        validation_days: Length of validation, instead of ``validation_start``.
        test_days: Length of test, instead of ``test_start``.
        naive_times: How to read a time without a zone: the IANA name of a zone, or ``reject``.
            None: as the source declares, which is ``reject`` for ``files``.
        context_columns: Event columns beyond the contract to keep. None: all that the source
            offers.
        item_columns: Item columns beyond the contract to keep. None: all that the source offers.
        user_columns: User columns to keep. None: all that the source offers.
        number_columns: Which of these columns to read as numbers, since a CSV file has no types.
        currency: ISO 4217 code of all prices: an item without a currency gets it, an item in
            another one is rejected. Empty: currencies are not checked.
        max_rejected: The largest share of rejected rows with which the run continues.
        max_user_events_per_day: Of each user's events of a UTC day, only the first this many are
            kept, so that a bot does not make up most of the data. The others are counted, and
            written to ``rejected/events_over_cap.parquet``; the purchases and hides among them
            still count for the eligibility rules. None: all are kept.
        health: Thresholds of the health page of the data.
        rejected_folder: Where a failed run leaves its rejected rows and health page, a folder or a
            URL. Empty: beside the output, which on a cluster is lost with the pod.
        memory_limit: How much DuckDB may hold in memory; the rest is spilled to disk.
        threads: Threads of DuckDB; 0 is one for each core.
    """

    source: str
    path: str = ""
    paths: Paths = Paths()
    options: dict[str, Any] = {}
    simulated: dict[str, Any] = {}
    delimiter: str = ""
    start: UtcTime | None = None
    end: UtcTime | None = None
    as_of: UtcTime | None = None
    validation_start: UtcTime | None = None
    test_start: UtcTime | None = None
    validation_days: int | None = Field(default=None, ge=1, le=MOST_DAYS)
    test_days: int | None = Field(default=None, ge=1, le=MOST_DAYS)
    naive_times: str | None = None
    context_columns: tuple[str, ...] | None = None
    item_columns: tuple[str, ...] | None = None
    user_columns: tuple[str, ...] | None = None
    number_columns: tuple[str, ...] = ()
    currency: str = Field(default="", pattern=r"^([A-Z]{3})?$")
    max_rejected: RejectedShares = RejectedShares()
    max_user_events_per_day: int | None = Field(default=None, ge=1)
    health: HealthSettings = HealthSettings()
    rejected_folder: str = ""
    memory_limit: MemoryLimit = "2GB"
    threads: ThreadCount = 0

    @field_validator("source")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if not SOURCES.is_known(name):
            raise ValueError(SOURCES.explain_unknown(name))
        return name

    @field_validator("naive_times")
    @classmethod
    def _is_zone(cls, zone: str | None) -> str | None:
        if zone not in (None, REJECT) and zone not in available_timezones():
            raise ValueError(f"must be {REJECT!r} or the IANA name of a time zone")
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
