"""An oracle: the true utility of any list, and the best and a random list.

It is used by tests, and to measure what a perfect and a random recommender would sell.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation import choice
from simulation.choice import Interactions, Visits
from simulation.live import LiveDay, Recommend
from simulation.marketplace import Marketplace
from simulation.shoppers import MICROSECONDS_PER_DAY, user_row
from simulation.stock import item_ids

Context = Mapping[str, str]


class Oracle:
    """Answers from the ground truth of a simulated marketplace.

    Args:
        market: The marketplace. During a live day, the oracle knows its sales so far.
    """

    def __init__(self, market: Marketplace) -> None:
        self.market = market
        self._cached: tuple[int, LiveDay] | None = None

    def utilities(
        self,
        user_id: str,
        context: Context,
        items: Sequence[str],
        time: datetime,
        if_available: bool = True,
    ) -> NDArray[np.float64]:
        """[N] true utility of ``items`` for a shopper; NaN for an item that is not available.

        With ``if_available`` false, NaN only for an item that is not live at any time of that day.
        """
        day, visit = self._open_day(user_id, context, time)
        slots = day.slots(items)
        is_available = np.isin(slots, day.available(visit)) if if_available else slots >= 0
        return np.where(is_available, day.utilities(visit)[slots].astype(np.float64), np.nan)

    def chance_of_sale(
        self,
        user_id: str,
        context: Context,
        items: Sequence[str],
        time: datetime,
        if_available: bool = True,
    ) -> float:
        """True chance that a list of items, best first, ends in a purchase."""
        value = self.utilities(user_id, context, items, time, if_available)
        day = (time - self.market.settings.starts_at).days
        conversion = self.market.scenario.conversion(day)
        shown = np.nan_to_num(value, nan=float(choice.NOT_SHOWN))
        return float(choice.chance_of_sale(shown.astype(np.float32), conversion))

    def best(self, user_id: str, context: Context, k: int, time: datetime) -> list[str]:
        """The k available items of highest true utility, best first."""
        day, visit = self._open_day(user_id, context, time)
        slots = day.available(visit)
        best = slots[np.argsort(-day.utilities(visit)[slots], kind="stable")[:k]]
        return item_ids(day.listings.item[best])

    def sample(
        self, user_id: str, context: Context, k: int, time: datetime, rng: np.random.Generator
    ) -> list[str]:
        """K available items drawn at random."""
        day, visit = self._open_day(user_id, context, time)
        slots = day.available(visit)
        return item_ids(day.listings.item[rng.permutation(slots)[:k]])

    def _open_day(self, user_id: str, context: Context, time: datetime) -> tuple[LiveDay, Visits]:
        """The day of a time, and the visit of a shopper at that time as its only row."""
        market = self.market
        at = (time - market.settings.starts_at) // timedelta(microseconds=1)
        department, category, size = choice.read_context(context)
        visit = Visits(
            *(np.array([v]) for v in (user_row(user_id), at, department, category, size))
        )
        number = at // MICROSECONDS_PER_DAY
        if market.today and number == market.day:
            return market.today, visit
        if self._cached is None or self._cached[0] != number:
            listings = choice.live_listings_of_day(market.scenario, market.stock, number)
            nothing = Interactions(
                *(np.empty(0, dtype=kind) for kind in (int, int, int, int, np.float32))
            )
            day = LiveDay(
                market.scenario,
                market.shoppers,
                number,
                listings,
                visit,
                organic=nothing,
                past_events=market.events_of,
            )
            self._cached = number, day
        return self._cached[1], visit


def perfect_recommender(market: Marketplace) -> Recommend:
    """A ``recommend`` that knows the ground truth; no other list has a higher chance of a sale."""
    oracle = Oracle(market)

    def recommend(
        user_id: str, context: dict[str, str], _: list[dict[str, Any]], k: int, time: datetime
    ) -> tuple[str, list[str]]:
        return f"perfect-{user_id}-{time.isoformat()}", oracle.best(user_id, context, k, time)

    return recommend


def random_recommender(market: Marketplace, seed: int = 0) -> Recommend:
    """A ``recommend`` that draws available items at random."""
    oracle, rng = Oracle(market), np.random.default_rng(seed)

    def recommend(
        user_id: str, context: dict[str, str], _: list[dict[str, Any]], k: int, time: datetime
    ) -> tuple[str, list[str]]:
        return f"random-{user_id}-{time.isoformat()}", oracle.sample(user_id, context, k, time, rng)

    return recommend
