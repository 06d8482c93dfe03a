"""DuckDB behind ibis, with bounded memory, and its errors in words a person can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import ibis

from components.ingestion.settings import IngestSettings
from refit.errors import DataValidationError, RefitError


@contextmanager
def connect(settings: IngestSettings, scratch: Path) -> Iterator[ibis.BaseBackend]:
    """Open a database that keeps to its memory limit and spills to ``scratch``.

    Raises:
        DataValidationError: What is read from it turns out to be unreadable, such as a torn file.
        RefitError: The memory limit is too small.
    """
    limits = {"memory_limit": settings.memory_limit, "temp_directory": str(scratch)}
    if settings.threads:
        limits["threads"] = str(settings.threads)
    con = ibis.duckdb.connect(**limits)
    try:
        con.raw_sql("SET TimeZone = 'UTC'")
        yield con
    except duckdb.OutOfMemoryException as error:
        raise RefitError(
            f"memory_limit {settings.memory_limit} is too small for this data: {error}"
        ) from error
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
        raise  # a query of ours is wrong, not the data
    except duckdb.Error as error:
        raise DataValidationError(f"source {settings.source!r} cannot be read: {error}") from error
    finally:
        con.disconnect()
