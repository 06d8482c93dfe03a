"""Read the outcomes and the items of a run of the monitor, as ingestion reads events and items."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path

import ibis.expr.types as ir

from components.monitoring.feed_settings import FeedSettings
from refit.contract import VALID_FROM, Column, EventType
from refit.errors import DataValidationError
from refit.files import remove
from refit.progress import log_message
from refit.tables import open_tables
from refit.tabular.advice import UNKNOWN_TYPE, advise, write_advice
from refit.tabular.csv_copies import PROBLEM
from refit.tabular.file_format import CONTRACT, FileFormat
from refit.tabular.naming import describe_extra, explain_missing, rename_columns, used_names
from refit.tabular.parsing import RAW, find_unreadable, parse
from refit.tabular.reading import read_files
from refit.tabular.table_files import find_parts
from refit.tabular.versions import keep_latest

_LINES = "line: is no row"


def read_feed(table: str, place: Path, out: Path, settings: FeedSettings) -> Path:
    """Write the rows of a feed, in the types of the contract, as one Parquet file.

    Of items that come in versions, it holds the latest of each.

    Args:
        table: events or items.
        place: A file, or a folder of its parts.
        out: A folder for the file.
        settings: How the files are written.

    Raises:
        UsageError: There is no file.
        DataValidationError: A file cannot be read, a required column is missing, there are no
            rows, or too many of them cannot be read; the message names the setting that may help.
    """
    parts = find_parts(place)
    root = place if place.is_dir() else None
    form = settings.form
    scratch = out / ".scratch"
    scratch.mkdir(parents=True)
    limits = (settings.memory_limit, settings.threads)
    with open_tables("ingestion", f"{table} at {place}", *limits, scratch) as con:
        raw = read_files(con, parts, form, root, used_names(table, form))
        raw = rename_columns(raw, table, form)
        columns = _describe_columns(raw, table, settings.number_columns)
        _check_columns(raw, table, place, form)
        rows = parse(raw, columns, form)
        _check_types(rows, columns, table, place)
        rejected = _find_rejected(rows, columns, table, form)
        _check_share(rows, rejected, table, place, settings)
        unreadable = reduce(or_, (failed.fill_null(False) for failed in rejected.values()))
        beyond = describe_extra(raw, columns)
        kept = rows.filter(~unreadable)
        kept = kept.select(
            *(name for name in kept.columns if name != RAW),
            **{name: kept[RAW][name] for name in beyond},
        )
        if table == "items" and VALID_FROM in kept.columns:
            kept = keep_latest(kept, "item_id")
        written = out / f"{table}.parquet"
        con.to_parquet(kept, written)
    remove(scratch)
    return written


def _describe_columns(raw: ir.Table, table: str, numbers: Sequence[str]) -> tuple[Column, ...]:
    contract = CONTRACT[table]
    known = {column.name for column in contract}
    further = [name for name in numbers if name in raw.columns and name not in known]
    return (
        *contract,
        *(Column(name=name, kind="number", meaning="beyond the contract") for name in further),
    )


def _check_columns(raw: ir.Table, table: str, place: Path, form: FileFormat) -> None:
    missing = [c.name for c in CONTRACT[table] if c.required and c.name not in raw.columns]
    if missing:
        there, lines = explain_missing(raw, table, missing, form)
        raise DataValidationError(
            f"{place} lacks {', '.join(missing)}; {there}{write_advice([lines])}"
        )


def _check_types(rows: ir.Table, columns: Sequence[Column], table: str, place: Path) -> None:
    for column in columns:
        if column.kind == "time" and column.name in rows.columns:
            kind = rows[column.name].type()
            if not kind.is_timestamp():
                raise DataValidationError(
                    f"{place}: {column.name} cannot be read as a time: it holds {kind}; if it "
                    "counts from 1970, set ingestion.time_unit"
                )


def _find_rejected(
    rows: ir.Table, columns: Sequence[Column], table: str, form: FileFormat
) -> dict[str, ir.BooleanValue]:
    """The rows that cannot be read, by reason."""
    rejected = find_unreadable(rows, columns, form)
    if table == "events":
        known = [kind.value for kind in EventType]
        rejected[f"event_type: {UNKNOWN_TYPE}"] = ~rows.event_type.isin(known)
    if PROBLEM in rows[RAW].type().names:
        rejected[_LINES] = rows[RAW][PROBLEM].notnull()
    return rejected


def _check_share(
    rows: ir.Table,
    rejected: Mapping[str, ir.BooleanValue],
    table: str,
    place: Path,
    settings: FeedSettings,
) -> None:
    """Raise if there are no rows, or if too many of them cannot be read."""
    counted = rows.agg(
        n=rows.count(), **{reason: rows.count(where=failed) for reason, failed in rejected.items()}
    )
    (counts,) = counted.to_pyarrow().to_pylist()
    n = counts.pop("n")
    if not n:
        raise DataValidationError(f"{place} holds no rows")
    failed = {reason: count for reason, count in counts.items() if count}
    limit = settings.max_rejected.get(table, 0.01)
    reasons, advice = [], []
    for reason, count in failed.items():
        examples = _find_examples(rows, rejected[reason], reason)
        reasons.append(f"{reason}: {count} of {n} rows, such as {', '.join(map(repr, examples))}")
        advice.append(advise(reason, examples))
    if failed and max(failed.values()) > limit * n:
        raise DataValidationError(f"{place}: {'; '.join(reasons)}{write_advice(advice)}")
    for line in reasons:
        log_message(f"{place}: {line}")


def _find_examples(rows: ir.Table, failed: ir.BooleanValue, reason: str) -> list[str]:
    raw = rows[RAW]
    column = reason.partition(":")[0]
    name = column if column in raw.type().names else "_content"
    values = rows.filter(failed).select(value=raw[name]).distinct().order_by("value").limit(3)
    return [str(value) for value in values.to_pyarrow()["value"].to_pylist()]
