"""Sort a table's rows into kept, rejected and duplicate, and write them so that none gets lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir

from components.ingestion.parsing import RAW
from refit.dataset import RowCounts
from refit.settings import Settings

REASON = "reason"
_BETWEEN_REASONS = "; "
_RANK = "_rank"


class Violation(Settings):
    """One way in which rows of a table broke the contract; a row may break several."""

    table: str
    reason: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        shown = f", such as {', '.join(self.examples)}" if self.examples else ""
        return f"{self.table}: {self.reason}: {self.count} rows{shown}"


@dataclass(frozen=True)
class ValidatedTable:
    """A parsed table and what is wrong with its rows.

    Attributes:
        rows: The rows inside the window, typed, with ``RAW``.
        violations: For each reason to reject: the rows it holds for.
    """

    rows: ir.Table
    violations: Mapping[str, ir.BooleanValue]

    @property
    def is_bad(self) -> ir.BooleanValue:
        """Whether a row breaks the contract in any way."""
        return reduce(or_, (bad.fill_null(False) for bad in self.violations.values()))

    def find_good(self) -> ir.Table:
        """The rows that break nothing, without ``RAW``."""
        return self.rows.filter(~self.is_bad).drop(RAW)

    def find_rejected(self) -> ir.Table:
        """The other rows as they came, each with its reasons."""
        labels = [ibis.ifelse(bad, label, None) for label, bad in self.violations.items()]
        reasons = ibis.array(labels).filter(lambda label: label.notnull()).join(_BETWEEN_REASONS)
        rows = self.rows.mutate(**{REASON: reasons}).filter(self.is_bad)
        raw = rows[RAW]
        columns = {f"{c}_" if c == REASON else c: raw[c] for c in raw.type().names}
        return rows.select(**columns, **{REASON: rows[REASON]})


@dataclass(frozen=True)
class Deduplicated:
    """A table with one row for each key, and how many rows that cost."""

    rows: ir.Table
    duplicates: int


def drop_duplicates(
    con: ibis.BaseBackend, table: ir.Table, key: Sequence[str], newest_by: str = ""
) -> Deduplicated:
    """Keep the first row for each key: the newest, then in the order of all columns.

    Only the rows whose key is not unique are sorted, which are few.
    """
    groups = table.group_by(key).having(lambda t: t.count() > 1).agg(n=lambda t: t.count())
    repeated = con.create_table(f"repeated_{table.get_name()}", groups, temp=True)
    extra = (repeated.n.sum() - repeated.count()).to_pyarrow().as_py()
    if not extra:
        return Deduplicated(table, 0)
    columns = [name for name in table.columns if name != newest_by]
    order = [ibis.desc(newest_by), *columns] if newest_by else columns
    window = ibis.window(group_by=key, order_by=order)
    again = table.semi_join(repeated, key).mutate(**{_RANK: ibis.row_number().over(window)})
    first = again.filter(again[_RANK] == 0).drop(_RANK)
    return Deduplicated(ibis.union(table.anti_join(repeated, key), first), int(extra))


def describe_violations(name: str, judged: ValidatedTable, rejected: ir.Table) -> list[Violation]:
    """Count each reason among the rejected rows, with up to three values that show it."""
    reasons = rejected[REASON].split(_BETWEEN_REASONS).unnest().name(REASON)
    counts = reasons.as_table().group_by(REASON).agg(n=lambda t: t.count()).to_pyarrow()
    by_reason = {row[REASON]: row["n"] for row in counts.to_pylist()}
    return [
        Violation(
            table=name,
            reason=reason,
            count=by_reason[reason],
            examples=_find_examples(rejected, reason),
        )
        for reason in judged.violations
        if reason in by_reason
    ]


def count_rows(table: ir.Table) -> int:
    """How many rows a table has."""
    return int(table.count().to_pyarrow().as_py())


def hold_count(name: str, counts: RowCounts) -> None:
    """Make sure that no row of a table got lost.

    Raises:
        AssertionError: rows_in is not kept + rejected + duplicates, which is a fault of ours.
    """
    accounted = counts.kept + counts.rejected + counts.duplicates
    if counts.rows_in != accounted:
        raise AssertionError(
            f"{name}: {counts.rows_in} rows came in, but {counts.kept} kept + {counts.rejected} "
            f"rejected + {counts.duplicates} duplicates are {accounted}"
        )


def write(con: ibis.BaseBackend, table: ir.Table, path: Path) -> ir.Table:
    """Write a table as Parquet and open what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    con.to_parquet(table, path)
    return con.read_parquet(path)


def _find_examples(rejected: ir.Table, reason: str) -> tuple[str, ...]:
    column = reason.partition(":")[0]
    if column not in rejected.columns:
        return ()
    shown = rejected.filter(rejected[REASON].split(_BETWEEN_REASONS).contains(reason))
    values: list[Any] = shown.limit(100)[column].to_pyarrow().to_pylist()
    shown_as = (repr(value) if isinstance(value, str) else str(value) for value in values)
    return tuple(dict.fromkeys(text[:60] for text in shown_as))[:3]
