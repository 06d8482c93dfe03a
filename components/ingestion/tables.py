"""Clean events, items and users: the rules of each table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import or_
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandera.ibis as pa

from components.ingestion.activity import cap_events
from components.ingestion.cleaning import (
    ValidatedTable,
    Violation,
    check_row_counts,
    count_rows,
    describe_violations,
    drop_duplicates,
    find_causes,
    is_any,
    write,
)
from components.ingestion.quarantined import (
    Causes,
    find_event_causes,
    find_item_causes,
    find_lost_items,
    leave_out,
)
from components.ingestion.schemas import (
    build_events_schema,
    build_items_schema,
    build_users_schema,
    find_column_errors,
    find_violations,
)
from components.ingestion.selection import explain_column_errors
from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables
from refit.contract import EVENTS, ITEMS, USERS, VALID_FROM, Column, ColumnKind, EventType
from refit.dataset import (
    EARLIER_FILE,
    ITEM_VERSIONS_FILE,
    ITEMS_FILE,
    REJECTED_FOLDER,
    RowCounts,
)
from refit.errors import DataValidationError
from refit.tabular.advice import write_advice
from refit.tabular.file_format import FileFormat
from refit.tabular.parsing import find_unreadable, parse
from refit.tabular.versions import keep_latest

MIDNIGHT = {"hour": 0, "minute": 0, "second": 0, "microsecond": 0}
KEYS = {
    "events": ("user_id", "item_id", "event_type", "event_time"),
    "items": ("item_id", VALID_FROM),
    "users": ("user_id", VALID_FROM),
}
"""Rows of a table that agree in these columns are duplicates."""
SORTED_BY = {
    "events": ("event_time", "user_id", "item_id", "event_type"),
    "items": ("item_id", VALID_FROM),
    "users": ("user_id", VALID_FROM),
}


@dataclass(frozen=True)
class IngestionContext:
    """What the cleaning of every table in a run needs.

    Attributes:
        con: An ibis connection to DuckDB.
        settings: Settings of the step.
        form: How the source's files are written.
        as_of: Later times are in the future.
        end: End of the window, exclusive.
        folder: The dataset folder that is being written.
        unnamed_columns: For each table, the columns that are kept though no setting names them.
    """

    con: ibis.BaseBackend
    settings: IngestSettings
    form: FileFormat
    as_of: datetime
    end: datetime
    folder: Path
    unnamed_columns: Mapping[str, Sequence[str]]

    def is_after_window(self, time: ir.TimestampValue) -> ir.BooleanValue:
        """Whether a time is after the window, but not in the future."""
        return (time >= self.end) & (time <= self.as_of)

    def is_before_window(self, time: ir.TimestampValue) -> ir.BooleanValue:
        """Whether a time is before the window."""
        start = self.settings.start
        return time < start if start else ibis.literal(False)


@dataclass(frozen=True)
class ParsedTable:
    """A table with typed columns.

    Attributes:
        name: events, items or users.
        rows: Every row of the source, typed, with ``RAW``.
        columns: The contract's columns and those kept beyond it.
    """

    name: str
    rows: ir.Table
    columns: Sequence[Column]

    def has(self, column: str) -> bool:
        """Whether the source has a column."""
        return column in self.rows.columns


@dataclass(frozen=True)
class CleanedTable:
    """A table that was cleaned and written.

    Attributes:
        table: The written table.
        rows: The same rows, with the columns that were not written.
        counts: What happened to the rows of the source.
        violations: Why rows were rejected.
        rejected: The rejected rows as the source has them; None for a derived table.
        over_cap: The events over the cap, if there are any.
        left_out: The rows in quarantine, if there are any; typed, without vectors.
        versions: Every version of the items, if they come in versions; ``table`` has the latest.
    """

    table: ir.Table
    rows: ir.Table
    counts: RowCounts
    violations: Sequence[Violation] = ()
    rejected: ir.Table | None = None
    over_cap: ir.Table | None = None
    left_out: ir.Table | None = None
    versions: ir.Table | None = None


def find_end(
    settings: IngestSettings, events: ir.Table, form: FileFormat, as_of: datetime
) -> datetime:
    """Return the end of the window: that of the settings, else midnight after the last event."""
    if settings.end or settings.as_of or "event_time" not in events.columns:
        return settings.end or as_of
    (column,) = (column for column in EVENTS if column.name == "event_time")
    time = parse(events, [column], form).event_time
    if not time.type().is_timestamp():
        return as_of
    last = time.max(where=time <= as_of).to_pyarrow().as_py()
    return last.astimezone(UTC).replace(**MIDNIGHT) + timedelta(days=1) if last else as_of


def clean_tables(run: IngestionContext, tables: RawTables) -> dict[str, CleanedTable]:
    """Clean and write items, then events, which must refer to valid items, then users.

    Returns:
        The cleaned tables by name: events, items, users.

    Raises:
        DataValidationError: A table has no row, or a column is missing or of the wrong type.
    """
    on_events = (*tables.context_columns, *tables.derived_item_columns)
    events = _parse(run, "events", tables.events, EVENTS, on_events)
    items, users = (
        None if raw is None else _parse(run, name, raw, contract, extra)
        for name, raw, contract, extra in (
            ("items", tables.items, ITEMS, tables.item_columns),
            ("users", tables.users, USERS, tables.user_columns),
        )
    )
    _check_structure(run, [table for table in (events, items, users) if table])

    cleaned, known_items, lost_items = {}, None, None
    if items:
        cleaned["items"] = _clean_items(run, items)
        known_items = cleaned["items"].table.item_id
        lost_items = find_lost_items(run.con, cleaned["items"].left_out, cleaned["items"].table)
    causes = find_event_causes(run.settings.quarantined, lost_items)
    cleaned["events"] = _clean_events(run, events, known_items, tables.context_columns, causes)
    _write_earlier(run, events.rows, cleaned["events"].over_cap, causes)
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
    extra: Sequence[str],
) -> ParsedTable:
    known = {column.name: column for column in (*ITEMS, *contract)}
    numbers = run.settings.number_columns
    beyond = [known.get(column) or _describe(raw, column, numbers) for column in extra]
    columns = tuple(dict.fromkeys((*contract, *beyond)))
    rows = parse(raw, columns, run.form)
    unnamed = [c.name for c in beyond if c.kind == "number" and c.name in run.unnamed_columns[name]]
    infinite = {c: ibis.ifelse(rows[c].isinf(), None, rows[c]) for c in unnamed}
    return ParsedTable(name, rows.mutate(**infinite) if infinite else rows, columns)


def _describe(raw: ir.Table, name: str, numbers: Sequence[str]) -> Column:
    """Infer the kind of a column beyond the contract from its type and the settings."""
    dtype = raw[name].type()
    kind: ColumnKind = "string"
    if name in numbers or dtype.is_numeric():
        kind = "number"
    elif dtype.is_timestamp() or dtype.is_date():
        kind = "time"
    return Column(name=name, kind=kind, meaning="kept beyond the contract")


def _check_structure(run: IngestionContext, tables: Sequence[ParsedTable]) -> None:
    errors, advice = [], []
    for table in tables:
        found = find_column_errors(table.name, table.rows, table.columns)
        more, lines = explain_column_errors(table.name, table.rows, table.columns, run.form)
        errors += [*found, *more]
        advice += lines
        if not count_rows(table.rows):
            errors.append(f"{table.name}: there are no rows")
    if errors:
        listed = "\n  ".join(errors)
        raise DataValidationError(
            f"the source breaks the contract:\n  {listed}{write_advice(advice)}"
        )


def _clean_items(run: IngestionContext, items: ParsedTable) -> CleanedTable:
    has_times, has_versions = items.has("listed_at"), items.has(VALID_FROM)
    length = 0
    if items.has("image_embedding"):
        length = items.rows.image_embedding.length().mode().to_pyarrow().as_py() or 0
    times = [items.rows[name] for name in ("listed_at", VALID_FROM) if items.has(name)]
    after = [run.is_after_window(time).fill_null(False) for time in times]
    cleaned = _clean(
        run,
        items,
        build_items_schema(items.columns, run.as_of, run.settings.currency, length),
        outside=reduce(or_, after) if after else None,
        newest_by="listed_at" if has_times and not has_versions else "",
        finish=lambda rows: _finish_items(run, rows),
        file=ITEM_VERSIONS_FILE if has_versions else "",
        causes=find_item_causes(run.settings.quarantined, items.rows.columns),
    )
    if not has_versions:
        return cleaned
    latest = keep_latest(cleaned.table, "item_id").order_by("item_id")
    table = write(run.con, latest, run.folder / ITEMS_FILE)
    return replace(cleaned, table=table, versions=cleaned.table)


def _finish_items(run: IngestionContext, rows: ir.Table) -> ir.Table:
    """Fill in the currency; a delisting after the window is not known yet, and becomes null."""
    values = {}
    if run.settings.currency:
        stated = rows.currency if "currency" in rows.columns else ibis.null("string")
        values["currency"] = ibis.coalesce(stated, run.settings.currency)
    if "delisted_at" in rows.columns:
        is_known = (rows.delisted_at < run.end) & (rows.delisted_at <= run.as_of)
        values["delisted_at"] = ibis.ifelse(is_known, rows.delisted_at, None)
    return rows.mutate(**values) if values else rows


def _clean_events(
    run: IngestionContext,
    events: ParsedTable,
    known_items: ir.Column | None,
    context: Sequence[str],
    causes: Causes,
) -> CleanedTable:
    time = events.rows.event_time
    kept = {*(column.name for column in EVENTS), *context}
    return _clean(
        run,
        events,
        build_events_schema(events.columns, run.as_of, known_items),
        outside=run.is_after_window(time) | run.is_before_window(time),
        cap=run.settings.max_user_events_per_day,
        causes=causes,
        finish=lambda rows: rows.select(*(name for name in rows.columns if name in kept)),
    )


def _write_earlier(
    run: IngestionContext, events: ir.Table, over_cap: ir.Table | None, causes: Causes
) -> None:
    """Write the purchases and hides from before the window, over the cap and in quarantine."""
    types = [kind.value for kind in (EventType.PURCHASE, EventType.HIDE)]
    is_inside = ~run.is_after_window(events.event_time) & (events.event_time <= run.as_of)
    earlier = events.filter(
        run.is_before_window(events.event_time) | (is_any(causes(events).values()) & is_inside),
        events.event_type.isin(types),
        events.user_id.notnull(),
        events.item_id.notnull(),
    )
    columns = ("user_id", "item_id", "event_type", "event_time")
    earlier = earlier.select(*columns)
    if over_cap is not None:
        also = over_cap.filter(over_cap.event_type.isin(types)).select(*columns)
        earlier = earlier.union(also.cast(earlier.schema()))
    unique = earlier.distinct().order_by(*columns)
    write(run.con, unique, run.folder / EARLIER_FILE)


def _clean_users(run: IngestionContext, users: ParsedTable) -> CleanedTable:
    return _clean(
        run,
        users,
        build_users_schema(users.columns, run.as_of),
        outside=run.is_after_window(users.rows[VALID_FROM]) if users.has(VALID_FROM) else None,
    )


def _clean(
    run: IngestionContext,
    table: ParsedTable,
    schema: pa.DataFrameSchema,
    outside: ir.BooleanValue | None = None,
    newest_by: str = "",
    cap: int | None = None,
    finish: Callable[[ir.Table], ir.Table] = lambda rows: rows,
    file: str = "",
    causes: Causes = lambda rows: {},
) -> CleanedTable:
    """Reject invalid rows, drop duplicates, write the rest, and count.

    Args:
        run: What the cleaning of every table needs.
        table: The parsed table.
        schema: The schema of a valid row.
        outside: Rows outside the window; they are left out and counted separately.
        newest_by: A time column: of the rows with the same key, the latest is kept.
        cap: The largest number of rows of one user and day that are kept; None keeps all.
        finish: Applied to the rows before they are written.
        file: The file that they are written to; empty for that of the table.
        causes: Which rows are in quarantine; they are left out before they are checked.
    """
    name, all_rows = table.name, count_rows(table.rows)
    rows = table.rows if outside is None else table.rows.filter(~outside.fill_null(False))
    rows_in = all_rows if outside is None else count_rows(rows)
    apart = leave_out(run.con, name, rows, causes, run.folder)
    rows = apart.rows
    unreadable = find_unreadable(rows, table.columns, run.form)
    checks = find_causes(rows, unreadable, find_violations(rows, schema))
    unnamed = set(run.unnamed_columns[name])  # what nobody names rejects no row
    checks = {why: failed for why, failed in checks.items() if why.split(":")[0] not in unnamed}
    validated = ValidatedTable(rows, checks)
    # Materialised, since every later query would check all rows again.
    valid = run.con.create_table(f"valid_{name}", validated.select_valid(), temp=True)
    path = run.folder / REJECTED_FOLDER / f"{name}.parquet"
    all_valid = count_rows(valid) == rows_in - apart.count
    rejected = write(run.con, validated.select_rejected().limit(0 if all_valid else None), path)
    violations = [] if all_valid else describe_violations(name, validated, rejected)
    key, order = (
        [column for column in columns[name] if column in valid.columns]
        for columns in (KEYS, SORTED_BY)
    )
    unique = drop_duplicates(run.con, valid, key, newest_by)
    capped = cap_events(run.con, unique.rows, cap, run.folder)
    finished = finish(capped.rows).order_by(order)
    written = write(run.con, finished, run.folder / (file or f"{name}.parquet"))
    counts = RowCounts(
        rows_in=rows_in,
        kept=count_rows(written),
        rejected=count_rows(rejected),
        duplicates=unique.duplicates,
        capped=capped.count,
        quarantined=apart.count,
        quarantine_reasons=dict(apart.reasons),
        outside=all_rows - rows_in,
        reasons={violation.reason: violation.count for violation in violations},
    )
    check_row_counts(name, counts)
    return CleanedTable(
        written, capped.rows, counts, violations, rejected, capped.left_out, apart.left_out
    )


def _derive_items(events: ir.Table, columns: Sequence[str]) -> ir.Table:
    """Derive one row for each item: the first value of each column that is not null."""
    first = {}
    for name in columns:
        order = ibis.struct(
            {"time": events.event_time, "user": events.user_id, "value": events[name]}
        )
        first[name] = events[name].argmin(order, where=events[name].notnull())
    return events.group_by("item_id").agg(**first)


def _write_derived(run: IngestionContext, name: str, rows: ir.Table) -> CleanedTable:
    order = [column for column in SORTED_BY[name] if column in rows.columns]
    table = write(run.con, rows.order_by(order), run.folder / f"{name}.parquet")
    n = count_rows(table)
    counts = RowCounts(rows_in=n, kept=n, rejected=0, duplicates=0)
    return CleanedTable(table, table, counts)
