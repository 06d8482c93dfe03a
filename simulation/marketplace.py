"""The simulated marketplace: a batch past, and days that a recommender can live through."""

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
from simulation.choice import Acts, StockOnSale, Visits
from simulation.live import LiveDay, Recommend
from simulation.rows import Rows, labels
from simulation.scenario import CATEGORIES, DEPARTMENTS, SYSTEM_LENGTHS, Ints, Scenario
from simulation.settings import SimulationSettings, read_settings
from simulation.shoppers import MICROSECONDS_A_DAY, shoppers_of_day, user_ids, users_table
from simulation.stock import SIZE_LABELS, SIZE_OFFSET, item_ids, items_table, stock_of_day

CONTEXT_COLUMNS = ("surface", "wanted_category", "wanted_size")
USER_COLUMNS = ("department", "size", "shoe_size", "country", "age", "joined_at")
POPULARITY_KEPT_A_DAY = 0.85
MOST_SIZES = int(SYSTEM_LENGTHS.max())
POPULARITY_WEIGHTS = np.array([1.0, 3.0, 4.0, 5.0, 0.0])


@dataclass
class EventLog(Rows):
    """Events in order of time; the columns are codes, see ``Marketplace.events_table``."""

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
    """What a simulated live day brought.

    Attributes:
        day: Its number; 0 is the first simulated day.
        date: Its midnight, UTC.
        events: Contract columns plus context; ``request_id`` where a recommended list was acted on.
        listed: The day's new listings, in items columns.
        delisted: item_id, delisted_at, sold (else withdrawn).
        joined: New users, in users columns.
        requests: One row a request: request_id, user_id, time, the context, shown (slots),
            not_on_sale (slots with a listing that was unknown, own, or not on sale), bought,
            chance_of_sale (the true one of the list shown) and what it would have been with the
            organic list (organic_chance), the best one (perfect_chance) and one drawn at random
            (random_chance).
    """

    day: int
    date: datetime
    events: pa.Table
    listed: pa.Table
    delisted: pa.Table
    joined: pa.Table
    requests: pa.Table


