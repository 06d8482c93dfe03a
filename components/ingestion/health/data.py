"""What the checks of the health page read, and how their lines are made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ibis.expr.types as ir

from components.ingestion.health.settings import HealthLimits, HealthSettings
from refit.dataset import RowCounts, Split
from refit.health import HealthCheck, count_share
from refit.quarantine import QuarantinedDays


@dataclass(frozen=True)
class HealthData:
    """The tables of a dataset that is being written.

    Attributes:
        events, items, users: The clean tables; of items in versions, the latest.
        versions: Every version of the items; None where each item has one row.
        rejected: Of each table that is given, the rejected rows as the source has them, with a
            column of reasons.
        counts: What happened to the rows of each table.
        split: The split by time.
        limits: The thresholds.
        has_items, has_users: Whether the source has the table; else it is derived from the events.
        most_per_day: See ``ingestion.max_user_events_per_day``.
        max_rejected: For each table, the largest share of rejected rows.
        quarantined: The periods that are left out.
    """

    events: ir.Table
    items: ir.Table
    users: ir.Table
    versions: ir.Table | None
    rejected: Mapping[str, ir.Table]
    counts: Mapping[str, RowCounts]
    split: Split
    limits: HealthSettings
    has_items: bool
    has_users: bool
    most_per_day: int | None
    max_rejected: Mapping[str, float]
    quarantined: tuple[QuarantinedDays, ...] = ()

    def tables(self) -> dict[str, ir.Table]:
        """The clean tables by name."""
        return {"events": self.events, "items": self.items, "users": self.users}

    def kept_rows(self, topic: str) -> ir.Table:
        """The rows of the source that were kept: of items in versions, every version."""
        is_versions = topic == "items" and self.versions is not None
        return self.versions if is_versions else self.tables()[topic]

    def size(self, topic: str) -> int:
        """The number of rows of a clean table."""
        if topic == "items" and self.versions is not None:
            return int(self.items.count().to_pyarrow().as_py())
        return self.counts[topic].kept


def make_line(
    topic: str,
    name: str,
    shown: str,
    measured: float | None,
    limits: HealthLimits,
    advice: str = "",
) -> HealthCheck:
    """One line of the health page, with the thresholds of its setting."""
    return HealthCheck(
        topic=topic,
        name=name,
        shown=shown,
        measured=measured,
        look=limits.look,
        stop=limits.stop,
        advice=advice,
        setting=limits.setting,
    )


def make_share_line(
    topic: str, name: str, n: int, total: int, limits: HealthLimits, advice: str = ""
) -> HealthCheck:
    """One line that shows a count and compares its share of a total; 0 where there is nothing."""
    return make_line(topic, name, count_share(n, total), n / max(total, 1), limits, advice)


def inform(topic: str, name: str, shown: str, advice: str = "") -> HealthCheck:
    """One line without thresholds."""
    return HealthCheck(topic=topic, name=name, shown=shown, advice=advice)


def measure(table: ir.Table, **values: ir.Value) -> dict[str, Any]:
    """Compute aggregates of a table in one pass; a count of no rows is 0."""
    row: dict[str, Any] = table.agg(**values).to_pyarrow().to_pylist()[0]
    return row


def is_given(column: ir.Value) -> ir.BooleanValue:
    """Whether a row has a value: not null, not blank, no empty vector and none of zeros."""
    kind = column.type()
    if kind.is_string():
        return (column.strip() != "").fill_null(False)
    if kind.is_array():
        return column.filter(lambda value: value != 0).length().fill_null(0) > 0
    return column.notnull()
