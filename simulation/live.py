"""One live day of the simulated marketplace, on which some visits request recommendations."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit.errors import UsageError
from simulation import choice
from simulation.choice import Interactions, LiveListings, Visits
from simulation.rows import row_of
from simulation.scenario import Floats, Ints, Scenario
from simulation.shoppers import Shoppers, user_ids
from simulation.stock import SIZE_LABELS, SIZE_OFFSET, item_ids

Recommend = Callable[
    [str, dict[str, str], list[dict[str, Any]], int, datetime], tuple[str, Sequence[str]]
]
"""``recommend(user_id, context, history, k, time) -> (request_id, item ids, best first)``."""

PastEvents = Callable[[int], tuple[Ints, Ints, Ints]]
"""Item rows, event type codes and times of a shopper's events before the day, in order of time."""

HISTORY_LENGTH = 50
"""How many events of a shopper a request contains at most."""
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class ScoredAnswer:
    """An answer to one visit, and its true quality; see ``marketplace.Day.requests``."""

    visit: int
    request_id: str
    shown: int
    not_on_sale: int
    chance_of_sale: float
    organic_chance: float
    perfect_chance: float
    random_chance: float


class LiveDay:
    """A live day in progress: visits that browse are complete, requests are answered in turn.

    Args:
        scenario: The ground truth of the market.
        shoppers: All shoppers.
        day: Number of the day; 0 is the first simulated day.
        listings: The live listings of the day.
        visits: The visits of the day.
        organic: The interactions of the visits that browse.
        past_events: Looks up the earlier events of a shopper.
    """

    def __init__(
        self,
        scenario: Scenario,
        shoppers: Shoppers,
        day: int,
        listings: LiveListings,
        visits: Visits,
        organic: Interactions,
        past_events: PastEvents,
    ) -> None:
        self.listings = listings
        self.visits = visits
        self.answers: list[ScoredAnswer] = []
        self._scenario = scenario
        self._shoppers = shoppers
        self._day = day
        self._past_events = past_events
        self._conversion = scenario.conversion(day)
        self._interactions = [organic]
        self._slot_of = {item: slot for slot, item in enumerate(listings.item.tolist())}
        self._decided_at = np.where(listings.reserved, -_NEVER, _NEVER)
        self._sold_at = np.full(len(listings), _NEVER)
        self._reported = np.zeros(len(listings), dtype=np.bool_)
        bought = organic.kind == choice.PURCHASE
        np.minimum.at(self._decided_at, organic.slot[bought], organic.time[bought])
        decided = (self._decided_at < _NEVER) & ~listings.reserved
        self._sold_at[decided] = self._decided_at[decided] + listings.delay[decided]
        shopper = visits.shopper[organic.visit]
        order = np.lexsort((organic.time, shopper))
        self._organic, self._organic_shopper = organic.take(order), shopper[order]
        self._recent: dict[int, list[Interactions]] = {}

    def interactions(self) -> Interactions:
        """All interactions so far; a listing may be bought twice in them."""
        return self._interactions[0].joined_with(*self._interactions[1:])

    def answer_requests(
        self,
        recommend: Recommend,
        requests: Sequence[tuple[int, Ints]],
        k: int,
        on_delisted: Callable[[list[str]], None] | None,
        call: Callable[..., Iterable[tuple[str, list[str]]]] = map,
    ) -> None:
        """Get recommendations for some visits at the same time, then simulate what they do.

        Args:
            recommend: See ``Marketplace.simulate_day``.
            requests: Rows of the visits, in order of time, each with the [L] slots of the list
                that it would have browsed instead.
            k: How many items to request.
            on_delisted: Called with the items that were delisted by the time of the first visit.
            call: Calls ``recommend`` with lists of its arguments, as ``map`` does.
        """
        visits = [self.visits.take(np.array([row])) for row, _ in requests]
        if on_delisted and (delisted := self.take_delisted(int(visits[0].time[0]))):
            on_delisted(delisted)
        arguments = [self._request(visit, k) for visit in visits]
        answers = call(recommend, *zip(*arguments, strict=True))
        for (row, organic), visit, answer in zip(requests, visits, answers, strict=True):
            self._interact(row, visit, answer, k, organic[:k])

    def _request(
        self, visit: Visits, k: int
    ) -> tuple[str, dict[str, str], list[dict[str, Any]], int, datetime]:
        time, shopper = int(visit.time[0]), int(visit.shopper[0])
        return (
            user_ids(visit.shopper)[0],
            self._context(visit),
            self._history(shopper, time),
            k,
            self._scenario.settings.starts_at + timedelta(microseconds=time),
        )

    def _interact(
        self, row: int, visit: Visits, answer: tuple[str, list[str]], k: int, organic: Ints
    ) -> None:
        request_id, items = answer
        shown = self.slots(items[:k])
        slots = np.full(k, -1)
        slots[: len(shown)] = self._mask_unavailable(visit, shown)
        rng = self._scenario.stream(f"request {row}", self._day)
        new = choice.simulate_interactions(
            rng, self._shoppers, self.listings, visit, slots[None, :], self._conversion
        )
        new.visit[:] = row
        bought = new.kind == choice.PURCHASE
        until = np.where(bought, self._decided_at[new.slot], self._sold_at[new.slot])
        new = new.take(new.time <= until)
        bought = new.kind == choice.PURCHASE
        sold = new.slot[bought]
        self._decided_at[sold] = new.time[bought]
        self._sold_at[sold] = new.time[bought] + self.listings.delay[sold]
        self._interactions.append(new)
        self._recent.setdefault(int(visit.shopper[0]), []).append(new)

        time, value = int(visit.time[0]), self.utilities(visit)
        available = self.available(visit)
        available = available[self._decided_at[available] > time]
        best = -_find_smallest(-value[available], k)
        viewed = choice.event_chance(value[available], choice.VIEW)
        bought = viewed * choice.event_chance(value[available], choice.PURCHASE)
        bought *= np.float32(self._conversion)
        examined = choice.examination_chance(k)
        self.answers.append(
            ScoredAnswer(
                visit=row,
                request_id=request_id,
                shown=len(shown),
                not_on_sale=int((slots[: len(shown)] < 0).sum()),
                chance_of_sale=self._chance_of_sale(value, slots, time),
                organic_chance=self._chance_of_sale(
                    value, self._mask_unavailable(visit, organic), time
                ),
                perfect_chance=float(choice.chance_of_sale(best, self._conversion)),
                random_chance=float(1 - np.prod(1 - examined * bought.mean())),
            )
        )

    def take_delisted(self, time: int) -> list[str]:
        """Ids of the items that were delisted up to a time and were not returned before."""
        delisted = np.minimum(self._sold_at, self.listings.delisted_at) <= time
        delisted &= ~self._reported
        self._reported |= delisted
        return item_ids(self.listings.item[delisted])

    def slots(self, items: Sequence[str]) -> Ints:
        """[N] rows of ``items`` in the live listings; -1 for an unknown or repeated item."""
        found = np.array([self._slot_of.get(_item_row(item), -1) for item in items], dtype=np.int64)
        _, first = np.unique(found, return_index=True)
        slots = np.full(len(found), -1)
        slots[first] = found[first]
        return slots

    def utilities(self, visit: Visits) -> Floats:
        """[N] true utility of every live listing for one visit."""
        return choice.utility(self._shoppers, self.listings, visit, None).ravel()

    def available(self, visit: Visits) -> Ints:
        """Rows of the live listings that one visit can buy."""
        return np.flatnonzero(self._is_available(visit))

    def requests_table(self, bought: Ints) -> pa.Table:
        """Build ``marketplace.Day.requests``; ``bought`` are rows of the visits that bought."""
        rows = np.array([answer.visit for answer in self.answers], dtype=np.int64)
        visits = self.visits.take(rows)
        contexts = [self._context(visits.take(np.array([i]))) for i in range(len(visits))]
        start_us = int(self._scenario.settings.starts_at.timestamp()) * 1_000_000
        return pa.table(
            {
                "request_id": pa.array([a.request_id for a in self.answers], pa.string()),
                "user_id": pa.array(user_ids(visits.shopper), pa.string()),
                "time": pa.array(visits.time + start_us, pa.timestamp("us", tz="UTC")),
                **{
                    name: pa.array([context[name] for context in contexts], pa.string())
                    for name in ("surface", "wanted_category", "wanted_size")
                },
                "shown": pa.array([a.shown for a in self.answers], pa.int64()),
                "not_on_sale": pa.array([a.not_on_sale for a in self.answers], pa.int64()),
                "bought": pa.array(np.isin(rows, bought)),
                **{
                    name: pa.array([getattr(a, name) for a in self.answers], pa.float64())
                    for name in (
                        "chance_of_sale",
                        "organic_chance",
                        "perfect_chance",
                        "random_chance",
                    )
                },
            }
        )

    def _mask_unavailable(self, visit: Visits, slots: Ints) -> Ints:
        return np.where((slots >= 0) & self._is_available(visit)[slots], slots, -1)

    def _is_available(self, visit: Visits) -> NDArray[np.bool_]:
        """[N] which of the live listings one visit can buy."""
        available = choice.find_available(self.listings, visit)[0]
        return np.asarray(available & (self._sold_at > visit.time[0]))

    def _chance_of_sale(self, value: Floats, slots: Ints, time: int) -> float:
        can_be_bought = (slots >= 0) & (self._decided_at[slots] > time)
        shown = np.where(can_be_bought, value[slots], choice.NOT_SHOWN)
        return float(choice.chance_of_sale(shown, self._conversion))

    def _history(self, shopper: int, time: int) -> list[dict[str, Any]]:
        """The shopper's latest events strictly before a time, newest first."""
        item, kind, when = self._past_events(shopper)
        low, high = np.searchsorted(self._organic_shopper, (shopper, shopper + 1))
        parts = [self._organic.take(slice(low, high)), *self._recent.get(shopper, [])]
        today = parts[0].joined_with(*parts[1:]) if len(parts) > 1 else parts[0]
        if len(today):
            delay = np.where(today.kind == choice.PURCHASE, self.listings.delay[today.slot], 0)
            known_at = today.time + delay
            known = (known_at < time) & (known_at <= self._sold_at[today.slot])
            today, known_at = today.take(known), known_at[known]
            item = np.concatenate([item, self.listings.item[today.slot]])
            kind, when = np.concatenate([kind, today.kind]), np.concatenate([when, known_at])
        latest = np.argsort(-when, kind="stable")[:HISTORY_LENGTH]
        start = self._scenario.settings.starts_at
        return [
            {
                "item_id": name,
                "event_type": choice.EVENT_TYPES[code],
                "event_time": start + timedelta(microseconds=at),
            }
            for name, code, at in zip(
                item_ids(item[latest]), kind[latest].tolist(), when[latest].tolist(), strict=True
            )
        ]

    def _context(self, visit: Visits) -> dict[str, str]:
        """The context columns of one visit."""
        category, size = int(visit.category[0]), int(visit.size[0])
        offset = SIZE_OFFSET[self._scenario.system[category]]
        return {
            "surface": choice.SURFACES[int(visit.surface[0])],
            "wanted_category": choice.WANTED[int(visit.wanted[0])],
            "wanted_size": SIZE_LABELS[offset + size] if size >= 0 else "",
        }


def _find_smallest(values: Floats, k: int) -> Floats:
    """The k smallest values, the smallest first."""
    if k < len(values):
        values = np.partition(values, k)[:k]
    return np.sort(values)


def _item_row(item: str) -> int:
    try:
        return row_of(item, "item-")
    except UsageError:
        return -1
