"""Rows that come twice, with the same ids or with new ones."""

from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, choose_clearest, leave_unchecked
from monitoring.faults.feed import Feed, content_columns
from monitoring.faults.hashing import hash_rows
from monitoring.faults.known import TIME_COLUMNS, KnownFeed

UNIT = "share of the rows that are another row again"
RUNBOOK = Advice(
    "Rows come twice: the same listing, or the same event, at the same moment.",
    "Find out whether an export ran twice or a consumer reads a message again. Every event counts "
    "twice in popularity and in training until the doubles are removed.",
)
TABLES = ("items", "events")
_LEAST = 0.1
_AGAIN = ("event_type", "user_id", "item_id")
_AGAIN_LEAST = 0.2
_MOMENT = 5.0 / 86_400.0


def find(feed: Feed) -> Iterator[Sign]:
    """The share of rows with an equal one before them, ids left aside."""
    n = len(feed)
    if not feed.is_timed:
        yield leave_unchecked(f"{feed.no_days}: whether rows come twice is not checked")
        return
    if n < feed.settings.minimum_rows:
        yield Sign("", why=f"{n} rows, {feed.settings.minimum_rows} are needed", n_current=n)
        return
    value = feed.doubled
    usual = feed.known.once(_find_usual)
    at_once = Sign(
        "",
        value,
        max(_LEAST, min(3.0 * usual, 0.3)),
        f"{value:.0%} of the {feed.name} of this window are another row again, at the same moment",
        n_reference=len(feed.known.rows),
        n_current=n,
    )
    yield choose_clearest([at_once, *_find_sent_again(feed)])


def _find_sent_again(feed: Feed) -> Iterator[Sign]:
    """Events of a type that the same person does again on the same listing within seconds."""
    if feed.name != "events" or not set(_AGAIN) <= set(feed.rows.names):
        return
    known = feed.known
    if not set(_AGAIN) <= set(known.rows.names):
        return
    usual, total = known.once(_count_again), float(known.counts.sum())
    found = _count_again(feed)
    # Of a sample of the rows both are there with the share of the sample.
    kept, kept0 = len(feed.rows) / max(len(feed), 1), len(known.rows) / max(total, 1.0)
    for kind, (again, n) in found.items():
        again0, n0 = usual.get(kind, (0, 0))
        if n < feed.settings.minimum_rows or n0 < feed.settings.minimum_rows:
            continue
        share = min(again / n / kept, 1.0)
        before = min((again0 + 1) / n0 / kept0, 1.0)
        detail = (
            f"{share:.0%} of the events {kind!r} come again within {_MOMENT * 86_400:.0f} seconds, "
            "by the same person on the same listing"
        )
        limit = max(_AGAIN_LEAST, min(3.0 * before, 0.8))
        yield Sign("", share, limit, detail, n_reference=n0, n_current=n)


def _count_again(feed: Feed | KnownFeed) -> dict[str, tuple[int, int]]:
    """By event type, rows that come again within seconds, and rows."""
    rows = feed.rows
    content = hash_rows([rows.column(c) for c in _AGAIN], len(rows))
    order = np.lexsort((rows.day, content))
    content, day = content[order], rows.day[order]
    again = np.zeros(len(rows), dtype=bool)
    again[order[1:]] = (content[1:] == content[:-1]) & (np.diff(day) <= _MOMENT)
    kinds = rows.column("event_type")
    return {
        kind: (int(again[own].sum()), int(own.sum()))
        for kind in pc.unique(kinds.drop_null()).to_pylist()
        for own in [np.asarray(pc.fill_null(pc.equal(kinds, kind), False))]
    }


def _find_usual(known: KnownFeed) -> float:
    rows, time = known.rows, TIME_COLUMNS[known.name]
    columns = [c for c in content_columns(known.name, rows.names) if c in rows.names]
    if not len(rows) or time not in rows.names:
        return 0.0
    found = hash_rows([rows.column(c) for c in [*columns, time]], len(rows))
    return 1.0 - len(np.unique(found)) / len(rows)
