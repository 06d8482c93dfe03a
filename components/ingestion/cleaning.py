"""Split the rows of a table into kept, rejected and duplicates, and account for every row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir

from components.ingestion.schemas import MISSING
from refit.dataset import RowCounts
from refit.settings import Settings
from refit.tabular.advice import UNKNOWN_TYPE, advise
from refit.tabular.csv_copies import CONTENT, FILE, LINE, PROBLEM
from refit.tabular.line_problems import PROBLEMS
from refit.tabular.parsing import RAW

REASON = "reason"
LINE_REASON = "line"
"""What the reasons to reject a line that is no row begin with."""
MOST_TYPES = 20
"""So many unknown event types are named."""
_REASON_SEPARATOR = "; "
_RANK = "_rank"


class Violation(Settings):
    """One check that rows of a table failed; a row may fail several."""

    table: str
    reason: str
    count: int
    examples: tuple[str, ...]
    advice: str = ""
    """The lines of a config that may cure it."""

    def __str__(self) -> str:
        such_as = ", which are" if self.reason.endswith(UNKNOWN_TYPE) else ", such as"
        examples = f"{such_as} {', '.join(self.examples)}" if self.examples else ""
        return f"{self.table}: {self.reason}: {self.count} rows{examples}"


@dataclass(frozen=True)
class ValidatedTable:
    """A parsed table and the checks that its rows failed.

    Attributes:
        rows: The rows inside the window, typed, with ``RAW``.
        violations: For each reason to reject a row, a boolean column that is true for such rows.
    """

    rows: ir.Table
    violations: Mapping[str, ir.BooleanValue]

    @property
    def is_invalid(self) -> ir.BooleanValue:
        """Whether a row failed any check."""
        return is_any(self.violations.values())

    def select_valid(self) -> ir.Table:
        """Select the rows that passed every check, without ``RAW``."""
        return self.rows.filter(~self.is_invalid).drop(RAW)

    def select_rejected(self) -> ir.Table:
        """Select the other rows as the source has them, with a column of reasons."""
        labels = [ibis.ifelse(failed, label, None) for label, failed in self.violations.items()]
        reasons = ibis.array(labels).filter(lambda label: label.notnull()).join(_REASON_SEPARATOR)
        rows = self.rows.mutate(**{REASON: reasons}).filter(self.is_invalid)
        raw = rows[RAW]
        columns = {f"{c}_" if c == REASON else c: raw[c] for c in raw.type().names}
        return rows.select(**columns, **{REASON: rows[REASON]})


@dataclass(frozen=True)
class Deduplicated:
    """A table with one row for each key, and how many rows were dropped."""

    rows: ir.Table
    duplicates: int


def is_any(checks: Iterable[ir.BooleanValue]) -> ir.BooleanValue:
    """Whether any of some checks is true; a null is not."""
    parts = [check.fill_null(False) for check in checks] or [ibis.literal(False)]
    while len(parts) > 1:  # pairs of pairs: a chain of hundreds would be too deep to compile
        parts = [reduce(or_, parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0]


def find_causes(
    rows: ir.Table,
    unreadable: Mapping[str, ir.BooleanValue],
    violations: Mapping[str, ir.BooleanValue],
) -> dict[str, ir.BooleanValue]:
    """Every check, without the failures that only follow from another one.

    A value that cannot be read is not missing, and a line that is no row has no values at all.

    Args:
        rows: A parsed table.
        unreadable: Values that cannot be read, see ``find_unreadable``.
        violations: Rows that break the contract, see ``find_violations``.
    """
    causes = {**unreadable, **violations}
    for reason in violations:
        column, _, problem = reason.partition(": ")
        same = [failed for name, failed in unreadable.items() if name.startswith(f"{column}: ")]
        if problem == MISSING and same:
            causes[reason] = violations[reason] & ~reduce(or_, (f.fill_null(False) for f in same))
    raw = rows[RAW]
    if PROBLEM not in raw.type().names:
        return causes
    problem = raw[PROBLEM]
    lines = {f"{LINE_REASON}: {each}": problem == each for each in PROBLEMS}
    return lines | {reason: failed & problem.isnull() for reason, failed in causes.items()}


def drop_duplicates(
    con: ibis.BaseBackend, table: ir.Table, key: Sequence[str], newest_by: str = ""
) -> Deduplicated:
    """Keep one row for each key: the newest, then the first in the order of all columns.

    Only rows whose key is not unique are sorted; there are few of them.

    Args:
        con: An ibis connection to DuckDB.
        table: The rows.
        key: Columns in which duplicates agree.
        newest_by: A time column; the row with the latest time is kept. Empty for none.
    """
    groups = table.group_by(key).having(lambda t: t.count() > 1).agg(n=lambda t: t.count())
    repeated = con.create_table(f"repeated_{table.get_name()}", groups, temp=True)
    extra = (repeated.n.sum() - repeated.count()).to_pyarrow().as_py()
    if not extra:
        return Deduplicated(table, 0)
    columns = [name for name in table.columns if name != newest_by]
    order = [ibis.desc(newest_by), *columns] if newest_by else columns
    window = ibis.window(group_by=key, order_by=order)
    ranked = table.semi_join(repeated, key).mutate(**{_RANK: ibis.row_number().over(window)})
    first = ranked.filter(ranked[_RANK] == 0).drop(_RANK)
    return Deduplicated(ibis.union(table.anti_join(repeated, key), first), int(extra))


def describe_violations(
    name: str, validated: ValidatedTable, rejected: ir.Table
) -> list[Violation]:
    """Count each reason among the rejected rows, with up to three example values."""
    reasons = rejected[REASON].split(_REASON_SEPARATOR).unnest().name(REASON)
    counts = reasons.as_table().group_by(REASON).agg(n=lambda t: t.count()).to_pyarrow()
    by_reason = {row[REASON]: row["n"] for row in counts.to_pylist()}
    return [
        _describe_violation(name, reason, by_reason[reason], rejected)
        for reason in validated.violations
        if reason in by_reason
    ]


def count_rows(table: ir.Table) -> int:
    """Count the rows of a table."""
    return int(table.count().to_pyarrow().as_py())


def check_row_counts(name: str, counts: RowCounts) -> None:
    """Check that every row of a table is accounted for.

    Raises:
        AssertionError: rows_in is not the sum of the others, which is a bug in Refit.
    """
    accounted = counts.kept + counts.rejected + counts.duplicates + counts.capped
    accounted += counts.quarantined
    if counts.rows_in != accounted:
        raise AssertionError(
            f"{name}: {counts.rows_in} rows were read, but {counts.kept} kept + {counts.rejected} "
            f"rejected + {counts.duplicates} duplicates + {counts.capped} over the cap + "
            f"{counts.quarantined} in quarantine are {accounted}"
        )


def write(con: ibis.BaseBackend, table: ir.Table, path: Path) -> ir.Table:
    """Write a table as a Parquet file, and open that file as a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    con.to_parquet(table, path)
    return con.read_parquet(path)


