"""One simulated live day, request by request: what was asked, answered, and done about it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from refit.errors import UsageError
from simulation import choice
from simulation.choice import Acts, StockOnSale, Visits
from simulation.rows import row_of
from simulation.scenario import Floats, Ints
from simulation.shoppers import user_ids
from simulation.stock import SIZE_LABELS, SIZE_OFFSET, item_ids

if TYPE_CHECKING:
    from simulation.marketplace import Marketplace

Recommend = Callable[
    [str, dict[str, str], list[dict[str, Any]], int, datetime], tuple[str, Sequence[str]]
]
"""``recommend(user_id, context, history, k, time) -> (request_id, item ids, best first)``."""

HISTORY_SHOWN = 50
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class ScoredAnswer:
    """A recommender's answer to one visit and how good it truly was."""

    visit: int
    request_id: str
    shown: int
    not_on_sale: int
    chance_of_sale: float
    organic_chance: float
    perfect_chance: float
    random_chance: float


class LiveDay:
    """A live day in the making: the organic part is known, requests are answered one by one.

    Args:
        market: The simulated marketplace.
        on_sale: What is on sale that day.
        visits: Who comes.
        organic: What those do who browse; the rest asks.
        asking: Rows of the visits that ask, in order of time, each with the [L] slots that it
            would have browsed instead.
    """

    def __init__(
        self,
        market: "Marketplace",
        on_sale: StockOnSale,
        visits: Visits,
        organic: Acts,
        asking: Sequence[tuple[int, Ints]] = (),
    ) -> None:
        self.market = market
        self.on_sale = on_sale
        self.visits = visits
        self.asking = asking
        self.answers: list[ScoredAnswer] = []
        self._acts = [organic]
        self._slot_of = {item: slot for slot, item in enumerate(on_sale.item.tolist())}
        self._sold_at = np.full(len(on_sale), _NEVER)
        self._reported = np.zeros(len(on_sale), dtype=np.bool_)
        bought = organic.kind == choice.PURCHASE
        np.minimum.at(self._sold_at, organic.slot[bought], organic.time[bought])
        self._organic = organic.take(np.argsort(organic.time, kind="stable"))
        self._recent: dict[int, list[Acts]] = {}

    def acts(self) -> Acts:
        """What everybody did so far; a listing may still be bought twice in it."""
        return self._acts[0].joined_with(*self._acts[1:])

    def ask(
        self,
        recommend: Recommend,
        asking: Sequence[tuple[int, Ints]],
        k: int,
        on_gone: Callable[[list[str]], None] | None,
        call: Callable[..., Iterable[tuple[str, list[str]]]] = map,
    ) -> None:
        """Ask the recommender for some visits, and let each shopper react in turn.

        None of these visits is asked for with what the others among them lead to.

        Args:
            recommend: See ``Marketplace.live_day``.
            asking: Visits, in order of time, and what each would have browsed.
            k: How many items are asked for.
            on_gone: Told of what is gone by the first of the visits.
            call: Calls ``recommend`` with lists of its arguments, as ``map`` does.
        """
        ones = [self.visits.take(np.array([visit])) for visit, _ in asking]
        if on_gone and (gone := self.gone_by(int(ones[0].time[0]))):
            on_gone(gone)
        requests = [self._request(one, k) for one in ones]
        answers = call(recommend, *zip(*requests, strict=True))
        for (visit, organic), one, answer in zip(asking, ones, answers, strict=True):
            self._react(visit, one, answer, k, organic[:k])

    def _request(
        self, one: Visits, k: int
    ) -> tuple[str, dict[str, str], list[dict[str, Any]], int, datetime]:
        time, shopper = int(one.time[0]), int(one.shopper[0])
        return (
            user_ids(one.shopper)[0],
            context_of(self.market, one),
            self._history(shopper, time),
            k,
            self.market.settings.starts_at + timedelta(microseconds=time),
        )

    def _react(
        self, visit: int, one: Visits, answer: tuple[str, list[str]], k: int, organic: Ints
    ) -> None:
        request_id, items = answer
        asked = self.slots(items[:k])
        slots = np.full(k, -1)
        slots[: len(asked)] = self._unsold(one, asked)
        rng = self.market.scenario.stream(f"request {visit}", self.market.day)
        acts = choice.react(rng, self.market.shoppers, self.on_sale, one, slots[None, :])
        acts.visit[:] = visit
        acts = acts.take(acts.time <= self._sold_at[acts.slot])
        bought = acts.kind == choice.PURCHASE
        self._sold_at[acts.slot[bought]] = acts.time[bought]
        self._acts.append(acts)
        self._recent.setdefault(int(one.shopper[0]), []).append(acts)

        value = self.values(one)
        on_sale = np.flatnonzero(self._unsold(one, np.arange(len(value))) >= 0)
        best = -np.sort(-value[on_sale])[:k]
        bought_if_looked_at = choice.chance(value[on_sale], choice.VIEW) * choice.chance(
            value[on_sale], choice.PURCHASE
        )
        self.answers.append(
            ScoredAnswer(
                visit=visit,
                request_id=request_id,
                shown=len(asked),
                not_on_sale=int((slots[: len(asked)] < 0).sum()),
                chance_of_sale=self._chance(value, slots),
                organic_chance=self._chance(value, self._unsold(one, organic)),
                perfect_chance=float(choice.chance_of_sale(best)),
                random_chance=float(1 - np.prod(1 - choice.look(k) * bought_if_looked_at.mean())),
            )
        )

    def gone_by(self, time: int) -> list[str]:
        """Ids of listings sold or withdrawn up to a time and not told of before."""
        gone = (np.minimum(self._sold_at, self.on_sale.gone_at) <= time) & ~self._reported
        self._reported |= gone
        return item_ids(self.on_sale.item[gone])

    def slots(self, items: Sequence[str]) -> Ints:
        """[N] rows of item ids in the stock on sale, each once; -1 where it is not there."""
        found = [self._slot_of.get(_item_row(item), -1) for item in items]
        return np.array(
            [-1 if slot in found[:place] else slot for place, slot in enumerate(found)],
            dtype=np.int64,
        )

    def values(self, one: Visits) -> Floats:
        """[N] true utility of everything of the stock on sale to one visit."""
        everything = np.arange(len(self.on_sale))[None, :]
        return choice.utility(self.market.shoppers, self.on_sale, one, everything).ravel()

    def unsold(self, one: Visits) -> Ints:
        """Rows of the stock on sale that one visit could buy."""
        slots = self._unsold(one, np.arange(len(self.on_sale)))
        return slots[slots >= 0]

    def requests_table(self, sold_to: Ints) -> pa.Table:
        """One row a request, see ``simulation.marketplace.Day``; ``sold_to`` are visits."""
        rows = np.array([answer.visit for answer in self.answers], dtype=np.int64)
        asked = self.visits.take(rows)
        contexts = [context_of(self.market, asked.take(np.array([i]))) for i in range(len(asked))]
        start_us = int(self.market.settings.starts_at.timestamp()) * 1_000_000
        return pa.table(
            {
                "request_id": pa.array([a.request_id for a in self.answers], pa.string()),
                "user_id": pa.array(user_ids(asked.shopper), pa.string()),
                "time": pa.array(asked.time + start_us, pa.timestamp("us", tz="UTC")),
                **{
                    name: pa.array([context[name] for context in contexts], pa.string())
                    for name in ("surface", "wanted_category", "wanted_size")
                },
                "shown": pa.array([a.shown for a in self.answers], pa.int64()),
                "not_on_sale": pa.array([a.not_on_sale for a in self.answers], pa.int64()),
                "bought": pa.array(np.isin(rows, sold_to)),
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

    def _unsold(self, one: Visits, slots: Ints) -> Ints:
        fine = choice.on_sale(self.on_sale, one, slots[None, :])[0]
        return np.where((fine >= 0) & (self._sold_at[fine] > one.time[0]), fine, -1)

    def _chance(self, value: Floats, slots: Ints) -> float:
        shown = np.where(slots >= 0, value[slots], choice.NOT_SHOWN)
        return float(choice.chance_of_sale(shown))

    def _history(self, shopper: int, time: int) -> list[dict[str, Any]]:
        """The shopper's latest events strictly before a time, newest first."""
        here = (self.visits.shopper[self._organic.visit] == shopper) & (self._organic.time < time)
        parts = [self._organic.take(here), *self._recent.get(shopper, [])]
        acts = parts[0].joined_with(*parts[1:])
        acts = acts.take((acts.time < time) & (acts.time <= self._sold_at[acts.slot]))
        item, kind, when = self.market.past_of(shopper)
        item = np.concatenate([item, self.on_sale.item[acts.slot]])
        kind, when = np.concatenate([kind, acts.kind]), np.concatenate([when, acts.time])
        latest = np.argsort(-when, kind="stable")[:HISTORY_SHOWN]
        start = self.market.settings.starts_at
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


def context_of(market: "Marketplace", one: Visits) -> dict[str, str]:
    """The context columns of one visit, as a request states them."""
    category, size = int(one.category[0]), int(one.size[0])
    offset = SIZE_OFFSET[market.scenario.system[category]]
    return {
        "surface": choice.SURFACES[int(one.surface[0])],
        "wanted_category": choice.WANTED[int(one.wanted[0])],
        "wanted_size": SIZE_LABELS[offset + size] if size >= 0 else "",
    }


def _item_row(item: str) -> int:
    try:
        return row_of(item, "item-")
    except UsageError:
        return -1
