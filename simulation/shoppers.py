"""The simulated shoppers: latent preferences, and the columns that the users table has."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simulation.rows import Rows, labels, row_of
from simulation.scenario import (
    BRANDS,
    CATEGORIES,
    COUNTRIES,
    DEPARTMENTS,
    FLOOD,
    N_BRANDS,
    N_STYLE,
    NEW_DEPARTMENT,
    SIZES,
    SYSTEM_LENGTHS,
    SYSTEMS,
    Floats,
    Ints,
    Scenario,
)

MICROSECONDS_PER_DAY = 86_400_000_000
UNKNOWN = -1


@dataclass
class Shoppers(Rows):
    """Simulated shoppers, one row each; a shopper may also sell.

    Attributes:
        taste: [U, S] preferred style, before fashion and shifts of taste.
        brands: [U, brands] utility of each brand.
        categories: [U, C] utility of each category_2.
        sizes: [U, systems] size index in each size system.
        price_sensitivity: [U] loss of utility per unit of log price.
        activity, selling: [U] relative frequency of visits and of new listings.
        department: [U] code of the preferred category_1.
        age: [U] years; 0 is null in the users table.
        country: [U] code.
        size_known: [U] whether the users table has the sizes.
        joined_at: [U] microseconds since the first simulated midnight.
        flood: [U] whether the shopper joined with the flood of new sellers.
    """

    taste: Floats
    brands: Floats
    categories: Floats
    sizes: Ints
    price_sensitivity: Floats
    activity: NDArray[np.float64]
    selling: NDArray[np.float64]
    department: Ints
    age: Ints
    country: Ints
    size_known: NDArray[np.bool_]
    joined_at: Ints
    flood: NDArray[np.bool_]


def shoppers_of_day(scenario: Scenario, day: int) -> Shoppers:
    """Draw the shoppers who join on a day; day -1 is the shoppers at the start."""
    rng = scenario.stream("shoppers", day)
    settings = scenario.settings
    n = settings.n_shoppers if day < 0 else int(rng.poisson(settings.newcomers_per_day))
    regulars = _draw(scenario, rng, n)
    if day < 0:
        regulars.joined_at = -rng.integers(0, 900 * MICROSECONDS_PER_DAY, n)
        return regulars
    regulars.joined_at = day * MICROSECONDS_PER_DAY + np.sort(rng.integers(0, 300_000_000, n))
    if not _flood_begins(scenario, day):
        return regulars
    rng = scenario.stream("flood", day)
    sellers = _draw(scenario, rng, max(5, settings.n_shoppers // 20))
    sellers.joined_at = np.full(len(sellers), day * MICROSECONDS_PER_DAY)
    sellers.flood[:] = True
    sellers.activity[:] = 0.0
    return regulars.joined_with(sellers)


def _flood_begins(scenario: Scenario, day: int) -> bool:
    change = scenario.change("new_sellers_flood", day)
    return change is not None and change.day == day


def flood_listings(scenario: Scenario, day: int) -> float:
    """Mean number of listings that the flood of new sellers adds on a day."""
    return FLOOD * scenario.strength("new_sellers_flood", day) * scenario.settings.listings_per_day


def _draw(scenario: Scenario, rng: np.random.Generator, n: int) -> Shoppers:
    cluster = rng.integers(0, len(scenario.taste_clusters), n)
    taste = 0.7 * scenario.taste_clusters[cluster] + 0.7 * rng.normal(size=(n, N_STYLE))
    department = rng.choice(NEW_DEPARTMENT, n, p=(0.56, 0.36, 0.08))
    categories = rng.normal(0, 0.5, (n, len(CATEGORIES)))
    categories[scenario.department != department[:, None]] -= 2.5
    parent = rng.random(n) < 0.3
    categories[np.ix_(parent, scenario.department == 2)] += 1.5
    categories[:, scenario.is_new] += 2.5  # all shoppers like the new category

    brands = rng.normal(0, 0.4, (n, len(BRANDS))) + 0.12 * taste @ scenario.brand_style.T
    favourites = rng.integers(0, N_BRANDS, (n, 3))
    np.put_along_axis(brands, favourites, rng.uniform(1.2, 2.0, (n, 3)), axis=1)

    build = rng.normal(0, 1, n)
    spread = np.array([1.2, 1.5, 1.4, 0.0])
    middle = np.tile((SYSTEM_LENGTHS - 1) / 2, (n, 1))
    middle[:, SYSTEMS.index("shoes")] += np.where(department == DEPARTMENTS.index("men"), 2.0, -1.5)
    sizes = np.rint(middle + spread * (0.8 * build[:, None] + 0.6 * rng.normal(size=(n, 4))))
    age = np.clip(np.rint(24 + 5 * cluster + 6 * rng.normal(size=n)), 16, 80)
    age[rng.random(n) < 0.2] = 0
    abroad = rng.random(n) < 0.5
    return Shoppers(
        taste=taste.astype(np.float32),
        brands=brands.astype(np.float32),
        categories=categories.astype(np.float32),
        sizes=np.clip(sizes, 0, SYSTEM_LENGTHS - 1).astype(np.int64),
        price_sensitivity=np.exp(rng.normal(-0.3, 0.35, n)).astype(np.float32),
        activity=np.exp(rng.normal(0, 0.9, n)),
        selling=np.exp(rng.normal(0, 1.3, n)) * (rng.random(n) < 0.4),
        department=department,
        age=age.astype(np.int64),
        country=np.where(abroad, rng.integers(0, len(COUNTRIES), n), cluster % len(COUNTRIES)),
        size_known=rng.random(n) > 0.15,
        joined_at=np.zeros(n, dtype=np.int64),
        flood=np.zeros(n, dtype=np.bool_),
    )


def user_row(user_id: str) -> int:
    """Parse the row of a shopper from a user id.

    Raises:
        UsageError: It is not the id of a simulated shopper.
    """
    return row_of(user_id, "shopper-")


def user_ids(indices: Ints) -> list[str]:
    """User ids of shoppers by row."""
    return [f"shopper-{i:06d}" for i in indices.tolist()]


def users_table(shoppers: Shoppers, rows: Ints, start_us: int) -> pa.Table:
    """Build the users table of the shoppers in ``rows``, in the columns of the contract."""
    selected = shoppers.take(rows)
    clothes = np.where(selected.size_known, selected.sizes[:, SYSTEMS.index("clothes")], UNKNOWN)
    shoes = np.where(selected.size_known, selected.sizes[:, SYSTEMS.index("shoes")], UNKNOWN)
    return pa.table(
        {
            "user_id": pa.array(user_ids(rows), pa.string()),
            "department": labels(DEPARTMENTS, selected.department),
            "size": labels(SIZES["clothes"], clothes),
            "shoe_size": labels(SIZES["shoes"], shoes),
            "country": labels(COUNTRIES, selected.country),
            "age": pa.array(selected.age, pa.int64(), mask=selected.age == 0),
            "joined_at": pa.array(selected.joined_at + start_us, pa.timestamp("us", tz="UTC")),
        }
    )
