"""Join answers of the prediction log with what people did after them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from monitoring import tables
from monitoring.frame import Asked
from monitoring.quality.intervals import Floats, Integers, PersonSums
from monitoring.quality.settings import QualitySettings
from refit.drift import Window
from refit.errors import DataValidationError
from refit.prediction import HOLDOUT, keep_first_pages

HOUR = 3_600_000_000
"""Microseconds in an hour."""
UTC_TIME = pa.timestamp("us", tz="UTC")
LOG_COLUMNS = ("request_id", "embedding_version", "user_id", "time", "fallback", "positions")
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Outcomes:
    """Events that name the answer before them.

    Attributes:
        request: [E] id of the answer.
        kind: [E] event type.
        item: [E] the item.
        time: [E] when, microseconds since 1970.
        price: [E] price of the event, else of the item; NaN if unknown.
    """

    request: pa.ChunkedArray
    kind: pa.ChunkedArray
    item: pa.ChunkedArray
    time: Integers
    price: Floats


@dataclass(frozen=True, eq=False)
class Organic(Asked):
    """Events that follow from no answer: people who browse by themselves.

    Attributes:
        user: [E] who.
        kind: [E] event type.
        item: [E] the item.
        time: [E] when, microseconds since 1970.
        price: [E] price of the event, else of the item; NaN if unknown.
    """

    user: pa.ChunkedArray
    kind: pa.ChunkedArray
    item: pa.ChunkedArray
    time: Integers
    price: Floats


@dataclass(frozen=True)
class EventFeed:
    """The events of a period, and how far they reach.

    Attributes:
        outcomes: Events with ``request_id``.
        organic: Events without.
        reaches: Time of the newest event of the period, microseconds since 1970; None when there
            is none. Later ones, whose clock may be wrong, say nothing.
        priced: Whether events or items have a price.
    """

    outcomes: Outcomes
    organic: Organic
    reaches: int | None
    priced: bool


@dataclass(frozen=True)
class JoinedAnswers:
    """Answers of one pair of towers with their outcomes, each answer once, in order of time.

    Attributes:
        time: [N] when, microseconds since 1970.
        person: [N] number of the person; an answer to nobody known is a person of its own.
        known: [N] whether the person is known.
        holdout: [N] popularity answers to people who get no others.
        fallback: [N] other answers without a query vector: for want of the model's, not
            personalised by request, or about an item.
        hits: By kind of outcome, [N] whether there was one in time.
        delay: [N] hours until the first outcome, also one that came too late; NaN without.
        revenue: [N] sum of the prices of what was bought, each item once.
        unpriced: [N] purchases without a known price.
    """

    time: Integers
    person: Integers
    known: Flags
    holdout: Flags
    fallback: Flags
    hits: Mapping[str, Flags]
    delay: Floats
    revenue: Floats
    unpriced: Floats

    @property
    def by_model(self) -> Flags:
        """[N] answers that the model gave."""
        return ~self.holdout & ~self.fallback

    def values(self, kind: str) -> Floats:
        """[N] the numerator of a rate: 0 or 1 for an outcome, or the revenue."""
        return self.revenue if kind == "revenue" else self.hits[kind].astype(np.float64)

    def sums(self, kind: str, chosen: Flags) -> PersonSums | None:
        """A rate of the chosen answers by person; None without answers."""
        if not chosen.any():
            return None
        return PersonSums.of(self.person[chosen], self.values(kind)[chosen])


def to_microseconds(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def from_microseconds(moment: int) -> datetime:
    """The time, UTC."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(moment))


def within(times: Integers, window: Window) -> Flags:
    """[N] which times, in microseconds since 1970, lie in a period."""
    return (times >= to_microseconds(window.start)) & (times < to_microseconds(window.end))


