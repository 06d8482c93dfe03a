"""Volumes: how many rows came on the days of an incident, beside the days before."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from monitoring import tables
from monitoring.closings import find_closing
from monitoring.explain.context import RowVolume
from monitoring.settings import MeasureSettings
from monitoring.windows import MonitoredData
from refit.contract import EventType
from refit.drift import Window

DAYS_OF_WEEK = 7
_FEWEST_DAYS = 4
_LEAST_SPREAD = 0.05
_LIKE_DAYS = 3
_RATES = ("purchases per view",)
"""Volumes that a day without rows says nothing about; elsewhere it has 0."""
Counts = dict[int, float]


def count_volumes(
    settings: MeasureSettings, data: MonitoredData, period: Window
) -> tuple[RowVolume, ...]:
    """Rows of every kind on the days of a period, beside what earlier days lead to expect.

    A kind with fewer than four earlier days is left out: what is normal is not known. So are days
    of planned closings.
    """
    since = period.start - timedelta(days=settings.reference_days)
    whole = Window(start=since, end=period.end)
    counts: dict[str, Counts] = {}

    def is_closed(start: datetime) -> bool:
        return find_closing(settings.closings, start, start + timedelta(days=1)) is not None

    for count in (_count_answers, _count_listings, _count_events):
        counts |= count(data, period, whole)
    day = timedelta(days=1)
    return tuple(
        volume
        for name, days in counts.items()
        for volume in _compare_days(
            name,
            {n: rows for n, rows in days.items() if not is_closed(period.start + n * day)},
            period,
        )
        if not is_closed(volume.start)
    )


def _count_answers(data: MonitoredData, period: Window, whole: Window) -> dict[str, Counts]:
    log = tables.read_log(data.log, ("time",), whole)
    return {"answers": _count_days(log["time"], period)}


def _count_listings(data: MonitoredData, period: Window, whole: Window) -> dict[str, Counts]:
    listed = _read(data, "items", "listed_at", ("seller_id",), whole)
    if listed is None:
        return {}
    found = {"listings": _count_days(listed["listed_at"], period)}
    if "seller_id" in listed.column_names:
        day = pa.array(_to_day(listed["listed_at"], period))
        by_day = listed.append_column("day", day).group_by("day")
        sellers = by_day.aggregate([("seller_id", "count_distinct")])
        number = map(float, sellers["seller_id_count_distinct"].to_pylist())
        found["sellers"] = dict(zip(sellers["day"].to_pylist(), number, strict=True))
    return found


def _count_events(data: MonitoredData, period: Window, whole: Window) -> dict[str, Counts]:
    events = _read(data, "events", "event_time", ("request_id", "event_type"), whole)
    if events is None:
        return {}
    found = {"events": _count_days(events["event_time"], period)}
    organic = events
    if "request_id" in events.column_names:
        follows = pc.is_valid(events["request_id"])
        outcomes, organic = events.filter(follows), events.filter(pc.invert(follows))
        if outcomes.num_rows:
            found["outcomes"] = _count_days(outcomes["event_time"], period)
            first = min(found["outcomes"])
            by_day = _count_days(organic["event_time"], period)
            found["organic"] = {day: n for day, n in by_day.items() if day >= first}
    bought, viewed = (
        _count_days(
            organic.filter(pc.equal(organic["event_type"], str(kind)))["event_time"], period
        )
        for kind in (EventType.PURCHASE, EventType.VIEW)
    )
    found["purchases per view"] = {
        day: 1000 * bought.get(day, 0.0) / number for day, number in viewed.items()
    }
    return found


def _read(
    data: MonitoredData, name: str, time: str, columns: Sequence[str], whole: Window
) -> pa.Table | None:
    path = getattr(data, name)
    if path is None or name in data.unreadable:
        return None
    table = ds.dataset(str(path), format="parquet")
    if time not in table.schema.names:
        return None
    low, high = (pa.scalar(t, pa.timestamp("us", tz="UTC")) for t in (whole.start, whole.end))
    names = [time, *(column for column in columns if column in table.schema.names)]
    return table.to_table(columns=names, filter=(ds.field(time) >= low) & (ds.field(time) < high))


def _to_day(times: pa.ChunkedArray, period: Window) -> np.ndarray:
    """[n] days since the start of the period, negative before it."""
    start = period.start.timestamp() / tables.SECONDS_A_DAY
    return np.floor(tables.to_days(times) - start + 1e-9).astype(np.int64)


def _count_days(times: pa.ChunkedArray, period: Window) -> Counts:
    day, count = np.unique(_to_day(times, period), return_counts=True)
    return dict(zip(day.tolist(), count.astype(float).tolist(), strict=True))


def _compare_days(name: str, days: Counts, period: Window) -> Iterator[RowVolume]:
    """Each day of the period beside the same weekday before; where there is none, the level.

    A weekday that has never had rows, as where a shop is closed, tells nothing.
    """
    at = np.array(sorted(day for day in days if day < 0))
    if len(at) < _FEWEST_DAYS:
        return
    logs = np.log([max(days[day], 1.0) for day in at])
    alike = {slot: logs[at % DAYS_OF_WEEK == slot][-_LIKE_DAYS:] for slot in range(DAYS_OF_WEEK)}
    level = float(np.median(logs[-2 * DAYS_OF_WEEK :]))
    rest = np.concatenate([own - own.mean() for own in alike.values() if len(own) >= 2] or [[]])
    degrees = sum(len(own) - 1 for own in alike.values() if len(own) >= 2)
    by_weekday = degrees >= DAYS_OF_WEEK
    # Without weekdays, by the median: a day of the incident may be among those before.
    spread = 1.5 * float(np.median(np.abs(logs - level)))
    if by_weekday:
        spread = float(np.sqrt(np.square(rest).sum() / degrees))
    for number in range(max(round((period.end - period.start) / timedelta(days=1)), 1)):
        same = alike[number % DAYS_OF_WEEK]
        if (by_weekday and not len(same)) or (name in _RATES and number not in days):
            continue
        expected = float(same.mean()) if by_weekday else level
        yield RowVolume(
            name=name,
            start=period.start + timedelta(days=number),
            rows=days.get(number, 0.0),
            expected=float(np.exp(expected)),
            spread=max(spread, _LEAST_SPREAD),
        )
