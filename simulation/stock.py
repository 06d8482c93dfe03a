"""The simulated listings, each one of a kind, and the items table of them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simulation import calendar
from simulation.changes import NULLABLE_COLUMNS
from simulation.rows import Rows, labels
from simulation.scenario import (
    BRANDS,
    CATEGORIES,
    COLOURS,
    CONDITION_LOG_PRICE,
    CONDITION_SHARES,
    CONDITION_VALUE,
    CONDITIONS,
    DEPARTMENTS,
    INFLATION,
    N_STYLE,
    NEW_DEPARTMENT,
    SIZES,
    SYSTEM_LENGTHS,
    SYSTEMS,
    WORN_SHARES,
    Floats,
    Ints,
    Scenario,
)
from simulation.shoppers import MICROSECONDS_PER_DAY, Shoppers, flood_listings, user_ids

SIZE_LABELS = [label for system in SIZES.values() for label in system]
SIZE_OFFSET = np.concatenate([[0], np.cumsum(SYSTEM_LENGTHS)[:-1]])


@dataclass
class Stock(Rows):
    """Simulated listings, one row each; times in microseconds since the first midnight.

    Attributes:
        seller, brand, category, kind, colour, size, condition: [N] codes.
        price: [N] euros, rounded to cents.
        style: [N, S] latent style; shoppers see it, a recommender sees ``vector``.
        vector: [N, V] image vector of the style.
        appeal: [N] utility of everything else in the listing: photo, text, condition.
        listed_at: [N] when it was listed.
        delisted_at: [N] when it was sold; for an unsold listing, when it will be withdrawn.
        sold: [N] whether ``delisted_at`` is a sale.
        hidden: [N] index in ``NULLABLE_COLUMNS`` of the column that is null, -1 for none.
    """

    seller: Ints
    brand: Ints
    category: Ints
    kind: Ints
    colour: Ints
    size: Ints
    condition: Ints
    price: Floats
    style: Floats
    vector: Floats
    appeal: Floats
    listed_at: Ints
    delisted_at: Ints
    sold: NDArray[np.bool_]
    hidden: Ints


def stock_of_day(scenario: Scenario, shoppers: Shoppers, day: int) -> Stock:
    """Draw the new listings of a day; day -1 is the stock at the start.

    Args:
        scenario: The ground truth of the market.
        shoppers: All shoppers who have joined by that day.
        day: The simulated day.
    """
    settings = scenario.settings
    rng = scenario.stream("stock", day)
    at_start = 0.6 * settings.lifetime_days * settings.listings_per_day
    mean = at_start if day < 0 else calendar.listings(settings, day)
    usual = _draw(scenario, rng, day, shoppers, int(rng.poisson(mean)), flood=False)
    if not flood_listings(scenario, day):
        return usual
    rng = scenario.stream("flood stock", day)
    n = int(rng.poisson(flood_listings(scenario, day)))
    return usual.joined_with(_draw(scenario, rng, day, shoppers, n, flood=True))


def _draw(
    scenario: Scenario, rng: np.random.Generator, day: int, shoppers: Shoppers, n: int, flood: bool
) -> Stock:
    """Draw n listings. The changes do not alter the order of the draws, only their results."""
    selling = np.where(shoppers.flood == flood, shoppers.selling + 0.01 * flood, 0.0)
    seller = np.searchsorted(np.cumsum(selling) / selling.sum(), rng.random(n))
    category = np.searchsorted(np.cumsum(scenario.supply(day)), rng.random(n))
    category = _prefer_own_department(scenario, rng, shoppers.department[seller], category)
    shares = np.cumsum(scenario.brand_shares(day), axis=1)
    shares[:, -1] = 1.0
    departments = scenario.department[category]
    brand = (shares[departments] < rng.random(n)[:, None]).sum(axis=1)
    kind = scenario.kind_offset[category] + (rng.random(n) * scenario.kinds[category]).astype(
        np.int64
    )
    colour = rng.integers(0, len(COLOURS), n)
    condition = np.searchsorted(
        np.cumsum(WORN_SHARES if flood else CONDITION_SHARES)[:-1], rng.random(n)
    )
    system = scenario.system[category]
    own_size = shoppers.sizes[seller, system] + np.rint(rng.normal(0, 0.6, n))
    size = np.clip(own_size, 0, SYSTEM_LENGTHS[system] - 1).astype(np.int64)

    style = (
        0.5 * scenario.brand_style[brand]
        + 0.3 * scenario.kind_style[kind]
        + 0.3 * scenario.colour_style[colour]
        + 0.25 * shoppers.taste[seller] * _style_weights()
        + 0.6 * rng.normal(size=(n, N_STYLE)) * _style_weights()
    )
    beyond = rng.normal(size=(n, N_STYLE))
    is_new = departments == NEW_DEPARTMENT
    style[is_new] = 0.6 * style[is_new] + scenario.new_direction + 0.8 * beyond[is_new]
    style = (0.4 * style if flood else style).astype(np.float32)
    noise = rng.normal(
        0, scenario.settings.vector_noise * (1 + flood), (n, scenario.settings.vector_size)
    )

    log_price = (
        scenario.log_price[category]
        + scenario.brand_log_price[brand]
        + CONDITION_LOG_PRICE[condition]
        + rng.normal(0, 0.3, n)
        + np.log(INFLATION) * scenario.strength("price_inflation", day)
    )
    appeal = CONDITION_VALUE[condition] + rng.normal(-0.8 * flood, 0.4, n)
    if day < 0:
        listed = -rng.integers(1, int(scenario.settings.lifetime_days * MICROSECONDS_PER_DAY), n)
        visible_from = np.zeros(n, dtype=np.int64)
    else:
        listed = np.sort(_time_of_day(rng, n)) + day * MICROSECONDS_PER_DAY
        visible_from = listed
    lifetime = rng.gamma(2.0, scenario.settings.lifetime_days / 2.0, n) + 0.25
    return Stock(
        seller=seller,
        brand=brand,
        category=category,
        kind=kind,
        colour=colour,
        size=size,
        condition=condition,
        price=np.round(np.exp(log_price), 2).astype(np.float32),
        style=style,
        vector=scenario.encode_images(style, noise.astype(np.float32), day),
        appeal=appeal.astype(np.float32),
        listed_at=listed,
        delisted_at=(visible_from + lifetime * MICROSECONDS_PER_DAY).astype(np.int64),
        sold=np.zeros(n, dtype=np.bool_),
        hidden=_draw_hidden_columns(scenario, rng, day, n),
    )


def _prefer_own_department(
    scenario: Scenario, rng: np.random.Generator, department: Ints, category: Ints
) -> Ints:
    """Move most listings of another department to the seller's preferred one."""
    moves = rng.random(len(category)) < 0.6
    moves &= (scenario.department[category] != department) & ~scenario.is_new[category]
    pick = rng.random(len(category))
    moved = category.copy()
    for own in range(NEW_DEPARTMENT):
        choices = np.flatnonzero(scenario.department == own)
        here = moves & (department == own)
        share = np.cumsum([CATEGORIES[c].share for c in choices])
        moved[here] = choices[np.searchsorted(share / share[-1], pick[here])]
    return moved


