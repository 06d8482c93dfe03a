"""Checks of the times of events: days, gaps, clocks, and whether test is like train."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from statistics import median

import ibis
import ibis.expr.types as ir

from components.ingestion.health.data import (
    HealthData,
    inform,
    make_line,
    make_share_line,
    measure,
)
from refit.contract import EventType
from refit.health import HealthCheck

DAY = timedelta(days=1)
DayCounts = dict[date, int]


def count_days(events: ir.Table) -> DayCounts:
    """The number of events of each UTC day that has any, in order."""
    days = events.group_by(day=events.event_time.date()).agg(n=lambda t: t.count())
    return {row["day"]: row["n"] for row in days.order_by("day").to_pyarrow().to_pylist()}


def check_times(data: HealthData, days: DayCounts) -> Iterator[HealthCheck]:
    """Check when events happen."""
    limits = data.limits
    span = measure(
        data.events, first=data.events.event_time.min(), last=data.events.event_time.max()
    )
    first, last = (span[name].astimezone(UTC) for name in ("first", "last"))
    n_days = (max(days) - min(days)).days + 1
    yield inform(
        "events",
        "first and last event",
        f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, {n_days:,} days",
    )
    yield _check_gaps(data, days, n_days)
    busiest = max(days, key=lambda day: days[day])
    typical = median(days.values())
    yield make_line(
        "events",
        "busiest day",
        f"{days[busiest]:,} events on {busiest}, "
        f"{days[busiest] / typical:,.1f} times the median day",
        days[busiest] / typical,
        limits.busiest_day,
        "is it real, or the default of a missing date, or an import?",
    )
    since = max((data.split.end - last) / DAY, 0.0)
    yield make_line(
        "events",
        "last event before the end of the window",
        f"{since:,.1f} days",
        since,
        limits.days_since_last_event,
        "the export may be incomplete; the last days of test are empty",
    )
    yield from _check_test(data, first)
    yield from _check_clocks(data)
    yield _check_types(data)


def _check_gaps(data: HealthData, days: DayCounts, n_days: int) -> HealthCheck:
    shown = ""
    longest, since = _find_longest_gap(list(days))
    if longest:
        shown = f"; the longest gap is {longest:,} days, from {since}"
    line = make_share_line(
        "events",
        "days without events",
        n_days - len(days),
        n_days,
        data.limits.days_without_events,
        "is a part of the export missing? Popularity decays over a gap as if nobody had come",
    )
    return line.model_copy(update={"shown": line.shown + shown})


def _find_longest_gap(days: Sequence[date]) -> tuple[int, date | None]:
    """The length in days of the longest gap, and its first day."""
    gaps = [((later - day).days - 1, day + DAY) for day, later in pairwise(days)]
    longest = max(gaps, key=lambda gap: gap[0], default=(0, None))
    return longest if longest[0] else (0, None)


def _check_test(data: HealthData, first: datetime) -> Iterator[HealthCheck]:
    """Check whether the test window holds enough, and about as much as train."""
    events, split = data.events, data.split
    in_test = events.event_time >= split.test_start
    found = measure(
        events,
        train=(events.event_time < split.validation_start).sum(),
        test=in_test.sum(),
        users=events.user_id.nunique(where=in_test),
    )
    train, test, users = (found[name] or 0 for name in ("train", "test", "users"))
    begin = max(first, split.start)
    per_day = {
        "train": train / max((split.validation_start - begin) / DAY, 1.0),
        "test": test / max((split.end - split.test_start) / DAY, 1.0),
    }
    fall = 1 - per_day["test"] / per_day["train"] if train else None
    yield make_line(
        "events",
        "events per day in test",
        f"{per_day['test']:,.1f}, in train {per_day['train']:,.1f}",
        fall,
        data.limits.fall_in_test,
        "the end of the export is incomplete, or the market has changed: move the split",
    )
    precision = 0.98 / users**0.5 if users else None
    yield make_line(
        "events",
        "users in test",
        f"{users:,} with {test:,} events"
        + (f"; a hit rate is known to about ±{precision:.3f}" if precision else ""),
        precision,
        data.limits.precision_in_test,
        "the gate can hardly tell two models apart: lengthen test_days, or bring more events",
    )


def _check_clocks(data: HealthData) -> Iterator[HealthCheck]:
    """Check whether times of day are real: dates without a time lie on one clock time."""
    events = data.events
    time = events.event_time
    clock = time.hour() * 3600 + time.minute() * 60 + time.second()
    counts = events.group_by(clock=clock).agg(n=lambda t: t.count())
    [top] = counts.order_by(ibis.desc("n"), "clock").limit(1).to_pyarrow().to_pylist()
    total = data.counts["events"].kept
    at = f"{top['clock'] // 3600:02}:{top['clock'] // 60 % 60:02}:{top['clock'] % 60:02}"
    line = make_share_line(
        "events",
        "events at one time of day",
        top["n"],
        total,
        data.limits.clock_spike,
        "these times may be dates without a time: the order of events within a day is not known, "
        "visits cannot be told apart, and a history holds no event of the same day",
    )
    yield line.model_copy(update={"shown": f"{line.shown} at {at} UTC"})
    others = counts.filter(counts.clock != top["clock"])
    found = measure(others, n=others.n.sum(), full=others.n.sum(where=others.clock % 3600 == 0))
    yield make_share_line(
        "events",
        "other events at full hours",
        found["full"] or 0,
        found["n"] or 0,
        data.limits.full_hours,
        "times are rounded to the hour: the order of events within an hour is not known",
    )


def _check_types(data: HealthData) -> HealthCheck:
    rows = data.events.event_type.value_counts(name="n").order_by(ibis.desc("n"), "event_type")
    counts = {row["event_type"]: row["n"] for row in rows.to_pyarrow().to_pylist()}
    return make_line(
        "events",
        "event types",
        ", ".join(f"{name} {n:,}" for name, n in counts.items()),
        float(EventType.PURCHASE.value not in counts),
        data.limits.no_purchase,
        "there is no purchase: features.spec.target_events and event_weights must name other "
        "events, and what is sold cannot be known from the events",
    )
