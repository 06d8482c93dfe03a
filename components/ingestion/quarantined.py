"""Leave out the rows of periods in quarantine, and keep them apart with their reason."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import ibis
import ibis.expr.types as ir

from components.ingestion.cleaning import ValidatedTable, count_rows, is_any, write
from refit.contract import VALID_FROM
from refit.dataset import REJECTED_FOLDER
from refit.errors import DataValidationError
from refit.quarantine import EVENTS, ITEMS, QuarantinedDays, describe_release
from refit.tabular.parsing import RAW

QUARANTINED = "quarantined"
"""What the reasons of rows in quarantine begin with."""
ITEM_LEFT_OUT = f"{QUARANTINED}: the item is in quarantine"

Causes = Callable[[ir.Table], dict[str, ir.BooleanValue]]
"""For each reason, which rows of a parsed table are in quarantine."""


@dataclass(frozen=True)
class QuarantinedRows:
    """A parsed table without its rows in quarantine, and what is known of these.

    Attributes:
        rows: The other rows.
        left_out: Typed rows in quarantine, without vectors; None where there is none.
        count: How many there are.
        reasons: How many for each reason; a row may have several.
    """

    rows: ir.Table
    left_out: ir.Table | None = None
    count: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)


def find_item_causes(days: Sequence[QuarantinedDays], items: Sequence[str]) -> Causes:
    """Which items are in quarantine: those listed within it.

    Of items in versions also the versions that began within it, unless they say that the listing
    ended, which must not be forgotten.

    Args:
        days: The periods of all tables.
        items: The columns of the items.

    Raises:
        DataValidationError: The items have no time.
    """
    mine = [each for each in days if each.table == ITEMS]
    if mine and "listed_at" not in items and VALID_FROM not in items:
        ids = tuple(each.quarantine_id for each in mine)
        raise DataValidationError(
            "the items have no listed_at, so that the days of a quarantine cannot be left out: add "
            f"the column, or release the quarantine with {describe_release(ids)}"
        )

    def find(rows: ir.Table) -> dict[str, ir.BooleanValue]:
        return _by_reason((each, _is_item_within(rows, each)) for each in mine)

    return find


def find_event_causes(days: Sequence[QuarantinedDays], left_out: ir.Table | None) -> Causes:
    """Which events are in quarantine: those of its time, and those on items that are left out.

    Args:
        days: The periods of all tables.
        left_out: The items that have no row left, by ``item_id``; None for none.
    """
    mine = [each for each in days if each.table == EVENTS]

    def find(rows: ir.Table) -> dict[str, ir.BooleanValue]:
        causes = _by_reason((each, _is_within(rows.event_time, each)) for each in mine)
        if left_out is not None:
            causes[ITEM_LEFT_OUT] = rows.item_id.isin(left_out.item_id)
        return causes

    return find


def leave_out(
    con: ibis.BaseBackend, name: str, rows: ir.Table, find: Causes, folder: Path
) -> QuarantinedRows:
    """Take the rows in quarantine out of a table, and write them with their reasons.

    Args:
        con: An ibis connection to DuckDB.
        name: The table's name.
        rows: Its parsed rows inside the window.
        find: Which rows are in quarantine, and why.
        folder: The dataset folder.
    """
    causes = find(rows)
    if not causes:
        return QuarantinedRows(rows)
    apart = ValidatedTable(rows, causes)
    written = write(con, apart.select_rejected(), folder / rejected_file(name))
    count = count_rows(written)
    if not count:
        (folder / rejected_file(name)).unlink()
        return QuarantinedRows(rows)
    invalid = apart.is_invalid
    simple = [c for c, kind in rows.schema().items() if c != RAW and not kind.is_nested()]
    flags = {f"_cause_{i}": cause for i, cause in enumerate(causes.values())}
    marked = rows.mutate(**flags).filter(invalid)[[*simple, *flags]]
    left_out = con.create_table(f"quarantined_{name}", marked, temp=True)
    sums = left_out.agg(**{flag: left_out[flag].sum() for flag in flags})
    (counts,) = sums.to_pyarrow().to_pylist()
    reasons = {why: int(counts[flag]) for why, flag in zip(causes, flags, strict=True)}
    return QuarantinedRows(rows.filter(~invalid), left_out, count, reasons)


def find_lost_items(
    con: ibis.BaseBackend, left_out: ir.Table | None, kept: ir.Table
) -> ir.Table | None:
    """The items of which no row is left, by ``item_id``; None where there is none."""
    if left_out is None:
        return None
    lost = left_out.select("item_id").distinct().anti_join(kept, "item_id")
    return con.create_table("items_in_quarantine", lost, temp=True)


def measure_loss(
    days: Sequence[QuarantinedDays],
    events: ir.Table,
    left_out: ir.Table,
    begin: datetime,
    until: datetime,
) -> tuple[int, float]:
    """How many events of a time are in quarantine, and which share of it that is.

    A broken feed may hold any number of rows, so that its events are weighed by their time: the
    share that is left is that of the time out of quarantine, times the share of its events that are
    on items out of quarantine.

    Args:
        days: The periods of all tables.
        events: The events that are kept.
        left_out: Those in quarantine.
        begin: Begin of the time.
        until: Its end, exclusive.
    """
    mine = [each for each in days if each.table == EVENTS]
    kept, lost = (
        t.filter((t.event_time >= begin) & (t.event_time < until)) for t in (events, left_out)
    )
    in_time = is_any(_is_within(lost.event_time, each) for each in mine)
    n_kept, last_kept = _count_until_last(kept)
    n_lost, last_lost = _count_until_last(lost)
    n_on_items = count_rows(lost.filter(~in_time))
    end = max(last_kept or begin, last_lost or begin)
    length = (end - begin) / timedelta(days=1)
    clipped = [d.model_copy(update={"start": max(d.start, begin)}) for d in mine if d.start < end]
    clipped = [d for d in clipped if d.end is None or d.end > begin]
    time_left = 1 - min(count_quarantined_days(clipped, end) / length, 1) if length else 1.0
    items_left = n_kept / max(n_kept + n_on_items, 1)
    return n_lost, 1 - time_left * items_left if n_lost else 0.0


def _count_until_last(events: ir.Table) -> tuple[int, datetime | None]:
    row = events.agg(n=events.count(), last=events.event_time.max()).to_pyarrow().to_pylist()[0]
    return int(row["n"]), row["last"]


def rejected_file(name: str) -> str:
    """The file of a table's rows in quarantine, within the dataset folder."""
    return f"{REJECTED_FOLDER}/{name}_quarantined.parquet"