def _draw_hidden_columns(scenario: Scenario, rng: np.random.Generator, day: int, n: int) -> Ints:
    hit = rng.random(n)
    change = scenario.change("column_gone_null", day)
    if change is None:
        return np.full(n, -1)
    return np.where(hit < change.strength, NULLABLE_COLUMNS.index(change.column), -1)


def _style_weights() -> Floats:
    return np.where(np.arange(N_STYLE) < N_STYLE - 2, 1.0, 0.2).astype(np.float32)


def _time_of_day(rng: np.random.Generator, n: int) -> Ints:
    """[n] microseconds after midnight: most in the evening, none in the last half hour."""
    hours = np.where(rng.random(n) < 0.3, rng.normal(12, 2.5, n), rng.normal(19, 2.5, n)) % 24
    time = np.clip(hours, 0.1, 23.4) * 3_600_000_000
    return np.asarray(time + rng.integers(0, 60_000_000, n), dtype=np.int64)


def item_ids(rows: Ints) -> list[str]:
    """Item ids of listings by row."""
    return [f"item-{i:07d}" for i in rows.tolist()]


def items_table(stock: Stock, rows: Ints, start_us: int, until: int) -> pa.Table:
    """Build the items table of some listings, in the columns of the contract.

    Args:
        stock: All simulated listings.
        rows: The listings to include.
        start_us: Epoch microseconds of the first simulated midnight.
        until: Microseconds since then; a later ``delisted_at`` is not known yet, and is null.
    """
    selected = stock.take(rows)

    def visible(name: str, codes: Ints) -> Ints:
        return np.where(selected.hidden == NULLABLE_COLUMNS.index(name), -1, codes)

    kinds = [f"{c.department} {kind} {c.word}" for c in CATEGORIES for kind in c.kinds]
    size = SIZE_OFFSET[_systems(selected.category)] + selected.size
    titles = [
        f"{BRANDS[b]} {kinds[k].split(' ', 1)[1]} {COLOURS[c]}, {CONDITIONS[q]}"
        for b, k, c, q in zip(
            selected.brand.tolist(),
            selected.kind.tolist(),
            selected.colour.tolist(),
            selected.condition.tolist(),
            strict=True,
        )
    ]
    names = [c.name for c in CATEGORIES]
    departments = np.array([DEPARTMENTS.index(c.department) for c in CATEGORIES])
    n, width = selected.vector.shape
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * width)
    return pa.table(
        {
            "item_id": pa.array(item_ids(rows), pa.string()),
            "seller_id": pa.array(user_ids(selected.seller), pa.string()),
            "title": pa.array(
                titles, pa.string(), mask=selected.hidden == NULLABLE_COLUMNS.index("title")
            ),
            "brand": labels(BRANDS, visible("brand", selected.brand)),
            "category_1": labels(DEPARTMENTS, departments[selected.category]),
            "category_2": labels(names, selected.category),
            "category_3": labels(kinds, visible("category_3", selected.kind)),
            "colour": labels(COLOURS, visible("colour", selected.colour)),
            "size": labels(SIZE_LABELS, visible("size", size)),
            "condition": labels(CONDITIONS, visible("condition", selected.condition)),
            "price": pa.array(selected.price.astype(np.float64).round(2), pa.float64()),
            "currency": labels(["EUR"], np.zeros(n, dtype=np.int64)),
            "listed_at": pa.array(selected.listed_at + start_us, pa.timestamp("us", tz="UTC")),
            "delisted_at": pa.array(
                selected.delisted_at + start_us,
                pa.timestamp("us", tz="UTC"),
                mask=selected.delisted_at >= until,
            ),
            "image_embedding": pa.ListArray.from_arrays(
                offsets, pa.array(selected.vector.ravel(), pa.float32())
            ),
        }
    )


def _systems(category: Ints) -> Ints:
    return np.array([SYSTEMS.index(c.system) for c in CATEGORIES])[category]
