"""Events beside the answers that they follow from, and beside those that they should name."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring import tables
from monitoring.faults.feed import Feed
from monitoring.faults.settings import ANSWERED_DAYS
from monitoring.frame import combine
from refit.drift import Window

REQUEST = "request_id"
_SHOWN_FOR_DAYS = 2.0 / 24.0
_LATEST_DAYS = 1.0
_COLUMNS = ("event_time", "user_id", "item_id", REQUEST)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AnsweredEvents:
    """Events of a window and of the days before it, beside the prediction log.

    Attributes:
        delays, delays_before: [n] days from an answer to an event that names it.
        named, named_before: [m] whether an event on what an answer showed the same person a moment
            before names an answer.
        foreign, foreign_before: [k] whether an event names an answer to another person.
    """

    delays: Floats
    delays_before: Floats
    named: NDArray[np.bool_]
    named_before: NDArray[np.bool_]
    foreign: NDArray[np.bool_]
    foreign_before: NDArray[np.bool_]


def read_answered(feed: Feed) -> AnsweredEvents | str:
    """Events beside their answers, or why there are none."""
    if lacking := [name for name in _COLUMNS if name not in feed.rows.names]:
        return f"no {' and no '.join(lacking)} column in {feed.name}"
    if "log" in feed.data.unreadable:
        return "the prediction log cannot be read"
    return feed.once(_read)


def _read(feed: Feed) -> AnsweredEvents | str:
    spans = feed.find_days_before(ANSWERED_DAYS)
    since = feed.window.start - timedelta(days=feed.start - spans[0][0])
    log = tables.read_log(
        feed.data.log,
        (REQUEST, "user_id", "time", "item_ids"),
        Window(start=since, end=feed.window.end),
    )
    if not log.num_rows:
        return "no answers were logged"
    answered = tables.to_days(log["time"])
    first = float(answered.min())
    spans = [(max(low, first), high) for low, high in spans if high > first]
    before = feed.read_beside(_COLUMNS, spans or [(feed.start, feed.start)])
    here = feed.rows.table.select(_COLUMNS)
    delays, named, foreign = zip(
        *(_join(part, log, answered) for part in (here, before)), strict=True
    )
    return AnsweredEvents(*delays, *named, *foreign)


def _join(
    events: pa.Table, log: pa.Table, answered: Floats
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    times = tables.to_days(events["event_time"])
    place = pc.index_in(combine(events[REQUEST]), value_set=combine(log[REQUEST]))
    row = np.asarray(pc.fill_null(place, -1)).astype(np.int64)
    row[np.asarray(pc.is_null(events[REQUEST]))] = -1
    delays = times[row >= 0] - answered[row[row >= 0]]
    asked = log["user_id"].take(pa.array(row[row >= 0]))
    same = pc.equal(asked, events["user_id"].filter(pa.array(row >= 0)))
    foreign = ~np.asarray(pc.drop_null(same), dtype=bool)
    return delays[np.abs(delays) < _LATEST_DAYS], _find_named(events, log), foreign


def _find_named(events: pa.Table, log: pa.Table) -> NDArray[np.bool_]:
    lists = combine(log["item_ids"])
    rows = pc.list_parent_indices(lists)
    shown = pa.table(
        {
            "user_id": combine(log["user_id"]).take(rows),
            "item_id": combine(pc.list_flatten(lists)),
            "shown": combine(log["time"]).take(rows),
        }
    )
    joined = events.join(shown, keys=["user_id", "item_id"], join_type="inner")
    delay = tables.to_days(joined["event_time"]) - tables.to_days(joined["shown"])
    recent = (delay >= 0) & (delay <= _SHOWN_FOR_DAYS)
    return np.asarray(pc.is_valid(joined[REQUEST]), dtype=bool)[recent]