def count_quarantined_days(days: Iterable[QuarantinedDays], end: datetime) -> float:
    """The length of all periods together, in days, until the end of the window."""
    total, until = timedelta(), None
    for each in sorted(days, key=lambda each: each.start):
        begin = each.start if until is None else max(each.start, until)
        until = max(begin, min(each.end or end, end))
        total += until - begin
    return total / timedelta(days=1)


def _by_reason(
    found: Iterable[tuple[QuarantinedDays, ir.BooleanValue]],
) -> dict[str, ir.BooleanValue]:
    causes: dict[str, list[ir.BooleanValue]] = {}
    for days, cause in found:
        causes.setdefault(f"{QUARANTINED}: {days.reason}", []).append(cause)
    return {reason: is_any(several) for reason, several in causes.items()}


def _is_within(time: ir.TimestampValue, days: QuarantinedDays) -> ir.BooleanValue:
    within = time >= days.start
    if days.end is not None:
        within = within & (time < days.end)
    return within.fill_null(False)


def _is_item_within(rows: ir.Table, days: QuarantinedDays) -> ir.BooleanValue:
    within = ibis.literal(False)
    if "listed_at" in rows.columns:
        within = _is_within(rows.listed_at, days)
        if days.is_of_all:
            within = within | rows.listed_at.isnull()
    if VALID_FROM in rows.columns:
        is_version = _is_within(rows[VALID_FROM], days)
        if "delisted_at" in rows.columns:
            is_version = is_version & rows.delisted_at.isnull()
        within = within | is_version
    return within
