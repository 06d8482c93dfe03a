"""Vibrent: Norwegian fashion rentals, and second-hand sales of what had been rented out.

Where from: "Vibrent Clothes Rental Dataset Collection" (RecSys 2024; CC BY 4.0 by its paper), on
GitHub as ``cair/Vibrent_Clothes_Rental_Dataset_Collection`` and on Kaggle. ``path`` is a folder
with ``original_orders.csv`` and ``third_chance.csv``.

What becomes of it: an original order is a purchase at the start of its rental, a day read as
midnight UTC. Items are the outfits that were rented, with name and brand where the outfit was later
put up for sale, and the sales listings, with their condition, price in NOK and seller, listed on
the day they were added. What a sale says of an outfit's condition and price is later knowledge
and stays away from the rented ones.
Not read: ``spot_rentals.csv`` names no user, and ``sequences_clothing.txt`` names no time.
"""

from collections.abc import Sequence
from pathlib import Path

import ibis

from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables, require_columns
from components.ingestion.sources.files import read_parts
from refit.errors import UsageError

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
    """Orders and sales listings."""
    paths = [Path(settings.path) / name for name in FILES]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise UsageError(
            f"source 'vibrent': {settings.path!r} holds no {', '.join(missing)}; get them from "
            "github.com/cair/Vibrent_Clothes_Rental_Dataset_Collection"
        )
    return paths


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
