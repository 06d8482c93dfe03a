"""The choice model of simulated shoppers: visits, true utilities, and interactions with a list.

A shopper examines the slots of a list with a chance that falls with the rank. An examined listing
is viewed, liked, put into the cart, offered for or bought with chances that rise with its utility.
A purchase ends the visit, so that the chance that a list ends in a purchase has a closed form.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit.errors import UsageError
from simulation import calendar
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
from simulation.shoppers import MICROSECONDS_PER_DAY, Shoppers
from simulation.stock import Stock

TASTE, FASHION = 0.65, 1.9
OFF_TOPIC, ONE_SIZE_OFF, MISFIT = -5.0, -1.8, -5.0
VIEW, LIKE, CART, OFFER, PURCHASE = range(5)
EVENT_TYPES = ("view", "like", "cart", "offer", "purchase")
THRESHOLDS = np.array([0.7, 2.8, 4.0, 5.7, 6.3], dtype=np.float32)
SECONDS_AFTER_VIEW = np.array([0, 6, 15, 25, 60])
SECONDS_PER_SLOT = 12
DELAY_SPREAD = 0.85
"""Standard deviation of the logarithm of the time from a decision to its purchase."""
NOT_SHOWN = np.float32(-50.0)
"""The utility of an empty slot."""
VISIT_MICROSECONDS = 1_800_000_000
WANTED = ("", *DEPARTMENTS, *(c.name for c in CATEGORIES))
"""Values of the context column ``wanted_category``, indexed by ``Visits.wanted``."""
SURFACES = ("home", "search")


@dataclass
class Visits(Rows):
    """Simulated visits, one row each, in order of time; -1 means not requested.

    Attributes:
        shopper: [N] row of the shopper.
        time: [N] microseconds since the first midnight.
        department, category: [N] the requested category_1 and category_2. A visit requests
            neither, a department, or a category with its department.
        size: [N] the requested size, an index in the category's size system.
    """

    shopper: Ints
    time: Ints
    department: Ints
    category: Ints
    size: Ints

    @property
    def wanted(self) -> Ints:
        """[N] codes of ``wanted_category``."""
        category_code = self.category + 1 + len(DEPARTMENTS)
        return np.where(self.category >= 0, category_code, self.department + 1)

    @property
    def surface(self) -> Ints:
        """[N] codes of ``surface``: search when something is requested, else home."""
        return np.asarray(self.wanted > 0, dtype=np.int64)


def read_context(context: Mapping[str, str]) -> tuple[int, int, int]:
    """Read department, category and size from the context of a request; -1 if not requested.

    Raises:
        UsageError: The simulated market has no such category or size.
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
class LiveListings(Rows):
    """The listings that are live at some time of a day, ordered by category and size.

    Attributes:
        item: [N] row of the listing in the stock.
        category, department, size, system, brand, seller: [N] codes.
        style: [N, S] latent style, rotated by the day's shift of taste.
        shared_utility: [N] utility that is the same for all shoppers: fashion, brand, season,
            appeal.
        log_price: [N] logarithm of the price over the typical price of the category.
        listed_at, delisted_at: [N] microseconds since the first midnight.
        reserved: [N] whether somebody has decided to buy it on an earlier day.
        delay: [N] microseconds from the decision to buy it to the purchase.
    """

    item: Ints
    category: Ints
    department: Ints
    size: Ints
    system: Ints
    brand: Ints
    seller: Ints
    style: Floats
    shared_utility: Floats
    log_price: Floats
    listed_at: Ints
    delisted_at: Ints
    reserved: NDArray[np.bool_]
    delay: Ints


def live_listings_of_day(scenario: Scenario, stock: Stock, day: int) -> LiveListings:
    """Select the listings that are live at some time of a day, with their utility on that day."""
    start = day * MICROSECONDS_PER_DAY
    live = np.flatnonzero(
        (stock.listed_at < start + MICROSECONDS_PER_DAY) & (stock.delisted_at > start)
    )
    live = live[np.lexsort((stock.size[live], stock.category[live]))]
    here = stock.take(live)
    rotation = scenario.taste_rotation_on(day)[scenario.group[here.category]]
    fashion = np.einsum("ns,ns->n", scenario.fashion_on(day)[here.category], here.style)
    return LiveListings(
        item=live,
        category=here.category,
        department=scenario.department[here.category],
        size=here.size,
        system=scenario.system[here.category],
        brand=here.brand,
        seller=here.seller,
        style=np.einsum("nij,ni->nj", rotation, here.style).astype(np.float32),
        shared_utility=(
            FASHION * fashion
            + scenario.brand_boost(day)[here.brand]
            + scenario.season(day)[here.category] * ~scenario.is_new[here.category]
            + here.appeal
        ).astype(np.float32),
        log_price=np.log(here.price) - scenario.log_price[here.category],
        listed_at=here.listed_at,
        delisted_at=here.delisted_at,
        reserved=here.sold,
        delay=_purchase_delays(scenario, len(live), day),
    )


