"""Functions for sources: find files, read them as tables, check their columns."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from components.ingestion.settings import IngestSettings
from refit.errors import DataValidationError, UsageError
from refit.tabular.file_format import FileFormat
from refit.tabular.reading import read_files


def find_file(settings: IngestSettings, *names: str) -> Path:
    """Return ``settings.path`` if it is a file, else the first of ``names`` in that folder.

    Raises:
        UsageError: The file does not exist.
    """
    path = Path(settings.path)
    if not settings.path or not path.exists():
        raise UsageError(
            f"source {settings.source!r}: path {settings.path!r} does not exist; "
            f"set ingestion.path to {' or '.join(names)}, or to the folder that holds it"
        )
    if path.is_file():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    raise UsageError(f"source {settings.source!r}: {path} holds no {' or '.join(names)}")


def find_all_files(settings: IngestSettings, names: Sequence[str], origin: str) -> list[Path]:
    """Return the files of the folder ``settings.path`` that have these names.

    Raises:
        UsageError: Some do not exist; the message lists them and says to get them from ``origin``.
    """
    paths = [Path(settings.path) / name for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise UsageError(
            f"source {settings.source!r}: {settings.path!r} holds no {', '.join(missing)}; "
            f"get them from {origin}"
        )
    return paths


def write_table(con: ibis.BaseBackend, table: pa.Table, path: Path) -> ir.Table:
    """Write a table that a source made in memory to a Parquet file, and open that."""
    pq.write_table(table, path)
    return con.read_parquet(path)


def read_parts(con: ibis.BaseBackend, parts: Sequence[Path], delimiter: str = "") -> ir.Table:
    """Read Parquet or CSV files as one table; every column of a CSV file is text.

    Args:
        con: An ibis connection to DuckDB.
        parts: The files; columns are matched by name.
        delimiter: Between the fields of a CSV file; empty takes it from the header line.

    Raises:
        DataValidationError: A file is empty, broken or not in UTF-8, or both formats occur.
    """
    return read_files(con, parts, FileFormat(delimiter=delimiter))


def require_columns(table: ir.Table, columns: Iterable[str], path: Path) -> None:
    """Check that a table has the columns that a source needs.

    Raises:
        DataValidationError: Columns are missing; the message lists them.
    """
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataValidationError(
            f"{path} lacks {', '.join(missing)}; it has {', '.join(table.columns)}"
        )