def _describe_violation(name: str, reason: str, count: int, rejected: ir.Table) -> Violation:
    rows = rejected.filter(rejected[REASON].split(_REASON_SEPARATOR).contains(reason))
    if reason.startswith(f"{LINE_REASON}:"):
        lines = rows.select(FILE, LINE, CONTENT).limit(3).to_pyarrow().to_pylist()
        examples = [f"line {r[LINE]} of {r[FILE]} ({r[CONTENT][:60]!r})" for r in lines]
        advice = advise(reason, [r[CONTENT] for r in lines])
        return Violation(
            table=name, reason=reason, count=count, examples=tuple(examples), advice=advice
        )
    column, _, problem = reason.partition(": ")
    if column not in rows.columns:
        return Violation(table=name, reason=reason, count=count, examples=())
    if problem == UNKNOWN_TYPE:
        kinds = rows.group_by(column).agg(n=lambda t: t.count()).order_by(ibis.desc("n"), column)
        values: list[Any] = kinds.limit(MOST_TYPES)[column].to_pyarrow().to_pylist()
    else:
        values = rows.limit(100)[column].to_pyarrow().to_pylist()
    values = [str(v).lower() if isinstance(v, bool) else v for v in values if v is not None]
    unique = list(dict.fromkeys(values)) if _are_hashable(values) else values
    shown = dict.fromkeys(
        (repr(value) if isinstance(value, str) else str(value))[:60] for value in unique
    )
    return Violation(
        table=name,
        reason=reason,
        count=count,
        examples=tuple(shown)[: MOST_TYPES if problem == UNKNOWN_TYPE else 3],
        advice=advise(reason, [str(value) for value in unique]),
    )


def _are_hashable(values: Sequence[Any]) -> bool:
    return not any(isinstance(value, list | dict) for value in values)