def _purchase_delays(scenario: Scenario, n: int, day: int) -> Ints:
    """[n] microseconds from a decision of a day to the purchase."""
    median = scenario.settings.purchase_delay_hours
    if not median:
        return np.zeros(n, dtype=np.int64)
    spread = DELAY_SPREAD * scenario.stream("delays", day).normal(size=n)
    return np.asarray(median * 3_600_000_000 * np.exp(spread), dtype=np.int64)


def visits_of_day(scenario: Scenario, shoppers: Shoppers, day: int) -> Visits:
    """Draw the visits of a day: shoppers, times and requests."""
    rng = scenario.stream("visits", day)
    n = int(rng.poisson(calendar.visits(scenario.settings, day)))
    share = np.cumsum(shoppers.activity)
    shopper = np.searchsorted(share / share[-1], rng.random(n))
    hours = np.where(rng.random(n) < 0.35, rng.normal(12.5, 2.5, n), rng.normal(20, 2, n)) % 24
    time = (np.clip(hours, 0.1, 23.3) * 3_600_000_000).astype(np.int64)
    time = np.sort(time + rng.integers(0, 60_000_000, n)) + day * MICROSECONDS_PER_DAY

    demand = np.cumsum(scenario.demand(day, shoppers.categories[shopper]), axis=1)
    category = (demand[:, :-1] < rng.random(n)[:, None]).sum(axis=1)
    intent = rng.random(n)  # browse the front page, browse a department, or search a category
    department = np.where(intent < 0.25, -1, scenario.department[category])
    requested = np.where(intent < 0.4, -1, category)
    system = scenario.system[category]
    own = shoppers.sizes[shopper, system]
    others = (rng.random(n) * SYSTEM_LENGTHS[system]).astype(np.int64)
    size = np.where(rng.random(n) < 0.05, others, own)  # some buy for another person
    has_size = (requested >= 0) & (rng.random(n) < 0.6) & (system != SYSTEMS.index("one size"))
    return Visits(shopper, time, department, requested, np.where(has_size, size, -1))


def utility(
    shoppers: Shoppers, listings: LiveListings, visits: Visits, slots: Ints | None
) -> Floats:
    """[V, L] true utility of the listings ``slots`` [V, L] for each visit; of all without."""
    at = np.newaxis if slots is None else slots
    who = visits.shopper[:, None]

    def own(values: NDArray[Any], codes: Ints) -> NDArray[Any]:
        """[V, L] what each shopper has of the listings' codes."""
        if slots is None:
            return np.asarray(np.take(values[visits.shopper], codes[0], axis=1))
        return np.asarray(values[who, codes])

    category, department = listings.category[at], listings.department[at]
    system = listings.system[at]
    value = listings.shared_utility[at] + own(shoppers.brands, listings.brand[at])
    value += TASTE * np.einsum("vls,vs->vl", listings.style[at], shoppers.taste[visits.shopper])
    value -= shoppers.price_sensitivity[who] * listings.log_price[at]

    requested, requested_department = visits.category[:, None], visits.department[:, None]
    preference = own(shoppers.categories, category)
    preference = np.where(
        requested_department < 0,
        preference,
        np.where(department == requested_department, 0.3 * preference, OFF_TOPIC),
    )
    value += np.where(requested < 0, preference, np.where(category == requested, 0.8, OFF_TOPIC))

    size = visits.size[:, None]
    wanted = np.where(size >= 0, size, own(shoppers.sizes, system))
    difference = np.abs(listings.size[at] - wanted)
    value += np.where(difference == 0, 0.0, np.where(difference == 1, ONE_SIZE_OFF, MISFIT))
    return np.asarray(value, dtype=np.float32)


