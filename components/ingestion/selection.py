"""Select the columns of a source that are kept, and explain those that cannot be."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables
from refit.contract import Column
from refit.errors import UsageError
from refit.progress import log_message
from refit.tabular.advice import advise_time_unit
from refit.tabular.file_format import REJECT, FileFormat
from refit.tabular.naming import explain_missing, find_exploded, find_misspelt
from refit.tabular.parsing import RAW

_SETTINGS = {
    "events": "context_columns",
    "items": "item_columns",
    "users": "user_columns",
}
_SHOWN = 10


def select_columns(tables: RawTables, settings: IngestSettings, form: FileFormat) -> RawTables:
    """Keep those columns beyond the contract that the settings name.

    Where they name none, every column is kept that has a use: not one of a nested type, not times
    without a zone that nobody explains, and not the numbers of a vector written in columns.

    Raises:
        UsageError: The settings name a column that the source does not offer.
    """
    selected = {}
    for table, setting in _SETTINGS.items():
        offered, wanted = getattr(tables, setting), getattr(settings, setting)
        unknown = sorted(set(wanted or ()) - set(offered))
        if unknown:
            raise UsageError(
                f"{setting}: source {settings.source!r} has no {', '.join(unknown)}; "
                f"it offers {', '.join(offered) or 'none'}"
            )
        rows = getattr(tables, table)
        if wanted is None and rows is not None:
            named = settings.number_columns
            wanted = _leave_out_unusable(table, rows, offered, named, form)
        selected[setting] = offered if wanted is None else wanted
    return replace(tables, **selected)


def find_unnamed_columns(
    tables: RawTables, settings: IngestSettings
) -> Mapping[str, Sequence[str]]:
    """For each table, the columns that are kept though no setting names them."""
    return {
        table: [
            name
            for name in getattr(tables, setting)
            if getattr(settings, setting) is None and name not in settings.number_columns
        ]
        for table, setting in _SETTINGS.items()
    }


def explain_column_errors(
    table: str, rows: ir.Table, columns: Sequence[Column], form: FileFormat
) -> tuple[list[str], list[str]]:
    """Say what is there instead, and which lines of a config cure the errors of a table's columns.

    Returns:
        Further lines of the error, and the advice.
    """
    raw = rows[RAW]
    names = raw.type().names
    there = rows.select(**{name: raw[name] for name in names})
    missing = [c.name for c in columns if c.required and c.name not in names]
    misspelt = find_misspelt(there, table)
    more, advice = [], []
    if missing or misspelt:
        shown, lines = explain_missing(there, table, missing, form)
        more += [
            f"{table}: column {old!r} is not read as {new!r}, which the contract has"
            for new, old in misspelt.items()
            if new not in missing
        ]
        more.append(f"{table}: {shown}")
        advice.append(lines)
    for column in columns:
        if column.name in names and rows[column.name].type().is_numeric() and column.kind == "time":
            value = there[column.name].max().to_pyarrow().as_py()
            more.append(f"{table}: {column.name} is a number, such as {value}")
            advice.append(advise_time_unit(float(value or 0)))
    return more, advice


def _leave_out_unusable(
    table: str, rows: ir.Table, offered: Sequence[str], named: Sequence[str], form: FileFormat
) -> tuple[str, ...]:
    left_out: dict[str, str] = {}
    for prefix, columns in find_exploded(offered).items():
        numbers = [c for c in columns if rows[c].type().is_numeric() or rows[c].type().is_string()]
        if len(numbers) == len(columns) and not set(columns) & set(named):
            left_out |= dict.fromkeys(columns, "")  # one line for all of them
            log_message(
                f"{table}: {columns[0]} to {columns[-1]} are not read: {len(columns)} columns that "
                f"look like one vector; if they are, write in the config:\n"
                f"  vector_columns: {{image_embedding: {prefix}}}"
            )
    for name in offered:
        kind = rows[name].type()
        if name in left_out or name in named:
            continue
        if not _is_simple(kind):
            left_out[name] = _describe_type(kind)
        elif _is_naive(kind) and form.naive_times == REJECT:
            left_out[name] = "times without a zone; naive_times would say what they mean"
    said = [f"{name} ({why})" for name, why in left_out.items() if why]
    if said:
        more = f" and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
        log_message(f"{table}: not read: {', '.join(said[:_SHOWN])}{more}")
    return tuple(name for name in offered if name not in left_out)


def _is_simple(kind: dt.DataType) -> bool:
    return bool(
        kind.is_string()
        or kind.is_numeric()
        or kind.is_boolean()
        or kind.is_timestamp()
        or kind.is_date()
        or kind.is_uuid()
        or kind.is_null()
        or kind.is_unknown()
    )


def _is_naive(kind: dt.DataType) -> bool:
    return bool(kind.is_date() or (kind.is_timestamp() and not kind.timezone))


def _describe_type(kind: dt.DataType) -> str:
    text = str(kind.copy(nullable=True))
    return text if len(text) <= 40 else f"{text[:37]}..."