def read_events(events: Path, items: Path | None, since: datetime, until: datetime) -> EventFeed:
    """Read the events of [since, until), and the time of the newest of them.

    Raises:
        DataValidationError: There is no ``request_id``, so that nothing can be joined.
    """
    table = ds.dataset(str(events), format="parquet")
    if "request_id" not in table.schema.names:
        raise DataValidationError(f"{events} has no column request_id: no event is an outcome")
    names = ["request_id", "user_id", "item_id", "event_type", "event_time", "price"]
    names = [name for name in names if name in table.schema.names]
    start, end = (pa.scalar(t, UTC_TIME) for t in (since, until))
    time = ds.field("event_time")
    found = table.to_table(columns=names, filter=(time >= start) & (time < end))
    times = _microseconds(found["event_time"])
    reaches = int(times.max()) if len(times) else None
    price, priced = _prices(found, items)
    tagged = np.asarray(pc.is_valid(found["request_id"]))

    def columns(of: Flags) -> tuple[pa.Table, Integers, Floats]:
        return found.filter(pa.array(of)), times[of], price[of]

    own, own_time, own_price = columns(tagged)
    rest, rest_time, rest_price = columns(~tagged)
    return EventFeed(
        Outcomes(own["request_id"], own["event_type"], own["item_id"], own_time, own_price),
        Organic(rest["user_id"], rest["event_type"], rest["item_id"], rest_time, rest_price),
        reaches,
        priced,
    )


def _prices(events: pa.Table, items: Path | None) -> tuple[Floats, bool]:
    """[E] the price of each event, else of its item, NaN if unknown; and whether any has one."""
    names = events.column_names
    price = np.full(events.num_rows, np.nan)
    if "price" in names:
        price = tables.to_numbers(events["price"])
    if items is None or not {"item_id", "price"} <= set(pq.read_schema(items).names):
        return price, "price" in names
    stock = pq.read_table(items, columns=["item_id", "price"])
    position = pc.index_in(events["item_id"], value_set=stock["item_id"].combine_chunks())
    at = np.asarray(pc.fill_null(position, -1))
    listed = np.append(tables.to_numbers(stock["price"]), np.nan)
    return np.where(np.isnan(price), listed[at], price), True


def join_answers(
    settings: QualitySettings,
    log: Path,
    feed: EventFeed,
    embedding_version: str,
    period: Window,
    before: tuple[str, datetime] | None = None,
) -> JoinedAnswers:
    """Join the answers of a period with their outcomes.

    With ``before``, answers of other towers until a time count as well.

    An answer that was logged twice counts once, and so does an item that was bought twice. Of a
    list in pages the first page counts, with its outcomes: how far people read on would change the
    rates otherwise. A price counts at most as much as ``winsor_quantile`` of all prices that were
    paid.
    """
    answers = _read_answers(log, embedding_version, period, before)
    time = _microseconds(answers["time"])
    n, outcomes = len(time), feed.outcomes
    position = pc.index_in(outcomes.request, value_set=answers["request_id"].combine_chunks())
    at = np.asarray(pc.fill_null(position, -1)).astype(np.int64)
    names_one = at >= 0
    delay = np.where(names_one, outcomes.time - time[at] if n else 0, 0) / HOUR
    in_time = names_one & (delay <= settings.outcome_hours)
    kinds = {"click": settings.click_events, "purchase": settings.purchase_events}
    of_kind = {
        kind: np.asarray(pc.is_in(outcomes.kind, pa.array(types, pa.string())))
        for kind, types in kinds.items()
    }
    hits = {}
    for kind, flags in of_kind.items():
        hits[kind] = np.zeros(n, dtype=bool)
        hits[kind][at[in_time & flags]] = True
    any_kind = names_one & (of_kind["click"] | of_kind["purchase"])
    first = np.full(n, np.inf)
    np.minimum.at(first, at[any_kind], delay[any_kind])
    revenue, unpriced = _revenue(settings, outcomes, at, in_time & of_kind["purchase"], n)
    person, known = number_people(answers["user_id"])
    reason = answers["fallback"]
    holdout = np.asarray(pc.fill_null(pc.equal(reason, HOLDOUT), False))
    return JoinedAnswers(
        time=time,
        person=person,
        known=known,
        holdout=holdout,
        fallback=np.asarray(pc.is_valid(reason)) & ~holdout,
        hits=hits,
        delay=np.where(np.isfinite(first), first, np.nan),
        revenue=revenue,
        unpriced=unpriced,
    )


