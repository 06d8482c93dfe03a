"""Read the files of a table as one table: matched by name, each row once, nothing guessed."""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from refit.errors import DataValidationError
from refit.progress import log_message
from refit.tabular.csv_copies import (
    LINE_COLUMNS,
    RESERVED,
    copy_to_parquet,
    find_repeated_names,
)
from refit.tabular.file_format import FileFormat
from refit.tabular.table_files import is_parquet, partition_keys

_PLACE = "_place"
_WHOLE = 2**53


def read_files(
    con: ibis.BaseBackend,
    parts: Sequence[Path],
    form: FileFormat,
    root: Path | None = None,
    used: Sequence[str] = (),
) -> ir.Table:
    """Read Parquet or CSV files as one table; every column of a CSV file is text.

    Lines of CSV files that are no rows are rows with ``LINE_COLUMNS``. A column that a part lacks
    is null there. Where parts hold a column as different types that are not all numbers, it is
    read as text.

    Args:
        con: An ibis connection to DuckDB.
        parts: The files.
        form: How they are written.
        root: The table's folder; the names of ``key=value`` folders below it are columns of text,
            unless the files have columns of these names.
        used: Names in the files of the columns that matter: they may not be there twice.

    Raises:
        DataValidationError: A file cannot be read, both formats occur, or a column that matters is
            in a file twice.
    """
    given = _leave_out_empty(parts)
    if len({is_parquet(part) for part in given}) > 1:
        raise DataValidationError(f"{given[0].parent} holds both Parquet and CSV; keep one of them")
    if is_parquet(given[0]):
        files = {part: part for part in given}
    else:
        files = _copy_csv(con, given, form, used)
    by_schema: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    rows = 0
    for part, file in files.items():
        schema, n = _read_schema(part, file, used)
        rows += n
        columns = tuple(zip(schema.names, map(str, schema.types), strict=True))
        by_schema.setdefault(columns, []).append(part)
    keys = {part: partition_keys(part, root) if root else {} for part in files}
    groups = [_read_group(con, group, files, keys) for group in by_schema.values()]
    if files[given[0]] == given[0]:
        groups = [_rename_reserved(group) for group in groups]
    table = _unite(_spell_alike(groups, used))
    _say_what_parts_lack(table, groups, list(by_schema.values()))
    _check_rows(table, rows, given)
    return table


def _leave_out_empty(parts: Sequence[Path]) -> list[Path]:
    """The parts that hold something; an empty CSV part holds no row, an empty Parquet is broken."""
    empty = [part for part in parts if not part.stat().st_size]
    broken = [part for part in empty if is_parquet(part) or len(empty) == len(parts)]
    if broken:
        raise DataValidationError(f"{broken[0]} is empty: 0 bytes")
    for part in empty:
        log_message(f"{part} is empty: 0 bytes, no row")
    return [part for part in parts if part not in empty]


def _copy_csv(
    con: ibis.BaseBackend, parts: Sequence[Path], form: FileFormat, used: Sequence[str]
) -> dict[Path, Path]:
    folder = Path(con.raw_sql("SELECT current_setting('temp_directory')").fetchone()[0])
    folder = folder / f"csv-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    copies = {}
    for number, part in enumerate(parts):
        copies[part] = folder / f"{number:06}.parquet"
        if repeated := find_repeated_names(part, form) & set(used):
            raise DataValidationError(_explain_repeated(part, repeated))
        copy_to_parquet(part, copies[part], form)
    return copies


def _read_schema(part: Path, file: Path, used: Sequence[str]) -> tuple[pa.Schema, int]:
    try:
        opened = pq.ParquetFile(file)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise DataValidationError(f"{part} cannot be read as Parquet: {error}") from None
    with opened:
        schema = opened.schema_arrow
        folded = [name.casefold() for name in schema.names]
        if repeated := {name for name in used if folded.count(name.casefold()) > 1}:
            raise DataValidationError(_explain_repeated(part, repeated))
        return schema, opened.metadata.num_rows


def _explain_repeated(part: Path, names: set[str]) -> str:
    return (
        f"{part} has more than one column {' and '.join(map(repr, sorted(names)))}, in upper or "
        "lower case; rename all but one of them in the file"
    )


