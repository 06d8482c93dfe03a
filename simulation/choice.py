"""How simulated shoppers choose: visits, the true utility of a listing, and what they do with it.

A shopper looks down a list. A slot is looked at with a chance that falls with its place; what is
looked at is viewed, liked, put in the cart, offered for or bought with chances that rise with its
utility; a purchase ends the visit. So the chance that a list sells has a closed form.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refit.errors import UsageError
from simulation.rows import Rows
from simulation.scenario import (
    CATEGORIES,
    DEPARTMENTS,
    SIZES,
    SYSTEM_LENGTHS,
    SYSTEMS,
    Floats,
    Ints,
    Scenario,
)
from simulation.shoppers import MICROSECONDS_A_DAY, Shoppers
from simulation.stock import Stock

TASTE, FASHION = 0.65, 1.9
OFF_TOPIC, ONE_SIZE_OFF, MISFIT = -5.0, -1.8, -5.0
VIEW, LIKE, CART, OFFER, PURCHASE = range(5)
EVENT_TYPES = ("view", "like", "cart", "offer", "purchase")
THRESHOLDS = np.array([0.7, 2.8, 4.0, 5.7, 6.3], dtype=np.float32)
SECONDS_AFTER_LOOK = np.array([0, 6, 15, 25, 60])
SECONDS_A_SLOT = 12
NOT_SHOWN = np.float32(-50.0)
"""Stands for the utility of an empty place."""
VISIT_MICROSECONDS = 1_800_000_000
WANTED = ("", *DEPARTMENTS, *(c.name for c in CATEGORIES))
"""Values of the context column ``wanted_category``; codes of visits index it."""
SURFACES = ("home", "search")


@dataclass
class Visits(Rows):
    """Simulated visits, one row each, in order of time; -1 stands for not stated.

    Attributes:
        shopper: [N] row of the shopper.
        time: [N] microseconds since the first midnight.
        department, category: [N] what is asked for: neither, a category_1, or a category_2.
        size: [N] the size asked for, an index in the category's size system.
    """

    shopper: Ints
    time: Ints
    department: Ints
    category: Ints
    size: Ints

    @property
    def wanted(self) -> Ints:
        """[N] codes of ``wanted_category``."""
        asked = np.where(self.category >= 0, self.category + 1 + len(DEPARTMENTS), 0)
        return np.where(self.category >= 0, asked, self.department + 1)

    @property
    def surface(self) -> Ints:
        """[N] codes of ``surface``: search once something is asked for."""
        return np.asarray(self.wanted > 0, dtype=np.int64)


def wish(context: Mapping[str, str]) -> tuple[int, int, int]:
    """Department, category and size that a request's context asks for, -1 where it does not.

    Raises:
        UsageError: A value is not one of the simulated market's.
    """
    wanted, label = context.get("wanted_category", ""), context.get("wanted_size", "")
    if wanted not in WANTED:
        raise UsageError(f"unknown wanted_category {wanted!r}; known: {', '.join(WANTED[1:])}")
    code = WANTED.index(wanted) - 1
    if code < len(DEPARTMENTS):
        return code, -1, -1
    category = code - len(DEPARTMENTS)
    known = SIZES[CATEGORIES[category].system]
    if label and label not in known:
        raise UsageError(f"unknown wanted_size {label!r} in {wanted}; known: {', '.join(known)}")
    department = DEPARTMENTS.index(CATEGORIES[category].department)
    return department, category, known.index(label) if label else -1


@dataclass
class StockOnSale(Rows):
    """The listings that are on sale at some time of a day, ordered by category and size.

    Attributes:
        item: [N] row of the listing.
        style: [N, S] latent style, turned as taste is turned on that day.
        worth: [N] utility that everybody sees: fashion, brand heat, season, appeal.
        log_price: [N] logarithm of price over what is usual in the category.
    """

    item: Ints
    category: Ints
    department: Ints
    size: Ints
    system: Ints
    brand: Ints
    seller: Ints
    style: Floats
    worth: Floats
    log_price: Floats
    listed_at: Ints
    gone_at: Ints


def shelf_of_day(scenario: Scenario, stock: Stock, day: int) -> StockOnSale:
    """What is on sale at some time of a day, as shoppers see it on that day."""
    start = day * MICROSECONDS_A_DAY
    live = np.flatnonzero((stock.listed_at < start + MICROSECONDS_A_DAY) & (stock.gone_at > start))
    live = live[np.lexsort((stock.size[live], stock.category[live]))]
    here = stock.take(live)
    turn = scenario.turn_on(day)[scenario.group[here.category]]
    fashion = np.einsum("ns,ns->n", scenario.fashion_on(day)[here.category], here.style)
    return StockOnSale(
        item=live,
        category=here.category,
        department=scenario.department[here.category],
        size=here.size,
        system=scenario.system[here.category],
        brand=here.brand,
        seller=here.seller,
        style=np.einsum("nij,ni->nj", turn, here.style).astype(np.float32),
        worth=(
            FASHION * fashion
            + scenario.brand_heat(day)[here.brand]
            + scenario.season(day)[here.category] * ~scenario.is_new[here.category]
            + here.appeal
        ).astype(np.float32),
        log_price=np.log(here.price) - scenario.log_price[here.category],
        listed_at=here.listed_at,
        gone_at=here.gone_at,
    )


def visits_of_day(scenario: Scenario, shoppers: Shoppers, day: int) -> Visits:
    """Who comes on a day, when, and what they ask for."""
    rng = scenario.stream("visits", day)
    weekday = 1.0 + 0.2 * (((scenario.settings.start.weekday() + day) % 7) >= 5)
    n = int(rng.poisson(scenario.settings.visits_per_day * weekday / 1.057))
    share = np.cumsum(shoppers.activity)
    shopper = np.searchsorted(share / share[-1], rng.random(n))
    hours = np.where(rng.random(n) < 0.35, rng.normal(12.5, 2.5, n), rng.normal(20, 2, n)) % 24
    time = (np.clip(hours, 0.1, 23.3) * 3_600_000_000).astype(np.int64)
    time = np.sort(time + rng.integers(0, 60_000_000, n)) + day * MICROSECONDS_A_DAY

    demand = np.cumsum(scenario.demand(day, shoppers.categories[shopper]), axis=1)
    category = (demand[:, :-1] < rng.random(n)[:, None]).sum(axis=1)
    how = rng.random(n)  # browse the front page, a department, or search a category
    department = np.where(how < 0.25, -1, scenario.department[category])
    asked = np.where(how < 0.4, -1, category)
    system = scenario.system[category]
    own = shoppers.sizes[shopper, system]
    others = (rng.random(n) * SYSTEM_LENGTHS[system]).astype(np.int64)
    size = np.where(rng.random(n) < 0.05, others, own)  # some buy for somebody else
    says = (asked >= 0) & (rng.random(n) < 0.6) & (system != SYSTEMS.index("one size"))
    return Visits(shopper, time, department, asked, np.where(says, size, -1))


def utility(shoppers: Shoppers, on_sale: StockOnSale, visits: Visits, slots: Ints) -> Floats:
    """[V, L] true utility of the listings in ``slots`` [V, L] of what is on sale to each visit."""
    who = visits.shopper[:, None]
    category, department = on_sale.category[slots], on_sale.department[slots]
    system = on_sale.system[slots]
    value = on_sale.worth[slots] + shoppers.brands[who, on_sale.brand[slots]]
    value += TASTE * np.einsum("vls,vs->vl", on_sale.style[slots], shoppers.taste[visits.shopper])
    value -= shoppers.thrift[who] * on_sale.log_price[slots]

    asked, asked_department = visits.category[:, None], visits.department[:, None]
    liking = shoppers.categories[who, category]
    liking = np.where(
        asked_department < 0,
        liking,
        np.where(department == asked_department, 0.3 * liking, OFF_TOPIC),
    )
    value += np.where(asked < 0, liking, np.where(category == asked, 0.8, OFF_TOPIC))

    wanted = np.where(visits.size[:, None] >= 0, visits.size[:, None], shoppers.sizes[who, system])
    off = np.abs(on_sale.size[slots] - wanted)
    value += np.where(off == 0, 0.0, np.where(off == 1, ONE_SIZE_OFF, MISFIT))
    return value.astype(np.float32, copy=False)


def chance(value: Floats, kind: int) -> Floats:
    """Chance of viewing a slot that is looked at, or of a further event on a viewed one."""
    return np.asarray(
        1.0 / (1.0 + np.exp(THRESHOLDS[kind] - np.maximum(value, NOT_SHOWN))), dtype=np.float32
    )


def on_sale(on_sale: StockOnSale, visits: Visits, slots: Ints) -> Ints:
    """[V, L] slots, -1 for what is not on sale throughout the visit or is the shopper's own."""
    time = visits.time[:, None]
    fine = (slots >= 0) & (on_sale.listed_at[slots] <= time)
    fine &= on_sale.gone_at[slots] > time + VISIT_MICROSECONDS
    fine &= on_sale.seller[slots] != visits.shopper[:, None]
    return np.where(fine, slots, -1)


