"""What the simulated truth knows: the utility of any list, and the best and a random one.

For tests and for saying what a perfect and a random recommender would have sold.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation import choice
from simulation.choice import Acts, Visits
from simulation.live import LiveDay, Recommend
from simulation.marketplace import Marketplace
from simulation.shoppers import MICROSECONDS_A_DAY, user_row
from simulation.stock import item_ids

Context = Mapping[str, str]


class Oracle:
    """Answers from the truth of a simulated marketplace.

    Args:
        market: The marketplace; during a live day its sales up to the minute are known.
    """

    def __init__(self, market: Marketplace) -> None:
        self.market = market
        self._day = -1
        self._moment: LiveDay | None = None

    def utilities(
        self, user_id: str, context: Context, items: Sequence[str], time: datetime
    ) -> NDArray[np.float64]:
        """[N] true utility of items to a shopper; NaN for what cannot be bought at that time."""
        moment, one = self._look(user_id, context, time)
        slots = moment.slots(items)
        fine = np.isin(slots, moment.unsold(one))
        return np.where(fine, moment.values(one)[slots].astype(np.float64), np.nan)

    def chance_of_sale(
        self, user_id: str, context: Context, items: Sequence[str], time: datetime
    ) -> float:
        """True chance that showing a list, best first, ends in a purchase."""
        value = self.utilities(user_id, context, items, time)
        return float(choice.chance_of_sale(np.nan_to_num(value, nan=float(choice.NOT_SHOWN))))

    def best(self, user_id: str, context: Context, k: int, time: datetime) -> list[str]:
        """The k items of highest true utility that can be bought, best first."""
        moment, one = self._look(user_id, context, time)
        slots = moment.unsold(one)
        best = slots[np.argsort(-moment.values(one)[slots], kind="stable")[:k]]
        return item_ids(moment.on_sale.item[best])

    def any(
        self, user_id: str, context: Context, k: int, time: datetime, rng: np.random.Generator
    ) -> list[str]:
        """K items drawn at random from what can be bought."""
        moment, one = self._look(user_id, context, time)
        slots = moment.unsold(one)
        return item_ids(moment.on_sale.item[rng.permutation(slots)[:k]])

    def _look(self, user_id: str, context: Context, time: datetime) -> tuple[LiveDay, Visits]:
        market = self.market
        at = (time - market.settings.starts_at) // timedelta(microseconds=1)
        department, category, size = choice.wish(context)
        one = Visits(*(np.array([v]) for v in (user_row(user_id), at, department, category, size)))
        day = at // MICROSECONDS_A_DAY
        if market.today and day == market.day:
            return market.today, one
        if self._moment is None or self._day != day:
            on_sale = choice.shelf_of_day(market.scenario, market.stock, day)
            nothing = Acts(*(np.empty(0, dtype=kind) for kind in (int, int, int, int, np.float32)))
            self._moment, self._day = LiveDay(market, on_sale, one, nothing), day
        return self._moment, one


def perfect_recommender(market: Marketplace) -> Recommend:
    """A ``recommend`` that knows the truth; nothing can sell more from one list."""
    oracle = Oracle(market)

    def recommend(
        user_id: str, context: dict[str, str], _: list[dict[str, Any]], k: int, time: datetime
    ) -> tuple[str, list[str]]:
        return f"perfect-{user_id}-{time.isoformat()}", oracle.best(user_id, context, k, time)

    return recommend


def random_recommender(market: Marketplace, seed: int = 0) -> Recommend:
    """A ``recommend`` that draws from what is on sale."""
    oracle, rng = Oracle(market), np.random.default_rng(seed)

    def recommend(
        user_id: str, context: dict[str, str], _: list[dict[str, Any]], k: int, time: datetime
    ) -> tuple[str, list[str]]:
        return f"random-{user_id}-{time.isoformat()}", oracle.any(user_id, context, k, time, rng)

    return recommend
