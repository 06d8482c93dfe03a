"""What a source is: a module that finds its files and reads them in the contract's words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import ibis
import ibis.expr.types as ir

from components.ingestion.settings import IngestSettings
from refit.errors import DataValidationError, UsageError


@dataclass(frozen=True)
class RawTables:
    """A source's tables, named as in the contract but not held to it yet.

    Attributes:
        events: What happened.
        items: The listings. None: they are derived from the events that are kept, each column of
            ``derived_item_columns`` with its first value that is not null.
        users: The people. None: those who have an event that is kept.
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
    """A module of ``components.ingestion.sources``."""

    TERMS: str
    """Where the data comes from and under which terms; goes into the manifest."""
    NAIVE_TIMES: str
    """What a time without a zone means in this source: a zone, or ``reject``."""
    IS_SIMULATED: bool

    def find_files(self, settings: IngestSettings) -> Sequence[Path]:
        """The files that the source is made of.

        Raises:
            UsageError: One is missing; the message says where to get it.
        """

    def read(self, con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
        """Read the source.

        Args:
            con: An ibis connection to DuckDB.
            settings: Where the source is.
            scratch: A folder for what the source has to write before it can be read.
        """


def find_file(settings: IngestSettings, *names: str) -> Path:
    """Find one file: ``settings.path`` itself, or the first of ``names`` in that folder.

    Raises:
        UsageError: It is not there.
    """
    path = Path(settings.path)
    if not settings.path or not path.exists():
        raise UsageError(
            f"source {settings.source!r}: path {settings.path!r} does not exist; "
            f"it must lead to {' or '.join(names)}, or the folder that holds it"
        )
    if path.is_file():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    raise UsageError(f"source {settings.source!r}: {path} holds no {' or '.join(names)}")


def require_columns(table: ir.Table, needed: Iterable[str], path: Path) -> None:
    """Make sure that a source's file has the columns it is known for.

    Raises:
        DataValidationError: Some are missing; the message names them.
    """
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise DataValidationError(
            f"{path} lacks {', '.join(missing)}; it has {', '.join(table.columns)}"
        )