def look(length: int) -> Floats:
    """[L] chance that each place of a list is looked at."""
    return np.asarray(1.0 / (1.0 + 0.1 * np.arange(length)), dtype=np.float32)


def chance_of_sale(value: Floats) -> NDArray[np.float64]:
    """[...] chance that a list with true utilities [..., L] ends in a purchase."""
    bought = look(value.shape[-1]) * chance(value, VIEW) * chance(value, PURCHASE)
    return np.asarray(1.0 - np.prod(1.0 - bought.astype(np.float64), axis=-1))


@dataclass
class Acts(Rows):
    """What shoppers did, one row an event.

    Attributes:
        visit: [N] row of the visit.
        slot: [N] row of the stock on sale.
        kind: [N] code of the event type.
        time: [N] microseconds since the first midnight.
        discount: [N] factor on the price that an offer names, 1 without one.
    """

    visit: Ints
    slot: Ints
    kind: Ints
    time: Ints
    discount: Floats


def react(
    rng: np.random.Generator, shoppers: Shoppers, on_sale: StockOnSale, visits: Visits, slots: Ints
) -> Acts:
    """What each visit does with the list it is shown.

    Args:
        rng: Draws the same count of numbers for a shape, whatever is shown.
        shoppers: All shoppers.
        on_sale: The day's on_sale.
        visits: V visits.
        slots: [V, L] rows of the stock on sale, -1 where nothing (or nothing on sale) is shown.
    """
    n, length = slots.shape
    luck = rng.random((len(EVENT_TYPES), n, length), dtype=np.float32)
    value = utility(shoppers, on_sale, visits, np.maximum(slots, 0))
    viewed = (luck[VIEW] < look(length) * chance(value, VIEW)) & (slots >= 0)
    visit, place = np.nonzero(viewed)
    slot, liking, further = slots[viewed], value[viewed], luck[:, viewed]

    buys = further[PURCHASE] < chance(liking, PURCHASE)
    first = np.full(n, length)
    np.minimum.at(first, visit[buys], place[buys])
    before_purchase = place <= first[visit]
    offers = further[OFFER] < chance(liking, OFFER)
    discount = np.where(offers, 0.75 + 0.2 * further[CART], 1.0).astype(np.float32)
    look_time = visits.time[visit] + place * (SECONDS_A_SLOT * 1_000_000)
    parts = []
    for kind in range(len(EVENT_TYPES)):
        does = further[kind] < chance(liking, kind)
        done = before_purchase & (does if kind != VIEW else True)
        time = look_time[done] + SECONDS_AFTER_LOOK[kind] * 1_000_000
        paid = discount[done] if kind >= OFFER else np.ones(len(time), dtype=np.float32)
        parts.append(Acts(visit[done], slot[done], np.full(len(time), kind), time, paid))
    return parts[0].joined_with(*parts[1:])