class Marketplace:
    """A simulated second-hand marketplace that has lived its batch past.

    The same settings give the same past; live days also depend on what is recommended. Between
    two days it can be pickled, and goes on from there.

    Args:
        settings: Simulation settings, or their plain values (``preset`` allowed).

    Attributes:
        day: The next day to live; 0 is the first simulated day.
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
        self._request_ids: list[str] = []
        self._start_us = int(settings.starts_at.timestamp()) * 1_000_000
        days = []
        with Meter("simulated days", settings.days, "days") as progress:
            for _ in range(settings.days):
                days.append(self._live_organically())
                progress.advance()
        self.today: LiveDay | None = None
        self._by_shopper: tuple[Ints, Ints] | None = None
        self._past = days[0].joined_with(*days[1:])

    @property
    def now(self) -> datetime:
        """Midnight, UTC, of the next day to live."""
        return self.settings.starts_at + timedelta(days=self.day)

    def truth(self) -> list[dict[str, Any]]:
        """The changes that were ordered: name, day, date, strength, and what should be seen."""
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
        """All events so far, in the columns of the contract plus the context columns."""
        return self._events(self._past)

    def items_table(self) -> pa.Table:
        """All listings so far; what will become of those on sale is null."""
        until = self.day * MICROSECONDS_A_DAY
        rows = np.flatnonzero(self.stock.listed_at < until)
        return items_table(self.stock, rows, self._start_us, until)

    def users_table(self) -> pa.Table:
        """All users so far, sellers among them."""
        rows = np.flatnonzero(self.shoppers.joined_at < self.day * MICROSECONDS_A_DAY)
        return users_table(self.shoppers, rows, self._start_us)

    def past_of(self, shopper: int) -> tuple[Ints, Ints, Ints]:
        """Item rows, event type codes and times of a shopper's events before today, in order."""
        if self._by_shopper is None:
            order = np.argsort(self._past.shopper, kind="stable")
            self._by_shopper = order, self._past.shopper[order]
        order, ordered = self._by_shopper
        low, high = np.searchsorted(ordered, [shopper, shopper + 1])
        rows = order[low:high]
        return self._past.item[rows], self._past.kind[rows], self._past.time[rows]

    def live_day(
        self,
        recommend: Recommend,
        k: int = 10,
        on_gone: Callable[[list[str]], None] | None = None,
        at_once: int = 1,
    ) -> Day:
        """Live the next day; some visits ask ``recommend``, the others browse as ever.

        Args:
            recommend: Called once for each of ``requests_per_day`` visits, in order of time, with
                the user id, the context, the latest events before that time (newest first, each
                with item_id, event_type, event_time), k and the time.
            k: How many items are asked for; what is answered beyond them is not shown.
            on_gone: Called before a request, and at the day's end, with the ids of listings sold or
                withdrawn since the last call, as a shop's index would learn of them.
            at_once: So many visits ask at the same moment, each from a thread of its own; which
                ones follows from the settings alone.

        Raises:
            BaseException: Whatever ``recommend`` or ``on_gone`` raise; the day has then not been
                lived and can be tried again.
        """
        before = self.shoppers, self.stock, self._popularity
        try:
            today = self._begin()
            with ThreadPoolExecutor(at_once) as threads:
                call = threads.map if at_once > 1 else map
                for asking in batched(today.asking, at_once):
                    today.ask(recommend, asking, k, on_gone, call)
            if on_gone and (gone := today.gone_by((self.day + 1) * MICROSECONDS_A_DAY - 1)):
                on_gone(gone)
            return self._end(today)
        except BaseException:
            self.shoppers, self.stock, self._popularity = before
            raise
        finally:
            self._by_shopper, self.today = None, None

    def _begin(self) -> LiveDay:
        """Let the day come, and those who browse do what they will."""
        on_sale, visits = self._open()
        organic = self._organic_lists(on_sale, visits)
        n = min(self.settings.requests_per_day, len(visits))
        asking = self.scenario.stream("requests", self.day).permutation(len(visits))[:n]
        asking.sort()
        browsing = organic.copy()
        browsing[asking] = -1
        rng = self.scenario.stream("reactions", self.day)
        acts = choice.react(rng, self.shoppers, on_sale, visits, browsing)
        requests = list(zip(asking.tolist(), organic[asking], strict=True))
        self.today = LiveDay(self, on_sale, visits, acts, requests)
        return self.today

    def _end(self, today: LiveDay) -> Day:
        day, date = self.day, self.now
        start, end = day * MICROSECONDS_A_DAY, (day + 1) * MICROSECONDS_A_DAY
        request = np.full(len(today.visits), -1)
        request[[answer.visit for answer in today.answers]] = len(self._request_ids) + np.arange(
            len(today.answers)
        )
        self._request_ids += [answer.request_id for answer in today.answers]
        sessions = self._sessions
        log = self._close(today.on_sale, today.visits, today.acts(), request)
        bought = log.session[log.kind == choice.PURCHASE] - sessions
        self._past = self._past.joined_with(log)
        listed = np.flatnonzero((self.stock.listed_at >= start) & (self.stock.listed_at < end))
        gone = np.flatnonzero((self.stock.gone_at >= start) & (self.stock.gone_at < end))
        joined = np.flatnonzero(self.shoppers.joined_at >= start)
        return Day(
            day=day,
            date=date,
            events=self._events(log),
            listed=items_table(self.stock, listed, self._start_us, int(self.stock.listed_at.min())),
            delisted=pa.table(
                {
                    "item_id": pa.array(item_ids(gone), pa.string()),
                    "delisted_at": pa.array(
                        self.stock.gone_at[gone] + self._start_us, pa.timestamp("us", tz="UTC")
                    ),
                    "sold": pa.array(self.stock.sold[gone]),
                }
            ),
            joined=users_table(self.shoppers, joined, self._start_us),
            requests=today.requests_table(bought),
        )

    def _live_organically(self) -> EventLog:
        on_sale, visits = self._open()
        slots = self._organic_lists(on_sale, visits)
        rng = self.scenario.stream("reactions", self.day)
        acts = choice.react(rng, self.shoppers, on_sale, visits, slots)
        return self._close(on_sale, visits, acts)

    def _open(self) -> tuple[StockOnSale, Visits]:
        """Let the day's shoppers join and its listings appear."""
        newcomers = shoppers_of_day(self.scenario, self.day)
        if len(newcomers):
            self.shoppers = self.shoppers.joined_with(newcomers)
        listings = stock_of_day(self.scenario, self.shoppers, self.day)
        self.stock = self.stock.joined_with(listings)
        self._popularity = np.concatenate([self._popularity, np.zeros(len(listings))])
        visits = choice.visits_of_day(self.scenario, self.shoppers, self.day)
        return choice.shelf_of_day(self.scenario, self.stock, self.day), visits

    def _organic_lists(self, on_sale: StockOnSale, visits: Visits) -> Ints:
        """[V, L] slots on sale, drawn by popularity and newness among what is asked for."""
        rng = self.scenario.stream("organic", self.day)
        noon = self.day * MICROSECONDS_A_DAY + MICROSECONDS_A_DAY // 2
        age = np.maximum(noon - on_sale.listed_at, 0) / MICROSECONDS_A_DAY
        weight = (0.4 + np.exp(-age / 3.0)) * (1.0 + self._popularity[on_sale.item]) ** 0.5
        total = np.concatenate([[0.0], np.cumsum(weight)])
        own = self.shoppers.department[visits.shopper]
        start, end = self._asked_for(on_sale, visits, np.where(rng.random(len(own)) < 0.7, own, -1))
        drawn = rng.random((len(visits), self.settings.list_length))
        drawn = total[start][:, None] + drawn * (total[end] - total[start])[:, None]
        slots = np.searchsorted(total, drawn, side="right") - 1
        slots = np.minimum(slots, np.maximum(end - 1, 0)[:, None])
        slots[start == end] = -1
        return choice.on_sale(on_sale, visits, _without_repeats(slots))

    def _asked_for(self, on_sale: StockOnSale, visits: Visits, front: Ints) -> tuple[Ints, Ints]:
        """[V] start and end of the stretch of the stock on sale that each visit asks for.

        Args:
            on_sale: Ordered by category, and so by department, then size.
            visits: What is asked for.
            front: [V] the department that a front page shows, -1 for all of them.
        """
        department = np.where(visits.department < 0, front, visits.department)
        whole = np.arange(len(DEPARTMENTS))
        first = np.searchsorted(self.scenario.department, whole)[department]
        last = np.searchsorted(self.scenario.department, whole, side="right")[department]
        everything, asked = department < 0, visits.category >= 0
        first = np.where(everything, 0, np.where(asked, visits.category, first))
        last = np.where(everything, len(CATEGORIES), np.where(asked, visits.category + 1, last))
        sized = visits.size >= 0
        low = first * MOST_SIZES + np.where(sized, visits.size, 0)
        high = np.where(sized, low + 1, last * MOST_SIZES)
        key = on_sale.category * MOST_SIZES + on_sale.size
        return np.searchsorted(key, low), np.searchsorted(key, high)

    def _close(
        self, on_sale: StockOnSale, visits: Visits, acts: Acts, request: Ints | None = None
    ) -> EventLog:
        """Sell each listing to the first who buys it, and drop what came after on it."""
        acts = acts.take(np.lexsort((acts.kind, acts.slot, acts.time)))
        bought = acts.kind == choice.PURCHASE
        sold_at = np.full(len(on_sale), np.iinfo(np.int64).max)
        np.minimum.at(sold_at, acts.slot[bought], acts.time[bought])
        kept = acts.time < sold_at[acts.slot]
        sale = np.flatnonzero(bought & (acts.time == sold_at[acts.slot]))
        sale = sale[np.unique(acts.slot[sale], return_index=True)[1]]  # a tie sells once
        kept[sale] = True
        acts = acts.take(kept)

        sold = sold_at < np.iinfo(np.int64).max
        self.stock.gone_at[on_sale.item[sold]] = sold_at[sold]
        self.stock.sold[on_sale.item[sold]] = True
        item = on_sale.item[acts.slot]
        self._popularity *= POPULARITY_KEPT_A_DAY
        self._popularity += np.bincount(
            item, POPULARITY_WEIGHTS[acts.kind], minlength=len(self._popularity)
        )
        system = self.scenario.system[np.maximum(visits.category, 0)]
        size = np.where(visits.size >= 0, SIZE_OFFSET[system] + visits.size, -1)
        log = EventLog(
            shopper=visits.shopper[acts.visit],
            item=item,
            kind=acts.kind,
            time=acts.time,
            session=self._sessions + acts.visit,
            request=np.full(len(acts), -1) if request is None else request[acts.visit],
            wanted=visits.wanted[acts.visit],
            wanted_size=size[acts.visit],
            price=np.round(self.stock.price[item].astype(np.float64) * acts.discount, 2),
        )
        self._sessions += len(visits)
        self.day += 1
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
    """Each row with later repeats of a slot replaced by -1, places kept."""
    order = np.argsort(slots, axis=1, kind="stable")
    ordered = np.take_along_axis(slots, order, axis=1)
    repeat = np.zeros_like(slots, dtype=np.bool_)
    repeat[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    again = np.zeros_like(repeat)
    np.put_along_axis(again, order, repeat, axis=1)
    return np.where(again, -1, slots)
