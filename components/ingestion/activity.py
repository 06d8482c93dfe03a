"""Cap how many events of one user and day are kept."""

from dataclasses import dataclass
from pathlib import Path

import ibis
import ibis.expr.types as ir

from components.ingestion.cleaning import REASON, write
from refit.dataset import REJECTED_FOLDER

OVER_CAP_FILE = "events_over_cap.parquet"
_RANK = "_rank"
_DAY = "_day"


@dataclass(frozen=True)
class CappedEvents:
    """Events under the cap, and those over it.

    Attributes:
        rows: The events that are kept.
        left_out: The others, with a column of the reason; None where there is none.
        count: How many are left out.
    """

    rows: ir.Table
    left_out: ir.Table | None
    count: int


def cap_events(
    con: ibis.BaseBackend, events: ir.Table, most: int | None, folder: Path
) -> CappedEvents:
    """Keep the first ``most`` events of each user and UTC day; write the others to a file.

    Whether an event is kept depends on earlier events only, so that the cap tells nothing of what
    comes later. Only the days over the cap are sorted.

    Args:
        con: An ibis connection to DuckDB.
        events: Valid events without duplicates.
        most: See ``ingestion.max_user_events_per_day``; None keeps all.
        folder: The dataset folder.
    """
    if most is None:
        return CappedEvents(events, None, 0)
    dated = events.mutate(**{_DAY: events.event_time.date()})
    groups = dated.group_by(["user_id", _DAY]).agg(n=lambda t: t.count())
    busy = con.create_table("busy_user_days", groups.filter(groups.n > most), temp=True)
    extra = (busy.n - most).sum().to_pyarrow().as_py()
    if not extra:
        return CappedEvents(events, None, 0)
    key = ["user_id", _DAY]
    window = ibis.window(group_by=key, order_by=["event_time", "item_id", "event_type"])
    ranked = dated.semi_join(busy, key).mutate(**{_RANK: ibis.row_number().over(window)})
    ranked = con.create_table("ranked_user_days", ranked, temp=True)
    first = ranked.filter(ranked[_RANK] < most).drop(_RANK, _DAY)
    rows = ibis.union(dated.anti_join(busy, key).drop(_DAY), first)
    reason = f"user_id: more than {most} events of a user in a day"
    over = (
        ranked.filter(ranked[_RANK] >= most)
        .drop(_RANK, _DAY)
        .mutate(**{REASON: ibis.literal(reason)})
    )
    over = over.order_by("event_time", "user_id", "item_id", "event_type")
    left_out = write(con, over, folder / REJECTED_FOLDER / OVER_CAP_FILE)
    return CappedEvents(rows, left_out, int(extra))
