"""Settings of the ingestion step."""

from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from components.ingestion.health.settings import HealthSettings
from components.ingestion.sources import SOURCES
from refit.errors import UsageError
from refit.quarantine import QuarantinedDays, UtcTime
from refit.settings import Settings
from refit.tables import MemoryLimit, ThreadCount
from refit.tabular.file_format import (
    ColumnNames,
    DateOrder,
    DecimalMark,
    Encoding,
    EventTypeNames,
    FileFormat,
    Mark,
    Signs,
    ThousandsMark,
    TimeUnit,
    UnevenLines,
    VectorColumns,
    Zone,
    check_marks,
)

MOST_DAYS = 36_500
"""A hundred years: the window of any data, and little enough to be subtracted from any date."""
FILES = "files"
"""The source that reads the user's own files; the settings of their format are for it alone."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]


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
        columns: Only for ``files``: the columns of the contract that have other names in the files.
        event_types: Only for ``files``: the contract's event type of each word or number that the
            files use, such as ``{transaction: purchase, 3: view}``.
        encoding: Only for ``files``: of CSV files, such as ``utf-8``, ``cp1252`` or ``utf-16``.
        delimiter: Only for ``files``: between the fields of a CSV file; empty takes the sign that
            the header line holds most often.
        quote: Only for ``files``: around a field of a CSV file; empty where quotes mean nothing.
        escape: Only for ``files``: before a quote within a field of a CSV file; empty where such a
            quote is doubled.
        uneven_lines: Only for ``files``: ``reject`` the lines of a CSV file that have more or fewer
            fields than its header, or ``fit`` them: the fields that a line lacks at its end are
            empty, and empty ones beyond the header are left out. A line of one field among many
            is rejected in any case.
        decimal: Only for ``files``: before the decimals of a number in text, ``.`` or ``,``.
        thousands: Only for ``files``: between the thousands of a number in text; empty for none.
        currency_signs: Only for ``files``: signs or words that stand before or after a number in
            text, such as ``[£, EUR]``; they are left out.
        null_values: Only for ``files``: texts that mean null in any column, such as ``[NULL,
            N/A]``. None: only an empty field means null, and an id that is spelled like a null
            is rejected. An empty list keeps such ids.
        date_order: Only for ``files``: the order of day, month and year in text, such as ``dmy``
            for ``31/12/2026``. The default reads ``2026-12-31`` and ``2026/12/31``.
        time_unit: Only for ``files``: the unit of times that are numbers, counted from 1970. None:
            such times are rejected.
        vector_columns: Only for ``files``: the columns that together are one vector, by the
            vector's name: what their names begin with, a pattern with ``*``, or a list, such as
            ``{image_embedding: emb_}``. They are taken in the order of their numbers.
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
        quarantined: Periods of the items, by ``listed_at``, or of the events, by ``event_time``,
            whose rows are left out. Each run that trains adds the quarantines in force, which the
            registry names; ``index_refresh`` reads all rows, whatever is given here. The rows are
            in ``rejected/``, and do not count against ``max_rejected``.
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
    columns: ColumnNames = ColumnNames()
    event_types: EventTypeNames = {}
    encoding: Encoding = "utf-8"
    delimiter: Mark = ""
    quote: Mark = '"'
    escape: Mark = ""
    uneven_lines: UnevenLines = "reject"
    decimal: DecimalMark = "."
    thousands: ThousandsMark = ""
    currency_signs: Signs = ()
    null_values: tuple[str, ...] | None = None
    date_order: DateOrder = "ymd"
    time_unit: TimeUnit | None = None
    vector_columns: VectorColumns = {}
    start: UtcTime | None = None
    end: UtcTime | None = None
    as_of: UtcTime | None = None
    validation_start: UtcTime | None = None
    test_start: UtcTime | None = None
    validation_days: int | None = Field(default=None, ge=1, le=MOST_DAYS)
    test_days: int | None = Field(default=None, ge=1, le=MOST_DAYS)
    naive_times: Zone = None
    context_columns: tuple[str, ...] | None = None
    item_columns: tuple[str, ...] | None = None
    user_columns: tuple[str, ...] | None = None
    number_columns: tuple[str, ...] = ()
    currency: str = Field(default="", pattern=r"^([A-Z]{3})?$")
    max_rejected: RejectedShares = RejectedShares()
    max_user_events_per_day: int | None = Field(default=None, ge=1)
    quarantined: tuple[QuarantinedDays, ...] = ()
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
    def _describes_files(self) -> Self:
        check_marks(self.delimiter, self.quote, self.decimal, self.thousands)
        given = [
            name
            for name in ("paths", *_FORMAT)
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if given and self.source != FILES:
            raise ValueError(
                f"{', '.join(given)}: only for source {FILES!r}; {self.source!r} does not read it"
            )
        return self

    def file_format(self, naive_times: str) -> FileFormat:
        """How the source's files are written.

        Args:
            naive_times: The zone of times without one, where the settings name none.
        """
        values = {name: getattr(self, name) for name in _FORMAT}
        if self.source != FILES:
            values["null_values"] = ()  # its module knows how it spells null
        return FileFormat(**values, naive_times=self.naive_times or naive_times)

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


_FORMAT = tuple(name for name in FileFormat.model_fields if name != "naive_times")
"""Settings that describe the files of ``files``."""
