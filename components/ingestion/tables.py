"""Events, items and users, each from raw to written: what is particular to each table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandera.ibis as pa

from components.ingestion.cleaning import (
    ValidatedTable,
    Violation,
    count_rows,
    describe_violations,
    drop_duplicates,
    hold_count,
    write,
)
from components.ingestion.parsing import find_unreadable, parse
from components.ingestion.schemas import (
    find_structure_faults,
    find_violations,
    make_events_schema,
    make_items_schema,
    make_users_schema,
)
from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables
from refit.contract import EVENTS, ITEMS, USERS, Column, ColumnKind
from refit.dataset import REJECTED_FOLDER, RowCounts
from refit.errors import DataValidationError, UsageError

MIDNIGHT = {"hour": 0, "minute": 0, "second": 0, "microsecond": 0}
KEYS = {
    "events": ("user_id", "item_id", "event_type", "event_time"),
    "items": ("item_id",),
    "users": ("user_id",),
}
"""Rows of a table that agree in these are the same row, told twice."""
SORTED_BY = {
    "events": ("event_time", "user_id", "item_id", "event_type"),
    "items": ("item_id",),
    "users": ("user_id",),
}


@dataclass(frozen=True)
class IngestionContext:
    """What all tables of one run share.

    Attributes:
        naive_times: What a time without a zone means.
        as_of: What is later lies in the future.
        end: Where the window ends.
        folder: Where the dataset is being made.
    """

    con: ibis.BaseBackend
    settings: IngestSettings
    naive_times: str
    as_of: datetime
    end: datetime
    folder: Path

    def is_later(self, moment: ir.TimestampValue) -> ir.BooleanValue:
        """Whether a moment is past the window, yet not in the future."""
        return (moment >= self.end) & (moment <= self.as_of)

    def is_earlier(self, moment: ir.TimestampValue) -> ir.BooleanValue:
        """Whether a moment is before the window."""
        start = self.settings.start
        return moment < start if start else ibis.literal(False)


@dataclass(frozen=True)
class Parsed:
    """A table read as its kinds.

    Attributes:
        rows: Every row of the source, typed, with ``RAW``.
        columns: What the contract and the settings say of its columns.
    """

    name: str
    rows: ir.Table
    columns: Sequence[Column]

    def has(self, column: str) -> bool:
        """Whether the source has a column."""
        return column in self.rows.columns


@dataclass(frozen=True)
class Cleaned:
    """A table that was cleaned and written.

    Attributes:
        table: What was written.
        rows: The same rows with the columns that were not written.
    """

    table: ir.Table
    rows: ir.Table
    counts: RowCounts
    violations: Sequence[Violation] = ()


def choose_columns(tables: RawTables, settings: IngestSettings) -> RawTables:
    """Narrow what a source offers beyond the contract to what the settings ask for.

    Raises:
        UsageError: The settings name a column that the source does not offer.
    """
    chosen = {}
    for name in ("context_columns", "item_columns", "user_columns"):
        offered, wanted = getattr(tables, name), getattr(settings, name)
        unknown = sorted(set(wanted or ()) - set(offered))
        if unknown:
            raise UsageError(
                f"{name}: source {settings.source!r} has no {', '.join(unknown)}; "
                f"it offers {', '.join(offered) or 'none'}"
            )
        chosen[name] = offered if wanted is None else wanted
    return replace(tables, **chosen)


def find_end(
    settings: IngestSettings, events: ir.Table, naive_times: str, as_of: datetime
) -> datetime:
    """Where the window ends: as the settings say, else at midnight after the last event."""
    if settings.end or settings.as_of or "event_time" not in events.columns:
        return settings.end or as_of
    (column,) = (column for column in EVENTS if column.name == "event_time")
    moment = parse(events, [column], naive_times).event_time
    if not moment.type().is_timestamp():
        return as_of
    last = moment.max(where=moment <= as_of).to_pyarrow().as_py()
    return last.astimezone(UTC).replace(**MIDNIGHT) + timedelta(days=1) if last else as_of


def clean_tables(run: IngestionContext, tables: RawTables) -> dict[str, Cleaned]:
    """Clean items, then events, each of which must be on one of them, then users.

    Raises:
        DataValidationError: A table has no row, lacks a needed column, or a column's kind is wrong.
    """
    on_events = (*tables.context_columns, *tables.derived_item_columns)
    events = _parse(run, "events", tables.events, EVENTS, on_events)
    items, users = (
        None if raw is None else _parse(run, name, raw, contract, further)
        for name, raw, contract, further in (
            ("items", tables.items, ITEMS, tables.item_columns),
            ("users", tables.users, USERS, tables.user_columns),
        )
    )
    _hold_structure(run, [table for table in (events, items, users) if table])

    cleaned = {}
    if items:
        cleaned["items"] = _clean_items(run, items)
    known_items = cleaned["items"].table.item_id if items else None
    cleaned["events"] = _clean_events(run, events, known_items, tables.context_columns)
    if not items:
        derived = _derive_items(cleaned["events"].rows, tables.derived_item_columns)
        cleaned["items"] = _write_derived(run, "items", derived)
    if users:
        cleaned["users"] = _clean_users(run, users)
    else:
        derived = cleaned["events"].table.select("user_id").distinct()
        cleaned["users"] = _write_derived(run, "users", derived)
    return cleaned


def _parse(
    run: IngestionContext,
    name: str,
    raw: ir.Table,
    contract: Sequence[Column],
    further: Sequence[str],
) -> Parsed:
    known = {column.name: column for column in (*ITEMS, *contract)}
    numbers = run.settings.number_columns
    beyond = [known.get(column) or _describe(raw, column, numbers) for column in further]
    columns = tuple(dict.fromkeys((*contract, *beyond)))
    return Parsed(name, parse(raw, columns, run.naive_times), columns)


def _describe(raw: ir.Table, name: str, numbers: Sequence[str]) -> Column:
    """What a column beyond the contract is, by its type and the settings."""
    dtype = raw[name].type()
    kind: ColumnKind = "string"
    if name in numbers or dtype.is_numeric():
        kind = "number"
    elif dtype.is_timestamp() or dtype.is_date():
        kind = "time"
    return Column(name=name, kind=kind, meaning="kept beyond the contract")


def _hold_structure(run: IngestionContext, tables: Sequence[Parsed]) -> None:
    faults = []
    for table in tables:
        faults += find_structure_faults(table.name, table.rows, table.columns)
        if not count_rows(table.rows):
            faults.append(f"{table.name}: no row at all")
    if faults:
        raise DataValidationError("the source breaks the contract:\n  " + "\n  ".join(faults))


def _clean_items(run: IngestionContext, items: Parsed) -> Cleaned:
    has_times = items.has("listed_at")
    length = 0
    if items.has("image_embedding"):
        length = items.rows.image_embedding.length().mode().to_pyarrow().as_py() or 0
    return _clean(
        run,
        items,
        make_items_schema(items.columns, run.as_of, run.settings.currency, length),
        outside=run.is_later(items.rows.listed_at) if has_times else None,
        newest_by="listed_at" if has_times else "",
        finish=lambda rows: _finish_items(run, rows),
    )


def _finish_items(run: IngestionContext, rows: ir.Table) -> ir.Table:
    """Fill in the currency; what is to be sold after the window is not known to be sold."""
    values = {}
    if run.settings.currency:
        stated = rows.currency if "currency" in rows.columns else ibis.null("string")
        values["currency"] = ibis.coalesce(stated, run.settings.currency)
    if "delisted_at" in rows.columns:
        is_known = (rows.delisted_at < run.end) & (rows.delisted_at <= run.as_of)
        values["delisted_at"] = ibis.ifelse(is_known, rows.delisted_at, None)
    return rows.mutate(**values) if values else rows


def _clean_events(
    run: IngestionContext, events: Parsed, known_items: ir.Column | None, context: Sequence[str]
) -> Cleaned:
    moment = events.rows.event_time
    kept = {*(column.name for column in EVENTS), *context}
    return _clean(
        run,
        events,
        make_events_schema(events.columns, run.as_of, known_items),
        outside=run.is_later(moment) | run.is_earlier(moment),
        finish=lambda rows: rows.select(*(name for name in rows.columns if name in kept)),
    )


def _clean_users(run: IngestionContext, users: Parsed) -> Cleaned:
    return _clean(run, users, make_users_schema(users.columns))


def _clean(
    run: IngestionContext,
    table: Parsed,
    schema: pa.DataFrameSchema,
    outside: ir.BooleanValue | None = None,
    newest_by: str = "",
    finish: Callable[[ir.Table], ir.Table] = lambda rows: rows,
) -> Cleaned:
    """Reject, drop duplicates, write, and count.

    Args:
        run: What all tables share.
        table: The parsed table.
        schema: What a good row is.
        outside: Rows that are left out and counted apart, being of another time.
        newest_by: Which of the rows with the same key is kept: the one latest in this.
        finish: What is done to the rows before they are written.
    """
    name, all_rows = table.name, count_rows(table.rows)
    rows = table.rows if outside is None else table.rows.filter(~outside.fill_null(False))
    rows_in = all_rows if outside is None else count_rows(rows)
    unreadable = find_unreadable(rows, table.columns, run.naive_times)
    judged = ValidatedTable(rows, unreadable | find_violations(rows, schema))
    # Kept once, since every later query would check all rows again.
    good = run.con.create_table(f"good_{name}", judged.find_good(), temp=True)
    path = run.folder / REJECTED_FOLDER / f"{name}.parquet"
    all_good = count_rows(good) == rows_in
    rejected = write(run.con, judged.find_rejected().limit(0 if all_good else None), path)
    violations = [] if all_good else describe_violations(name, judged, rejected)
    unique = drop_duplicates(run.con, good, KEYS[name], newest_by)
    finished = finish(unique.rows).order_by(SORTED_BY[name])
    written = write(run.con, finished, run.folder / f"{name}.parquet")
    counts = RowCounts(
        rows_in=rows_in,
        kept=count_rows(written),
        rejected=count_rows(rejected),
        duplicates=unique.duplicates,
        outside=all_rows - rows_in,
        reasons={violation.reason: violation.count for violation in violations},
    )
    hold_count(name, counts)
    return Cleaned(written, unique.rows, counts, violations)


def _derive_items(events: ir.Table, columns: Sequence[str]) -> ir.Table:
    """One row for each item of the events: what was known of it when it first appeared."""
    first = {}
    for name in columns:
        moment = ibis.struct(
            {"at": events.event_time, "user": events.user_id, "value": events[name]}
        )
        first[name] = events[name].argmin(moment, where=events[name].notnull())
    return events.group_by("item_id").agg(**first)


def _write_derived(run: IngestionContext, name: str, rows: ir.Table) -> Cleaned:
    table = write(run.con, rows.order_by(SORTED_BY[name]), run.folder / f"{name}.parquet")
    n = count_rows(table)
    counts = RowCounts(rows_in=n, kept=n, rejected=0, duplicates=0)
    return Cleaned(table, table, counts)
