"""A prediction log and events whose rates are known exactly."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from refit.drift import Window
from refit.files import write_json
from refit.prediction import PREDICTION_SCHEMA

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TOWERS = "towers"
EVENTS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event_type", pa.string()),
        ("event_time", pa.timestamp("us", tz="UTC")),
        ("request_id", pa.string()),
        ("price", pa.float64()),
    ]
)


def day_window(day):
    """The window of one day, counted from Monday 1 January."""
    return Window(start=MONDAY + day * DAY, end=MONDAY + (day + 1) * DAY)


def answer(name, at, user="u", fallback=None, **more):
    """One row of the log."""
    row = dict.fromkeys(PREDICTION_SCHEMA.names)
    known = {"request_id": name, "bundle_id": "b", "embedding_version": TOWERS, "context": "{}"}
    return {
        **row,
        **known,
        "user_id": user,
        "time": at,
        "item_ids": [],
        "scores": [],
        "fallback": fallback,
        **more,
    }


def event(at, request=None, kind="view", user="u", item="i", price=None):
    """One row of the events."""
    values = (user, item, kind, at, request, price)
    return dict(zip(EVENTS.names, values, strict=True))


def write(root, answers, events, schema=PREDICTION_SCHEMA):
    """Write both, and return their paths."""
    log, feed = root / "log.parquet", root / "events.parquet"
    pq.write_table(pa.Table.from_pylist(answers, schema=schema), log)
    pq.write_table(pa.Table.from_pylist(events, schema=EVENTS), feed)
    return log, feed


def live(days, every=5, late=0.0, arrives=0.0, until=None, people=300, per_day=300):
    """Answers spread over each day; of each ``every`` one leads to a view, evenly.

    Args:
        days: How many days.
        every: One number, or a function from day and person to one.
        late: Hours from answer to view.
        arrives: Hours from the view until it can be read.
        until: Views that arrive later are missing; the end of the last day without.
        people: How many people are answered in turn.
        per_day: Answers a day.
    """
    until = until or MONDAY + days * DAY
    answers, events = [], []
    for day in range(days):
        for i in range(per_day):
            at = MONDAY + day * DAY + i * DAY / per_day
            user, name = f"u{i % people}", f"r{day}-{i}"
            answers.append(answer(name, at, user))
            step = every(day, i) if callable(every) else every
            seen = at + timedelta(hours=late(day) if callable(late) else late, minutes=1)
            if step and (i + day) % step == 0 and seen + timedelta(hours=arrives) < until:
                events.append(event(seen, name, user=user))
    return answers, events


def write_index(root, names, vectors, towers=TOWERS):
    """An index folder of some items."""
    root.mkdir()
    pq.write_table(pa.table({"item_id": names}), root / "items.parquet")
    np.save(root / "vectors.npy", np.array(vectors, np.float32))
    write_json(root / "index.json", {"embedding_version": towers, "as_of": MONDAY.isoformat()})
    return root