def event_chance(value: Floats, kind: int | Ints) -> Floats:
    """Chance that an examined listing is viewed, or that a viewed one has an event of a kind.

    Args:
        value: [...] true utilities.
        kind: Code of the event type, or codes of several, [K, 1, ...].

    Returns:
        [...] chances.
    """
    return np.asarray(
        1.0 / (1.0 + np.exp(THRESHOLDS[kind] - np.maximum(value, NOT_SHOWN))), dtype=np.float32
    )


def find_available(
    listings: LiveListings, visits: Visits, slots: Ints | None = None
) -> NDArray[np.bool_]:
    """[V, L] which of ``slots`` are live throughout each visit and not its own; of all without."""
    at = np.newaxis if slots is None else slots
    time = visits.time[:, None]
    available = listings.listed_at[at] <= time
    available &= listings.delisted_at[at] > time + VISIT_MICROSECONDS
    available &= listings.seller[at] != visits.shopper[:, None]
    return np.asarray(available)


def mask_unavailable(listings: LiveListings, visits: Visits, slots: Ints) -> Ints:
    """[V, L] slots, -1 for listings that are not live throughout the visit or the shopper's own."""
    return np.where((slots >= 0) & find_available(listings, visits, slots), slots, -1)


def examination_chance(length: int) -> Floats:
    """[L] chance that each slot of a list is examined."""
    return np.asarray(1.0 / (1.0 + 0.1 * np.arange(length)), dtype=np.float32)


def chance_of_sale(value: Floats, conversion: float = 1.0) -> NDArray[np.float64]:
    """[...] chance that a list with true utilities ``value`` [..., L] ends in a purchase.

    ``conversion`` is the day's factor on the chance that a viewed listing is bought.
    """
    bought = (
        examination_chance(value.shape[-1])
        * event_chance(value, VIEW)
        * event_chance(value, PURCHASE)
        * np.float32(conversion)
    )
    return np.asarray(1.0 - np.prod(1.0 - bought.astype(np.float64), axis=-1))


@dataclass
class Interactions(Rows):
    """Events of shoppers on listings, one row each.

    Attributes:
        visit: [N] row of the visit.
        slot: [N] row of the live listing.
        kind: [N] code of the event type.
        time: [N] microseconds since the first midnight.
        discount: [N] factor on the price: that of an offer, otherwise 1.
    """

    visit: Ints
    slot: Ints
    kind: Ints
    time: Ints
    discount: Floats


def simulate_interactions(
    rng: np.random.Generator,
    shoppers: Shoppers,
    listings: LiveListings,
    visits: Visits,
    slots: Ints,
    conversion: float = 1.0,
) -> Interactions:
    """Simulate what each visit does with the list that it is shown.

    Args:
        rng: The number of draws depends on the shape of ``slots`` only.
        shoppers: All shoppers.
        listings: The day's live listings.
        visits: V visits.
        slots: [V, L] rows of the live listings shown; -1 for an empty slot or a listing that is
            not live.
        conversion: The day's factor on the chance that a viewed listing is bought.
    """
    n, length = slots.shape
    luck = rng.random((len(EVENT_TYPES), n, length), dtype=np.float32)
    value = utility(shoppers, listings, visits, np.maximum(slots, 0))
    viewed = (luck[VIEW] < examination_chance(length) * event_chance(value, VIEW)) & (slots >= 0)
    visit, rank = np.nonzero(viewed)
    slot, view_value, view_luck = slots[viewed], value[viewed], luck[:, viewed]

    chances = event_chance(view_value, np.arange(len(EVENT_TYPES))[:, None])
    chances[PURCHASE] *= np.float32(conversion)
    occurs = view_luck < chances
    first_purchase = np.full(n, length)
    np.minimum.at(first_purchase, visit[occurs[PURCHASE]], rank[occurs[PURCHASE]])
    discount = np.where(occurs[OFFER], 0.75 + 0.2 * view_luck[CART], 1.0).astype(np.float32)
    occurs[VIEW] = True
    kind, row = np.nonzero(occurs & (rank <= first_purchase[visit]))
    seconds = rank[row] * SECONDS_PER_SLOT + SECONDS_AFTER_VIEW[kind]
    return Interactions(
        visit=visit[row],
        slot=slot[row],
        kind=kind,
        time=visits.time[visit[row]] + seconds * 1_000_000,
        discount=np.where(kind >= OFFER, discount[row], np.float32(1.0)),
    )
