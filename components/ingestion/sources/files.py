"""Our own contract from Parquet or CSV files: the way to bring your own data.

Where from: wherever you keep it. ``path`` is a folder that holds ``events``, ``items`` and
``users``, each as one ``.parquet``, ``.csv`` or ``.csv.gz`` file, or as a folder of such parts;
or one events file alone. ``paths`` names tables that lie elsewhere. Only events are needed: items
and users that are not given are derived from the events.

CSV: UTF-8 with or without a byte order mark, a header line, every field read as text, so that ids
keep their leading zeros; an empty field is null. Vectors are written as ``[0.1, 0.2]``. A line with
too few or too many fields stops the run, since nobody can say what it meant.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir

from components.ingestion.settings import REJECT, IngestSettings
from components.ingestion.source import RawTables
from refit.contract import EVENTS, ITEMS, USERS
from refit.errors import DataValidationError, UsageError

TERMS = "The user's own files, under the user's own terms."
NAIVE_TIMES = REJECT
IS_SIMULATED = False

TABLES = ("events", "items", "users")
SUFFIXES = (".parquet", ".csv", ".csv.gz")


def find_files(settings: IngestSettings) -> Sequence[Path]:
    """The parts of every table, events first."""
    return [part for parts in find_tables(settings).values() for part in parts]


def find_tables(settings: IngestSettings) -> dict[str, list[Path]]:
    """The parts of each table that is there.

    Raises:
        UsageError: There are no events, or a path leads nowhere.
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
                raise UsageError(f"which is it: {', '.join(map(str, found))}? Name it in paths")
            if found:
                tables[table] = find_parts(found[0])
        elif settings.path and table == "events":
            tables[table] = find_parts(root)
    if "events" not in tables:
        raise UsageError(f"no events in path {settings.path!r}: needs events.parquet or events.csv")
    return tables


def read(con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
    """Read the tables; every column beyond the contract is on offer."""
    tables = {
        name: read_parts(con, parts, settings.delimiter)
        for name, parts in find_tables(settings).items()
    }
    return offer_tables(tables)


def offer_tables(tables: dict[str, ir.Table]) -> RawTables:
    """Tables in the contract's words, with all their further columns."""
    further = {
        name: tuple(c for c in tables[name].columns if c not in {k.name for k in contract})
        for name, contract in zip(TABLES, (EVENTS, ITEMS, USERS), strict=True)
        if name in tables
    }
    return RawTables(
        events=tables["events"],
        items=tables.get("items"),
        users=tables.get("users"),
        context_columns=further["events"],
        item_columns=further.get("items", ()),
        user_columns=further.get("users", ()),
    )


def read_parts(con: ibis.BaseBackend, parts: Sequence[Path], delimiter: str = "") -> ir.Table:
    """Read the parts of one table.

    Raises:
        DataValidationError: A part is empty, in UTF-16, or some are Parquet and some CSV.
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
        delim=delimiter or _find_delimiter(parts[0]),
        quote='"',
        escape='"',
    )


def _find_delimiter(path: Path) -> str:
    """The likely one by the header line; a guess over broken lines would hide what is broken."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    return max(",;\t|", key=header.count)


def find_parts(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """A file, or the parts that lie in a folder.

    Raises:
        UsageError: There is none.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_file():
        return [path]
    parts = sorted(p for p in path.iterdir() if p.name.endswith(suffixes))
    if not parts:
        raise UsageError(f"{path} holds no {' or '.join(suffixes)} file")
    return parts
