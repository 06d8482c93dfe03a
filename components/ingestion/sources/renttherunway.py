"""RentTheRunway: 192,544 clothing rentals, 2010-11 to 2018-01, with occasion and wearer.

Origin: the "Clothing Fit Dataset for Size Recommendation" of the McAuley lab, UC San Diego
(Misra, Wan, McAuley: Decomposing Fit Semantics for Product Size Recommendation in Metric Spaces,
RecSys 2018), as one table ``rentals.parquet`` whose sizes, heights, weights and busts are parsed to
numbers and whose review texts are dropped.

Columns: a rental is a purchase; ``review_date`` is a day, read as midnight UTC. The context of each
rental describes the wearer and the request: ``rented_for`` is the occasion, the size of the rental
the requested size. Ages outside 10 to 100 are typing errors and become null; the rental is kept.
The category of an item is that of its first rental (5 items have two).
"""

from collections.abc import Sequence
from pathlib import Path

import ibis

from components.ingestion.reading import find_file, require_columns
from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables

TERMS = (
    "RentTheRunway clothing fit data (McAuley lab, UC San Diego; Misra, Wan, McAuley, RecSys 2018):"
    " research data, citation requested, no licence file; not redistributed with Refit."
)
NAIVE_TIMES = "UTC"
IS_SIMULATED = False

COLUMNS = (
    *("user_id", "item_id", "review_date", "rented_for", "size", "body_type", "category"),
    *("age", "height_in", "weight_lbs", "bust_size_num", "bust_size_letter"),
)
AGES = (10, 100)
CONTEXT = (
    *("occasion", "size", "body_type", "bust"),
    *("age", "height_in", "weight_lbs", "bust_size_num", "bust_size_letter"),
)


def find_files(settings: IngestSettings) -> Sequence[Path]:
    """Return one Parquet file, ``rentals.parquet``."""
    return [find_file(settings, "rentals.parquet")]


def read(con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
    """Read rentals as purchases; items are derived from them."""
    (path,) = find_files(settings)
    rentals = con.read_parquet(path)
    require_columns(rentals, COLUMNS, path)
    band = rentals.bust_size_num.cast("int64").cast("string")
    events = rentals.select(
        user_id=rentals.user_id,
        item_id=rentals.item_id,
        event_type=ibis.literal("purchase"),
        event_time=rentals.review_date,
        occasion=rentals.rented_for,
        size=rentals["size"].cast("string"),
        body_type=rentals.body_type,
        bust=band + rentals.bust_size_letter,
        age=ibis.ifelse(rentals.age.between(*AGES), rentals.age, None),
        height_in=rentals.height_in,
        weight_lbs=rentals.weight_lbs,
        bust_size_num=rentals.bust_size_num,
        bust_size_letter=rentals.bust_size_letter,
        category_1=rentals.category,
    )
    return RawTables(events, context_columns=CONTEXT, derived_item_columns=("category_1",))
