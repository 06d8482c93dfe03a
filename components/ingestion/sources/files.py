"""Parquet or CSV files whose columns are named as in the contract: bring your own data.

Origin: your own files. ``path`` is a folder that holds ``events``, ``items`` and ``users``, each as
one ``.parquet``, ``.csv`` or ``.csv.gz`` file, or as a folder of such files; or it is an events
file. ``paths`` names tables that are stored elsewhere. Only events are required: items and users
that are not given are derived from the events.

CSV: UTF-8 with or without a byte order mark, and a header line. Every field is read as text, so
that ids keep their leading zeros; an empty field is null. A vector is written as ``[0.1, 0.2]``. A
line with too few or too many fields stops the run, since its fields cannot be assigned to columns.
"""

from collections.abc import Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir

from components.ingestion.reading import SUFFIXES, find_parts, read_parts
from components.ingestion.settings import REJECT, IngestSettings
from components.ingestion.source import RawTables
from refit.contract import EVENTS, ITEMS, USERS
from refit.errors import UsageError

TERMS = "The user's own files, under the user's own terms."
NAIVE_TIMES = REJECT
IS_SIMULATED = False

TABLES = ("events", "items", "users")


def find_files(settings: IngestSettings) -> Sequence[Path]:
    """Return the files of every table, events first."""
    return [part for parts in find_tables(settings).values() for part in parts]


def find_tables(settings: IngestSettings) -> dict[str, list[Path]]:
    """Return the files of each table that exists.

    Raises:
        UsageError: There are no events, or a path does not exist.
    """
    root = Path(settings.path)
    named = settings.paths.model_dump()
    tables = {}
    for table in TABLES:
        if named[table]:
            tables[table] = find_parts(Path(named[table]))
        elif settings.path and root.is_dir():
            names = (root / table, *(root / f"{table}{suffix}" for suffix in SUFFIXES))
            found = [path for path in names if path.exists()]
            if len(found) > 1:
                raise UsageError(
                    f"{', '.join(map(str, found))} may all be the {table}; "
                    f"name one of them in ingestion.paths.{table}"
                )
            if found:
                tables[table] = find_parts(found[0])
        elif settings.path and table == "events":
            tables[table] = find_parts(root)
    if "events" not in tables:
        raise UsageError(f"no events in path {settings.path!r}: needs events.parquet or events.csv")
    return tables


def read(con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
    """Read the tables; every column beyond the contract is offered."""
    tables = {
        name: read_parts(con, parts, settings.delimiter)
        for name, parts in find_tables(settings).items()
    }
    return offer_all_columns(tables)


def offer_all_columns(tables: dict[str, ir.Table]) -> RawTables:
    """Offer every column of tables whose columns are named as in the contract."""
    extra = {
        name: tuple(c for c in tables[name].columns if c not in {k.name for k in contract})
        for name, contract in zip(TABLES, (EVENTS, ITEMS, USERS), strict=True)
        if name in tables
    }
    return RawTables(
        events=tables["events"],
        items=tables.get("items"),
        users=tables.get("users"),
        context_columns=extra["events"],
        item_columns=extra.get("items", ()),
        user_columns=extra.get("users", ()),
    )
