"""Parquet or CSV files with the columns of the contract: bring your own data.

Origin: your own files. ``path`` is a folder that holds ``events``, ``items`` and ``users``, each as
one ``.parquet``, ``.csv``, ``.csv.gz`` or ``.tsv`` file, or as a folder of such files; or it is an
events file. ``paths`` names tables that are stored elsewhere. Only events are required: items and
users that are not given are derived from the events.

A folder's files are read with those in folders such as ``day=2026-01-01`` below it, whose key is
then a column; names that begin with a dot or an underscore are left out. Columns of other names
are named in ``columns``, words of other event types in ``event_types``.

CSV: a header line, in UTF-8 with or without a byte order mark, or in ``encoding``. Every field is
read as text, so that ids keep their leading zeros; an empty field is null, and so are the texts of
``null_values``. No sign starts a comment. A line that repeats the header is a rejected row, with
its number and its content; so is one with too few or too many fields, unless ``uneven_lines`` is
``fit``, and one before the header that begins with ``#``. All records of a file are counted twice,
by two parsers, and a difference stops the run.

Times: ISO 8601 with an offset, or with the IANA name of a zone after it; others need
``naive_times`` or, if they are numbers, ``time_unit``. Of a local time that clocks show twice, the
later one is meant; one that they skip is read as if they had not been put forward yet. Numbers in
text: ``12.50`` or ``1e3``; others need ``decimal``, ``thousands`` or ``currency_signs``. A vector
is a list, or text such as ``[0.1, 0.2]``, or the columns of ``vector_columns``; an empty one is
null. An id that is stored as a fraction, such as ``12.0``, is read as ``12`` if the whole column
holds whole numbers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir

from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables
from refit.errors import UsageError
from refit.progress import log_message
from refit.tabular.file_format import CONTRACT, REJECT
from refit.tabular.naming import describe_extra, rename_columns, used_names
from refit.tabular.reading import read_files
from refit.tabular.table_files import find_named, find_parts, find_similar

TERMS = "The user's own files, under the user's own terms."
NAIVE_TIMES = REJECT
IS_SIMULATED = False

TABLES = ("events", "items", "users")


def find_files(settings: IngestSettings) -> Sequence[Path]:
    """Return the files of every table, events first."""
    return [part for root in find_tables(settings).values() for part in find_parts(root)]


def find_tables(settings: IngestSettings) -> dict[str, Path]:
    """Return the file or folder of each table that exists.

    Raises:
        UsageError: There are no events, or a path does not exist.
    """
    root = Path(settings.path)
    named = settings.paths.model_dump()
    tables = {}
    for table in TABLES:
        if named[table]:
            tables[table] = Path(named[table])
        elif settings.path and root.is_dir():
            found = find_named(root, table)
            if len(found) > 1:
                raise UsageError(
                    f"{', '.join(map(str, found))} may all be the {table}; "
                    f"name one of them in ingestion.paths.{table}"
                )
            similar = find_similar(root, table)
            if found:
                tables[table] = found[0]
            elif similar:
                raise UsageError(
                    f"{similar[0]} may be the {table}, and is not read: name it {table}.csv or "
                    f"{table}.parquet, as its format is, or name it in ingestion.paths.{table}; "
                    f"if it is something else, move it out of {root}"
                )
        elif settings.path and table == "events":
            tables[table] = root
    if "events" not in tables:
        raise UsageError(f"no events in path {settings.path!r}: needs events.parquet or events.csv")
    return tables


def read(con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
    """Read the tables; every column beyond the contract is offered."""
    form = settings.file_format(NAIVE_TIMES)
    tables = {}
    for name, root in find_tables(settings).items():
        if root.parent == Path(settings.path) and (beside := find_similar(root.parent, name)):
            log_message(f"{name}: not read: {', '.join(map(str, beside))}")
        used = used_names(name, form)
        table = read_files(con, find_parts(root), form, root if root.is_dir() else None, used)
        tables[name] = rename_columns(table, name, form)
    return offer_all_columns(tables)


def offer_all_columns(tables: Mapping[str, ir.Table]) -> RawTables:
    """Offer every column of tables whose columns are named as in the contract."""
    extra = {
        name: tuple(describe_extra(tables[name], CONTRACT[name]))
        for name in TABLES
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
