"""Vibrent: Norwegian fashion rentals, and second-hand sales of the outfits after that.

Origin: "Vibrent Clothes Rental Dataset Collection" (RecSys 2024; CC BY 4.0 by its paper), on
GitHub as ``cair/Vibrent_Clothes_Rental_Dataset_Collection`` and on Kaggle. ``path`` is a folder
with ``original_orders.csv`` and ``third_chance.csv``.

Columns: an original order is a purchase at the start of its rental, a day read as midnight UTC.
Items are the rented outfits, with name, brand and seller where the outfit was later put up for
sale, and the sales listings, with condition, price in NOK and seller, listed on the day they were
added. A rented outfit does not get the condition and price of its later sale, which were not known
yet. Not read: ``spot_rentals.csv`` has no user, and ``sequences_clothing.txt`` has no time.
"""

from collections.abc import Sequence
from pathlib import Path

import ibis

from components.ingestion.reading import find_all_files, read_parts, require_columns
from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables

TERMS = (
    "Vibrent Clothes Rental Dataset Collection (RecSys 2024): CC BY 4.0 by its paper; "
    "not redistributed with Refit."
)
NAIVE_TIMES = "UTC"
IS_SIMULATED = False

FILES = ("original_orders.csv", "third_chance.csv")
ORDERS = ("customer.id", "outfit.id", "rentalPeriod.start")
SALES = ("date_added", "id", "name", "brand", "owner", "condition", "tc_price")


def find_files(settings: IngestSettings) -> Sequence[Path]:
    """Return the files of orders and of sales listings."""
    origin = "github.com/cair/Vibrent_Clothes_Rental_Dataset_Collection"
    return find_all_files(settings, FILES, origin)


def read(con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
    """Read orders as purchases, and outfits with the sales listings as items."""
    paths = find_files(settings)
    orders, sales = (read_parts(con, [path], delimiter=";") for path in paths)
    require_columns(orders, ORDERS, paths[0])
    require_columns(sales, SALES, paths[1])
    events = orders.select(
        user_id="customer.id",
        item_id="outfit.id",
        event_type=ibis.literal("purchase"),
        event_time="rentalPeriod.start",
    )
    rented = events.select("item_id").distinct()
    text = ibis.null("string")
    outfits = rented.left_join(sales, rented.item_id == sales.id).select(
        rented.item_id,
        title=sales.name,
        brand=sales.brand,
        seller_id=sales.owner,
        condition=text,
        price=text,
        currency=text,
        listed_at=text,
    )
    listings = sales.anti_join(rented, sales.id == rented.item_id).select(
        item_id="id",
        title="name",
        brand="brand",
        seller_id="owner",
        condition="condition",
        price="tc_price",
        currency=ibis.literal("NOK"),
        listed_at="date_added",
    )
    return RawTables(events, items=ibis.union(outfits, listings))
