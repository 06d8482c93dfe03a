"""MerRec: Mercari's consumer-to-consumer marketplace, the closest public data to Refit's own.

Origin: Hugging Face, data set ``mercari-us/merrec``, under CC BY-NC 4.0: non-commercial
(Li et al.: MerRec, 2024, arXiv 2402.14230). ``path`` is one of its Parquet files, or a folder with
some of them, such as the month ``20230501``.

This module was written from the columns that the publisher's own code reads and is tested on small
hand-made files; it has not been run on the whole data set.

Columns: each event row has the attributes of its item; an item gets those of its first event. Size
and condition are names where the file has them, otherwise ids. ``stime`` without a zone is UTC.
``buy_start`` (the checkout was opened) is a cart event, ``buy_comp`` a purchase. Prices are in US
dollars.
"""

from collections.abc import Sequence
from pathlib import Path

import ibis

from components.ingestion.reading import read_parts, require_columns
from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables
from refit.errors import UsageError
from refit.tabular.table_files import find_parts

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
"""The contract's name of each item attribute, and the columns that may hold it, best first."""


def find_files(settings: IngestSettings) -> Sequence[Path]:
    """Return one Parquet file, or those of a folder."""
    if not settings.path:
        raise UsageError("source 'merrec': set ingestion.path to Parquet files of MerRec")
    return find_parts(Path(settings.path), (".parquet",))


def read(con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
    """Read the events; items are derived from them."""
    paths = find_files(settings)
    rows = read_parts(con, paths)
    require_columns(rows, NEEDED, paths[0])
    columns = {
        attribute: next((name for name in names if name in rows.columns), None)
        for attribute, names in ATTRIBUTES.items()
    }
    attributes = {a: rows[name].cast("string") for a, name in columns.items() if name}
    events = rows.select(
        user_id=rows.user_id,
        item_id=rows.item_id,
        # An unknown type keeps its name; the contract's checks reject it.
        event_type=rows.event_id.cases(*EVENT_TYPES.items(), else_=rows.event_id),
        event_time=rows.stime,
        session_id=rows.session_id,
        price=rows.price,
        currency=ibis.literal("USD"),
        **attributes,
    )
    return RawTables(events, derived_item_columns=(*attributes, "price", "currency"))