def _read_group(
    con: ibis.BaseBackend,
    parts: Sequence[Path],
    files: Mapping[Path, Path],
    keys: Mapping[Path, Mapping[str, str | None]],
) -> ir.Table:
    """Read files of the same schema, with the keys of their folders as columns."""
    names = list(dict.fromkeys(key for part in parts for key in keys[part]))
    table = con.read_parquet(
        [str(files[part]) for part in parts],
        hive_partitioning=False,
        filename=_PLACE if names else False,
    )
    if not names:
        return table
    places = pa.table(
        {
            _PLACE: [str(files[part]) for part in parts],
            **{
                name: pa.array([keys[part].get(name) for part in parts], pa.string())
                for name in names
            },
        }
    )
    own = {column.casefold() for column in table.columns}
    values = ibis.memtable(places)
    kept = [name for name in names if name.casefold() not in own]
    joined = table.join(values.select(_PLACE, *kept), _PLACE, how="left")
    return joined.drop(_PLACE, *(c for c in joined.columns if c == f"{_PLACE}_right"))


def _rename_reserved(group: ir.Table) -> ir.Table:
    """Columns of the files that are called like those which Refit adds get other names."""
    taken = [name for name in group.columns if name in RESERVED]
    for name in taken:
        log_message(f"column {name} is read as {name}_2: the name is reserved")
    return group.rename({f"{name}_2": name for name in taken}) if taken else group


def _spell_alike(groups: Sequence[ir.Table], used: Sequence[str]) -> list[ir.Table]:
    """Give columns whose names differ in case only, from part to part, the same name."""
    there = [name for group in groups for name in group.columns]
    names = {name.casefold(): name for name in reversed(there)}
    names |= {name.casefold(): name for name in used if name in there}
    spelled = []
    for group in groups:
        other = {names[c.casefold()]: c for c in group.columns if names[c.casefold()] != c}
        spelled.append(group.rename(other) if other else group)
    return spelled


def _unite(groups: Sequence[ir.Table]) -> ir.Table:
    if len(groups) == 1:
        return groups[0]
    types: dict[str, dt.DataType] = {}
    for name in dict.fromkeys(name for group in groups for name in group.columns):
        types[name] = _common_type([g[name].type() for g in groups if name in g.columns])
    return ibis.union(
        *(
            group.select(
                **{
                    name: _cast(group[name], dtype) if name in group.columns else ibis.null(dtype)
                    for name, dtype in types.items()
                }
            )
            for group in groups
        )
    )


def _cast(value: ir.Value, dtype: dt.DataType) -> ir.Value:
    """A column as the type of all parts; beside text, the number 12.0 is written 12."""
    if dtype.is_string() and (value.type().is_floating() or value.type().is_decimal()):
        is_whole = (value.cast(dt.float64) % 1 == 0) & (value.abs() < _WHOLE)
        whole = ibis.ifelse(is_whole, value, None).cast(dt.int64)
        given = ibis.ifelse(value.isnan(), None, value) if value.type().is_floating() else value
        return ibis.coalesce(whole.cast(dt.string), given.cast(dt.string))
    return value.cast(dtype)


def _common_type(types: Sequence[dt.DataType]) -> dt.DataType:
    """One type for the values of all parts; a time without a zone stays one, as text."""
    typed = [kind for kind in types if not (kind.is_null() or kind.is_unknown())] or list(types)
    different = {str(kind.copy(nullable=True)) for kind in typed}
    if len(different) == 1:
        return typed[0].copy(nullable=True)
    if all(kind.is_integer() for kind in typed):
        return dt.int64
    if all(kind.is_numeric() for kind in typed):
        return dt.float64
    if all(kind.is_timestamp() and kind.timezone for kind in typed):
        return dt.Timestamp(timezone="UTC")
    if all(kind.is_timestamp() and not kind.timezone for kind in typed):
        return dt.Timestamp(scale=6)
    if all(kind.is_array() and kind.value_type.is_numeric() for kind in typed):
        return dt.Array(dt.float64)
    return dt.string


def _say_what_parts_lack(
    table: ir.Table, groups: Sequence[ir.Table], parts: Sequence[Sequence[Path]]
) -> None:
    for group, files in zip(groups, parts, strict=True):
        lacking = [c for c in table.columns if c not in {*group.columns, *LINE_COLUMNS}]
        if lacking:
            more = f" and {len(files) - 1} more parts" if len(files) > 1 else ""
            log_message(f"{files[0]}{more}: no column {', '.join(lacking[:20])}; read as null")


def _check_rows(table: ir.Table, rows: int, parts: Sequence[Path]) -> None:
    found = int(table.count().to_pyarrow().as_py())
    if found != rows:
        raise DataValidationError(
            f"{parts[0]} and {len(parts) - 1} more files hold {rows} rows, but {found} were read"
        )