def _read_answers(
    log: Path, embedding_version: str, period: Window, before: tuple[str, datetime] | None
) -> pa.Table:
    answers = tables.read_log(log, LOG_COLUMNS, period)
    own = pc.equal(answers["embedding_version"], embedding_version)
    if before is not None:
        towers, until = before
        earlier = pc.less(answers["time"], pa.scalar(until, UTC_TIME))
        own = pc.or_(own, pc.and_(pc.equal(answers["embedding_version"], towers), earlier))
    answers = keep_first_pages(answers.filter(own))
    answers = answers.take(pc.sort_indices(answers, sort_keys=[("time", "ascending")]))
    return answers.take(pa.array(once(answers["request_id"])))


def once(ids: pa.ChunkedArray) -> Integers:
    """Positions of the first row of each id, in the order of the rows."""
    codes = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.sort(np.unique(codes, return_index=True)[1])


def _revenue(
    settings: QualitySettings, outcomes: Outcomes, at: Integers, bought: Flags, n: int
) -> tuple[Floats, Floats]:
    """[N] revenue of each answer, and [N] its purchases without a price."""
    items = outcomes.item.combine_chunks().dictionary_encode().indices
    pairs = np.stack([at[bought], np.asarray(items)[bought].astype(np.int64)], axis=1)
    once = np.unique(pairs, axis=0, return_index=True)[1]
    price, answer = outcomes.price[bought][once], at[bought][once]
    if np.isfinite(price).any():
        price = np.minimum(price, np.nanquantile(price, settings.winsor_quantile))
    unpriced = np.isnan(price)
    return (
        np.bincount(answer, np.nan_to_num(price), n).astype(np.float64),
        np.bincount(answer, unpriced, n).astype(np.float64),
    )


def number_people(users: pa.ChunkedArray) -> tuple[Integers, Flags]:
    """[N] a number for each person, the same in every row, and [N] whether the person is known.

    A row without a user is a person of its own.
    """
    known = np.asarray(pc.is_valid(users))
    names = users.combine_chunks().dictionary_encode()
    person = np.asarray(pc.fill_null(names.indices, -1)).astype(np.int64)
    person[~known] = len(names.dictionary) + np.arange(int((~known).sum()))
    return person, known


def organic_sums(
    settings: QualitySettings, feed: EventFeed, kind: str, windows: Sequence[Window]
) -> list[PersonSums | None]:
    """A rate of people who browse by themselves, window by window: outcomes per visitor.

    A visitor is a person with at least one event that follows from no answer. Of one person as
    many events count as ``winsor_quantile`` of people have, and prices as for answers.
    """
    organic = feed.organic
    types = settings.click_events if kind == "click" else settings.purchase_events
    of_kind = np.asarray(pc.is_in(organic.kind, pa.array(types, pa.string())))
    value = of_kind.astype(np.float64)
    if kind == "revenue":
        paid = organic.price[of_kind & np.isfinite(organic.price)]
        most = np.quantile(paid, settings.winsor_quantile) if len(paid) else 0.0
        value *= np.minimum(np.nan_to_num(organic.price), most)
    by_window = []
    for window in windows:
        rows, people, at = organic.once(_find_visits, window.start, window.end)
        hits, visits = np.bincount(at, value[rows], len(people)), np.ones(len(people))
        by_window.append(PersonSums(people, hits, visits) if len(rows) else None)
    counts = [one.hits for one in by_window if one is not None]
    most = np.inf
    if kind != "revenue" and counts:
        most = max(float(np.quantile(np.concatenate(counts), settings.winsor_quantile)), 1.0)
    return [one and replace(one, hits=np.minimum(one.hits, most)) for one in by_window]


def _number_visitors(organic: Organic) -> tuple[Integers, Flags]:
    return number_people(organic.user)


def _find_visits(
    organic: Organic, start: datetime, end: datetime
) -> tuple[Integers, Integers, Integers]:
    """[R] rows of known people in a period, [P] these people, and [R] the place of each row's."""
    people, known = organic.once(_number_visitors)
    rows = np.flatnonzero(known & within(organic.time, Window(start=start, end=end)))
    return rows, *np.unique(people[rows], return_inverse=True)


def _microseconds(times: pa.ChunkedArray) -> Integers:
    return np.asarray(pc.cast(pc.cast(times, UTC_TIME), pa.int64()).to_numpy())
