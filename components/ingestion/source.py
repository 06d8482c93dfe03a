"""The protocol of data sources, and how the source of a run is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import ibis
import ibis.expr.types as ir

from components.ingestion.settings import IngestSettings
from components.ingestion.sources import SOURCES
from refit.errors import UsageError
from refit.settings import Settings


@dataclass(frozen=True)
class RawTables:
    """A source's tables: columns are named as in the contract, rows are not checked yet.

    Attributes:
        events: One row for each event.
        items: One row for each listing, or with ``valid_from`` one for each change. None: the
            listings are derived from the events that are kept, each column of
            ``derived_item_columns`` with its first value that is not null.
        users: One row for each user. None: the users who have an event that is kept.
        context_columns: Event columns beyond the contract that the source offers.
        item_columns: Item columns beyond the contract that the source offers.
        user_columns: User columns that the source offers.
        derived_item_columns: Columns of ``events`` that describe the item.
    """

    events: ir.Table
    items: ir.Table | None = None
    users: ir.Table | None = None
    context_columns: tuple[str, ...] = ()
    item_columns: tuple[str, ...] = ()
    user_columns: tuple[str, ...] = ()
    derived_item_columns: tuple[str, ...] = ()


class Source(Protocol):
    """A module, or an object in one, that reads one kind of raw data.

    A source that takes options also has ``Options``, a subclass of ``refit.settings.Settings``;
    ``ingestion.options`` is checked with it before anything is read.
    """

    TERMS: str
    """Origin and licence of the data; written to the dataset's manifest."""
    NAIVE_TIMES: str
    """How to read a time without a zone: the IANA name of a zone, or ``reject``."""
    IS_SIMULATED: bool
    """Whether the data is simulated; every report repeats it."""

    def find_files(self, settings: IngestSettings) -> Sequence[Path]:
        """Return the files that the data consists of; the fingerprint covers their content.

        Raises:
            UsageError: A file is missing; the message says where to get it.
        """

    def read(self, con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
        """Read the files as tables.

        Args:
            con: An ibis connection to DuckDB.
            settings: The settings of the step; ``path`` and ``paths`` are local.
            scratch: A folder for temporary files.

        Raises:
            DataValidationError: A file cannot be used, e.g. a column is missing.
        """


def load_source(settings: IngestSettings) -> Source:
    """Import the source that the settings name, and check its options.

    Raises:
        UsageError: The source does not exist, cannot be imported, lacks an attribute, or does not
            take the options.
    """
    source = SOURCES.load(settings.source)
    options = getattr(source, "Options", None)
    if options is None and settings.options:
        raise UsageError(
            f"ingestion.options: source {settings.source!r} takes no options, "
            f"got {', '.join(settings.options)}"
        )
    if options is not None:
        read_options(settings, options)
    return cast(Source, source)


def read_options[T: Settings](settings: IngestSettings, options: type[T]) -> T:
    """Read ``ingestion.options`` as a source's own settings class.

    Raises:
        UsageError: A name is unknown or a value is invalid; the message lists all of them.
    """
    source = f"ingestion.options of source {settings.source!r}"
    return options.parse(settings.options, source=source)
