"""Functions for sources: find files, read them as tables, check their columns."""

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir

from components.ingestion.settings import IngestSettings
from refit.errors import DataValidationError, UsageError

SUFFIXES = (".parquet", ".csv", ".csv.gz")


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


def find_parts(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Return a file as it is, or the files of a folder that end in one of ``suffixes``, sorted.

    Raises:
        UsageError: There is no such file.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_file():
        return [path]
    parts = sorted(p for p in path.iterdir() if p.name.endswith(suffixes))
    if not parts:
        raise UsageError(f"{path} holds no {' or '.join(suffixes)} file")
    return parts


def read_parts(con: ibis.BaseBackend, parts: Sequence[Path], delimiter: str = "") -> ir.Table:
    """Read Parquet or CSV files as one table; every column of a CSV file is text.

    Args:
        con: An ibis connection to DuckDB.
        parts: The files; columns are matched by name.
        delimiter: Between the fields of a CSV file; empty detects it from the first line.

    Raises:
        DataValidationError: A file is empty or in UTF-16, or both formats occur.
    """
    for part in parts:
        with part.open("rb") as file:
            start = file.read(2)
        if not start:
            raise DataValidationError(f"{part} is empty: 0 bytes")
        if start in (b"\xff\xfe", b"\xfe\xff"):
            raise DataValidationError(f"{part} is in UTF-16; save it as UTF-8")
    are_parquet = {part.suffix == ".parquet" for part in parts}
    if len(are_parquet) > 1:
        raise DataValidationError(f"{parts[0].parent} holds both Parquet and CSV; keep one of them")
    names = [str(part) for part in parts]
    if are_parquet == {True}:
        return con.read_parquet(names, union_by_name=True)
    return con.read_csv(
        names,
        header=True,
        all_varchar=True,
        union_by_name=True,
        delim=delimiter or _detect_delimiter(parts[0]),
        quote='"',
        escape='"',
    )


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


def _detect_delimiter(path: Path) -> str:
    """Count in the header line only: DuckDB's own detection would hide broken lines."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    return max(",;\t|", key=header.count)
