"""DuckDB through ibis, with the same limits and errors in every step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from refit.errors import DataValidationError, RefitError

if TYPE_CHECKING:
    import ibis

MemoryLimit = Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$")]
"""Maximum memory of DuckDB, such as ``2GB``; the rest is spilled to disk."""
ThreadCount = Annotated[int, Field(ge=0)]
"""Number of threads of DuckDB; 0 uses one per core."""

_DISK_IS_FULL = ("No space left on device", "max_temp_directory_size")


@contextmanager
def open_tables(
    part: str, data: str, memory_limit: str, threads: int, scratch: Path
) -> Iterator["ibis.BaseBackend"]:
    """Open an in-memory DuckDB database, and close it at the end. Its time zone is UTC.

    Args:
        part: The part of the config that sets the limits, such as ``ingestion``; for messages.
        data: The data that is read, such as ``source 'files'``; for messages.
        memory_limit: See ``MemoryLimit``.
        threads: See ``ThreadCount``.
        scratch: Folder for data that does not fit into memory.

    Raises:
        DataValidationError: The data cannot be read, such as a truncated file.
        RefitError: The memory limit is too small, or the disk is full.
    """
    import duckdb
    import ibis

    limits = {"memory_limit": memory_limit, "temp_directory": str(scratch)}
    if threads:
        limits["threads"] = str(threads)
    con = ibis.duckdb.connect(**limits)
    try:
        yield con
    except duckdb.Error as error:
        if not is_about_data(error):
            raise
        if any(sign in str(error) for sign in _DISK_IS_FULL):
            raise RefitError(
                f"{part}: no space is left on the disk that holds {scratch}: {error}"
            ) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            raise RefitError(
                f"{part}.memory_limit {memory_limit} is too small for {data}: raise it, or set "
                f"{part}.threads to fewer threads, which need less memory ({error})"
            ) from error
        raise DataValidationError(f"{data} cannot be read: {error}") from error
    finally:
        con.disconnect()


def is_about_data(error: Exception) -> bool:
    """Whether DuckDB refuses the data, or lacks room for it, rather than the query."""
    import duckdb

    wrong_query = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)
    return isinstance(error, duckdb.Error) and not isinstance(error, wrong_query)
