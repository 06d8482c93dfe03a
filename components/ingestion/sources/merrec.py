"""MerRec: Mercari's consumer-to-consumer marketplace, the closest public data to Refit's own.

Where from: Hugging Face, data set ``mercari-us/merrec``, under CC BY-NC 4.0: non-commercial
(Li et al.: MerRec, 2024, arXiv 2402.14230). ``path`` is one of its Parquet files, or a folder with
some, such as the month ``20230501``.

This module was built from the columns that the publisher's own code reads and is tested on small
hand-made files; it has not been run on the whole set. The names of size and condition are taken
where they are there, their ids otherwise.

What becomes of its columns: an event row carries its item's attributes, which are those of the
item's first event; ``stime`` without a zone is taken for UTC; ``buy_start`` (the checkout opened)
is a cart event, ``buy_comp`` a purchase; prices are in US dollars.
"""

from collections.abc import Sequence
from pathlib import Path

import ibis

from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables, require_columns
from components.ingestion.sources.files import find_parts, read_parts
from refit.errors import UsageError

TERMS = (
    "MerRec (Mercari, Hugging Face mercari-us/merrec): CC BY-NC 4.0, non-commercial; "
    "not redistributed with Refit."
)
NAIVE_TIMES = "UTC"
IS_SIMULATED = False

NEEDED = ("user_id", "session_id", "item_id", "event_id", "stime", "price", "name")
EVENT_TYPES = {
    "item_view": "view",
    "item_like": "like",
    "item_add_to_cart_tap": "cart",
    "offer_make": "offer",
    "buy_start": "cart",
    "buy_comp": "purchase",
}
ATTRIBUTES = {
    "title": ("name",),
    "category_1": ("c0_name",),
    "category_2": ("c1_name",),
    "category_3": ("c2_name",),
    "brand": ("brand_name",),
    "condition": ("item_condition_name", "item_condition_id"),
    "size": ("size_name", "size_id"),
    "colour": ("color",),
    "product_id": ("product_id",),
    "shipper": ("shipper_name", "shipper_id"),
}
"""Our name for each attribute of an item, and where it is found, the best place first."""


def find_files(settings: IngestSettings) -> Sequence[Path]:
    """The Parquet files of one folder, or one of them."""
    if not settings.path:
        raise UsageError("source 'merrec': path must lead to Parquet files of mercari-us/merrec")
    return find_parts(Path(settings.path), (".parquet",))


def read(con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
    """Read event rows; items come from the events."""
    paths = find_files(settings)
    rows = read_parts(con, paths)
    require_columns(rows, NEEDED, paths[0])
    found = {
        ours: next((name for name in theirs if name in rows.columns), None)
        for ours, theirs in ATTRIBUTES.items()
    }
    attributes = {ours: rows[name].cast("string") for ours, name in found.items() if name}
    events = rows.select(
        user_id=rows.user_id,
        item_id=rows.item_id,
        # An event that is not listed keeps its name, for the contract to reject.
        event_type=rows.event_id.cases(*EVENT_TYPES.items(), else_=rows.event_id),
        event_time=rows.stime,
        session_id=rows.session_id,
        price=rows.price,
        currency=ibis.literal("USD"),
        **attributes,
    )
    return RawTables(events, derived_item_columns=(*attributes, "price", "currency"))
