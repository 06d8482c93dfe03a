"""The simulated marketplace: a history, and live days on which a recommender is used."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import batched
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit.progress import Meter
from simulation import choice
from simulation.changes import CHANGES
from simulation.choice import Interactions, LiveListings, Visits
from simulation.live import LiveDay, Recommend
from simulation.rows import Rows, labels
from simulation.scenario import CATEGORIES, DEPARTMENTS, SYSTEM_LENGTHS, Ints, Scenario
from simulation.settings import SimulationSettings, read_settings
from simulation.shoppers import MICROSECONDS_PER_DAY, shoppers_of_day, user_ids, users_table
from simulation.stock import SIZE_LABELS, SIZE_OFFSET, item_ids, items_table, stock_of_day

CONTEXT_COLUMNS = ("surface", "wanted_category", "wanted_size")
USER_COLUMNS = ("department", "size", "shoe_size", "country", "age", "joined_at")
POPULARITY_KEPT_PER_DAY = 0.85
MAX_SIZES = int(SYSTEM_LENGTHS.max())
POPULARITY_WEIGHTS = np.array([1.0, 3.0, 4.0, 5.0, 0.0])


@dataclass
class EventLog(Rows):
    """Events in order of time; the columns hold codes, see ``Marketplace.events_table``."""

    shopper: Ints
    item: Ints
    kind: Ints
    time: Ints
    session: Ints
    request: Ints
    wanted: Ints
    wanted_size: Ints
    price: NDArray[np.float64]


@dataclass(frozen=True)
class Day:
    """The tables of one simulated live day.

    Attributes:
        day: Number of the day; 0 is the first simulated day.
        date: Its midnight, UTC.
        events: Columns of the contract and the context columns; an event on a recommended item has
            a ``request_id``.
        listed: The new listings, in the columns of items.
        delisted: Columns item_id, delisted_at and sold (false if withdrawn).
        joined: The new users, in the columns of users.
        requests: One row for each request: request_id, user_id, time, the context columns; shown,
            the number of items shown; not_on_sale, how many of them were unknown, the user's own or
            not live; bought, whether the visit ended in a purchase. chance_of_sale is the true
            chance of a purchase from the list; organic_chance, perfect_chance and random_chance are
            those of the organic, the best and a random list.
    """

    day: int
    date: datetime
    events: pa.Table
    listed: pa.Table
    delisted: pa.Table
    joined: pa.Table
    requests: pa.Table


class Marketplace:
    """A simulated second-hand marketplace; its history is simulated when it is created.

    The same settings give the same history. Live days also depend on what is recommended. Between
    two days a marketplace can be pickled.

    Args:
        settings: Simulation settings, or their plain values, with an optional ``preset``.

    Attributes:
        day: The next day to simulate; 0 is the first simulated day.
        today: The live day in progress, if there is one.

    Raises:
        UsageError: A setting is unknown or invalid.
    """

    def __init__(self, settings: SimulationSettings | Mapping[str, Any]) -> None:
        if not isinstance(settings, SimulationSettings):
            settings = read_settings(settings)
        self.settings = settings
        self.scenario = Scenario(settings)
        self.shoppers = shoppers_of_day(self.scenario, -1)
        self.stock = stock_of_day(self.scenario, self.shoppers, -1)
        self.day = 0
        self._popularity = np.zeros(len(self.stock))
        self._sessions = 0
        self._late: EventLog | None = None
        self._request_ids: list[str] = []
        self._start_us = int(settings.starts_at.timestamp()) * 1_000_000
        days = []
        with Meter("simulated days", settings.days, "days") as progress:
            for _ in range(settings.days):
                days.append(self._simulate_organic_day())
                progress.advance()
        self.today: LiveDay | None = None
        self._log = days[0].joined_with(*days[1:])
        nothing = np.zeros(0, dtype=np.int64)
        self._by_shopper = nothing, nothing  # rows of the log, and their shoppers

    @property
    def now(self) -> datetime:
        """Midnight, UTC, of the next day to simulate."""
        return self.settings.starts_at + timedelta(days=self.day)

    def truth(self) -> list[dict[str, Any]]:
        """The configured changes: name, day, date, strength, and the expected effects."""
        return [
            {
                **change.model_dump(),
                "date": (self.settings.starts_at + timedelta(days=change.day)).isoformat(),
                "does": CHANGES[change.name].does,
                "moves": CHANGES[change.name].moves,
                "keeps": CHANGES[change.name].keeps,
                "hurts": CHANGES[change.name].hurts,
            }
            for change in self.settings.changes
        ]

    def events_table(self) -> pa.Table:
        """All events so far, in the columns of the contract and the context columns."""
        return self._events(self._log)

    def items_table(self) -> pa.Table:
        """All listings so far; ``delisted_at`` of live listings is null."""
        until = self.day * MICROSECONDS_PER_DAY
        rows = np.flatnonzero(self.stock.listed_at < until)
        return items_table(self.stock, rows, self._start_us, until)

    def users_table(self) -> pa.Table:
        """All users so far, including sellers."""
        rows = np.flatnonzero(self.shoppers.joined_at < self.day * MICROSECONDS_PER_DAY)
        return users_table(self.shoppers, rows, self._start_us)

    def events_of(self, shopper: int) -> tuple[Ints, Ints, Ints]:
        """Item rows, event type codes and times of a shopper's events before today, by time."""
        order, ordered = self._by_shopper
        if (known := len(order)) < len(self._log):
            rows = known + np.argsort(self._log.shopper[known:], kind="stable")
            shoppers = self._log.shopper[rows]
            at = np.searchsorted(ordered, shoppers, side="right")
            order, ordered = np.insert(order, at, rows), np.insert(ordered, at, shoppers)
            self._by_shopper = order, ordered
        low, high = np.searchsorted(ordered, (shopper, shopper + 1))
        rows = order[low:high]
        return self._log.item[rows], self._log.kind[rows], self._log.time[rows]

    def simulate_day(
        self,
        recommend: Recommend,
        k: int = 10,
        on_delisted: Callable[[list[str]], None] | None = None,
        concurrency: int = 1,
    ) -> Day:
        """Simulate the next day; some visits request recommendations, the others browse.

        Args:
            recommend: Called for each of ``requests_per_day`` visits, in order of time, with the
                user id, the context, the latest events before that time (newest first, each with
                item_id, event_type, event_time), k and the time.
            k: How many items to request; further items of an answer are not shown.
            on_delisted: Called before a request and at the end of the day with the ids of the items
                that were sold or withdrawn since the last call.
            concurrency: How many visits request at the same time, each in its own thread; the
                settings alone determine which.

        Returns:
            The tables of the day.

        Raises:
            BaseException: An error of ``recommend`` or ``on_delisted``; the day can then be
                simulated again.
        """
        before = self.shoppers, self.stock, self._popularity
        try:
            today, requests = self._begin()
            with ThreadPoolExecutor(concurrency) as threads:
                call = threads.map if concurrency > 1 else map
                for at_once in batched(requests, concurrency):
                    today.answer_requests(recommend, at_once, k, on_delisted, call)
            end = (self.day + 1) * MICROSECONDS_PER_DAY - 1
            if on_delisted and (delisted := today.take_delisted(end)):
                on_delisted(delisted)
            return self._end(today)
        except BaseException:
            self.shoppers, self.stock, self._popularity = before
            raise
        finally:
            self.today = None

    def _begin(self) -> tuple[LiveDay, list[tuple[int, Ints]]]:
        """Open the day and simulate the visits that browse.

        Returns:
            The day, and the rows of the visits that request recommendations, each with the [L]
            slots of its organic list.
        """
        listings, visits = self._open()
        organic = self._organic_lists(listings, visits)
        n = min(self.settings.requests_per_day, len(visits))
        requesting = self.scenario.stream("requests", self.day).permutation(len(visits))[:n]
        requesting.sort()
        browsed = organic.copy()
        browsed[requesting] = -1
        rng = self.scenario.stream("reactions", self.day)
        conversion = self.scenario.conversion(self.day)
        interactions = choice.simulate_interactions(
            rng, self.shoppers, listings, visits, browsed, conversion
        )
        self.today = LiveDay(
            self.scenario,
            self.shoppers,
            self.day,
            listings,
            visits,
            organic=interactions,
            past_events=self.events_of,
        )
        return self.today, list(zip(requesting.tolist(), organic[requesting], strict=True))

    def _end(self, today: LiveDay) -> Day:
        day, date = self.day, self.now
        start, end = day * MICROSECONDS_PER_DAY, (day + 1) * MICROSECONDS_PER_DAY
        request = np.full(len(today.visits), -1)
        request[[answer.visit for answer in today.answers]] = len(self._request_ids) + np.arange(
            len(today.answers)
        )
        self._request_ids += [answer.request_id for answer in today.answers]
        sessions = self._sessions
        log = self._close(today.listings, today.visits, today.interactions(), request)
        bought = log.session[log.kind == choice.PURCHASE] - sessions
        log = self._report(log)
        self._log = self._log.joined_with(log)
        listed = np.flatnonzero((self.stock.listed_at >= start) & (self.stock.listed_at < end))
        delisted = np.flatnonzero(
            (self.stock.delisted_at >= start) & (self.stock.delisted_at < end)
        )
        joined = np.flatnonzero(self.shoppers.joined_at >= start)
        return Day(
            day=day,
            date=date,
            events=self._events(log),
            listed=items_table(self.stock, listed, self._start_us, int(self.stock.listed_at.min())),
            delisted=pa.table(
                {
                    "item_id": pa.array(item_ids(delisted), pa.string()),
                    "delisted_at": pa.array(
                        self.stock.delisted_at[delisted] + self._start_us,
                        pa.timestamp("us", tz="UTC"),
                    ),
                    "sold": pa.array(self.stock.sold[delisted]),
                }
            ),
            joined=users_table(self.shoppers, joined, self._start_us),
            requests=today.requests_table(bought),
        )

    def _simulate_organic_day(self) -> EventLog:
        listings, visits = self._open()
        slots = self._organic_lists(listings, visits)
        rng = self.scenario.stream("reactions", self.day)
        conversion = self.scenario.conversion(self.day)
        interactions = choice.simulate_interactions(
            rng, self.shoppers, listings, visits, slots, conversion
        )
        return self._report(self._close(listings, visits, interactions))

    def _open(self) -> tuple[LiveListings, Visits]:
        """Add the day's shoppers and listings; return its live listings and visits."""
        newcomers = shoppers_of_day(self.scenario, self.day)
        if len(newcomers):
            self.shoppers = self.shoppers.joined_with(newcomers)
        new = stock_of_day(self.scenario, self.shoppers, self.day)
        self.stock = self.stock.joined_with(new)
        self._popularity = np.concatenate([self._popularity, np.zeros(len(new))])
        visits = choice.visits_of_day(self.scenario, self.shoppers, self.day)
        return choice.live_listings_of_day(self.scenario, self.stock, self.day), visits

    def _organic_lists(self, listings: LiveListings, visits: Visits) -> Ints:
        """[V, L] slots, drawn by popularity and age from the listings that each visit requests."""
        rng = self.scenario.stream("organic", self.day)
        noon = self.day * MICROSECONDS_PER_DAY + MICROSECONDS_PER_DAY // 2
        age = np.maximum(noon - listings.listed_at, 0) / MICROSECONDS_PER_DAY
        weight = (0.4 + np.exp(-age / 3.0)) * (1.0 + self._popularity[listings.item]) ** 0.5
        total = np.concatenate([[0.0], np.cumsum(weight)])
        own = self.shoppers.department[visits.shopper]
        start, end = self._requested_range(
            listings, visits, np.where(rng.random(len(own)) < 0.7, own, -1)
        )
        drawn = rng.random((len(visits), self.settings.list_length))
        drawn = total[start][:, None] + drawn * (total[end] - total[start])[:, None]
        slots = np.searchsorted(total, drawn, side="right") - 1
        slots = np.minimum(slots, np.maximum(end - 1, 0)[:, None])
        slots[start == end] = -1
        return choice.mask_unavailable(listings, visits, _without_repeats(slots))

    def _requested_range(
        self, listings: LiveListings, visits: Visits, front: Ints
    ) -> tuple[Ints, Ints]:
        """[V] start and end of the range of live listings that each visit requests.

        Args:
            listings: Ordered by category, and therefore by department, then by size.
            visits: V visits.
            front: [V] the department that the front page shows, -1 for all of them.
        """
        department = np.where(visits.department < 0, front, visits.department)
        codes = np.arange(len(DEPARTMENTS))
        first = np.searchsorted(self.scenario.department, codes)[department]
        last = np.searchsorted(self.scenario.department, codes, side="right")[department]
        any_department, by_category = department < 0, visits.category >= 0
        first = np.where(any_department, 0, np.where(by_category, visits.category, first))
        last = np.where(
            any_department, len(CATEGORIES), np.where(by_category, visits.category + 1, last)
        )
        sized = visits.size >= 0
        low = first * MAX_SIZES + np.where(sized, visits.size, 0)
        high = np.where(sized, low + 1, last * MAX_SIZES)
        key = listings.category * MAX_SIZES + listings.size
        return np.searchsorted(key, low), np.searchsorted(key, high)

    def _close(
        self,
        listings: LiveListings,
        visits: Visits,
        interactions: Interactions,
        request: Ints | None = None,
    ) -> EventLog:
        """Sell each listing to its first buyer, and drop the later interactions with it."""
        ordered = np.lexsort((interactions.kind, interactions.slot, interactions.time))
        rows = interactions.take(ordered)
        bought = rows.kind == choice.PURCHASE
        decides = bought & ~listings.reserved[rows.slot]
        decided_at = np.full(len(listings), np.iinfo(np.int64).max)
        np.minimum.at(decided_at, rows.slot[decides], rows.time[decides])
        sold = decided_at < np.iinfo(np.int64).max
        sold_at = np.where(sold, decided_at + listings.delay * sold, decided_at)
        kept = ~bought & (rows.time < sold_at[rows.slot])
        sale = np.flatnonzero(decides & (rows.time == decided_at[rows.slot]))
        sale = sale[np.unique(rows.slot[sale], return_index=True)[1]]  # a tie sells once
        kept[sale] = True
        rows.time[sale] = sold_at[rows.slot[sale]]
        rows = rows.take(kept)

        self.stock.delisted_at[listings.item[sold]] = sold_at[sold]
        self.stock.sold[listings.item[sold]] = True
        item = listings.item[rows.slot]
        self._popularity *= POPULARITY_KEPT_PER_DAY
        self._popularity += np.bincount(
            item, POPULARITY_WEIGHTS[rows.kind], minlength=len(self._popularity)
        )
        system = self.scenario.system[np.maximum(visits.category, 0)]
        size = np.where(visits.size >= 0, SIZE_OFFSET[system] + visits.size, -1)
        log = EventLog(
            shopper=visits.shopper[rows.visit],
            item=item,
            kind=rows.kind,
            time=rows.time,
            session=self._sessions + rows.visit,
            request=np.full(len(rows), -1) if request is None else request[rows.visit],
            wanted=visits.wanted[rows.visit],
            wanted_size=size[rows.visit],
            price=np.round(self.stock.price[item].astype(np.float64) * rows.discount, 2),
        )
        self._sessions += len(visits)
        self.day += 1
        return log.take(np.lexsort((log.item, log.shopper, log.time)))

    def _report(self, log: EventLog) -> EventLog:
        """Of the events decided on the day that was closed, and those that were late, the known."""
        if not self.settings.purchase_delay_hours:
            return log
        if self._late is not None:
            log = self._late.joined_with(log)
        is_late = log.time >= self.day * MICROSECONDS_PER_DAY
        self._late = log.take(is_late)
        log = log.take(~is_late)
        return log.take(np.lexsort((log.item, log.shopper, log.time)))

    def _events(self, log: EventLog) -> pa.Table:
        users, items = len(self.shoppers), len(self.stock)
        sessions, session = np.unique(log.session, return_inverse=True)
        return pa.table(
            {
                "user_id": labels(user_ids(np.arange(users)), log.shopper),
                "item_id": labels(item_ids(np.arange(items)), log.item),
                "event_type": labels(choice.EVENT_TYPES, log.kind),
                "event_time": pa.array(log.time + self._start_us, pa.timestamp("us", tz="UTC")),
                "session_id": labels([f"visit-{i:08d}" for i in sessions.tolist()], session),
                "request_id": labels(self._request_ids, log.request),
                "surface": labels(choice.SURFACES, (log.wanted > 0).astype(np.int64)),
                "price": pa.array(log.price, pa.float64()),
                "wanted_category": labels(choice.WANTED, log.wanted),
                "wanted_size": labels(["", *SIZE_LABELS], log.wanted_size + 1),
            }
        )


def _without_repeats(slots: Ints) -> Ints:
    """Replace later repeats of a slot within a row of ``slots`` [V, L] by -1."""
    order = np.argsort(slots, axis=1, kind="stable")
    ordered = np.take_along_axis(slots, order, axis=1)
    repeat = np.zeros_like(slots, dtype=np.bool_)
    repeat[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = np.zeros_like(repeat)
    np.put_along_axis(repeated, order, repeat, axis=1)
    return np.where(repeated, -1, slots)
