"""Checks of what is in quarantine: how much is left out, why, and how it is released."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from components.ingestion.health.data import HealthData
from components.ingestion.quarantined import QUARANTINED, count_quarantined_days, rejected_file
from refit.health import HealthCheck, count_share
from refit.quarantine import ITEMS, TABLES, QuarantinedDays, describe_release


def check_quarantines(data: HealthData) -> Iterator[HealthCheck]:
    """Say for each table which days are in quarantine, and what that costs."""
    for table in TABLES:
        mine = [each for each in data.quarantined if each.table == table]
        counts = data.counts[table]
        if not mine and not counts.quarantined:
            continue
        reasons = "; ".join(
            f"{why.removeprefix(f'{QUARANTINED}: ')} {n:,}"
            for why, n in counts.quarantine_reasons.items()
        )
        shown = f"{count_share(counts.quarantined, counts.rows_in)} rows left out"
        parts = (_describe_periods(mine, data.split.end), shown, reasons)
        back = "; refit run index_refresh indexes those for sale" if table == ITEMS else ""
        ids = tuple(each.quarantine_id for each in mine or data.quarantined)
        yield HealthCheck(
            topic=table,
            name="in quarantine",
            shown=": ".join(part for part in parts if part),
            measured=counts.quarantined,
            look=1,
            advice=f"no model learns from them, and they are in {rejected_file(table)}{back}; "
            f"where they are right, {describe_release(ids)}",
        )


def _describe_periods(periods: Sequence[QuarantinedDays], end: datetime) -> str:
    if any(each.is_of_all for each in periods):
        return "the whole table"
    days = count_quarantined_days(periods, end)
    if not days:
        return ""
    since = min(each.start for each in periods)
    return f"{days:g} {'day' if days == 1 else 'days'} since {since:%Y-%m-%d}"
