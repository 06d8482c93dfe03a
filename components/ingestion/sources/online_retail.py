"""Online Retail: the sales of a giftware shop, with real seasonal drift.

Origin: UCI Machine Learning Repository, data set 352 (Daqing Chen), published under CC BY 4.0,
cleaned of cancellations and of rows without a customer. ``path`` is a folder or file of

- ``transactions_2010-12_2011-12.parquet``: 397,924 rows, by day; or
- ``transactions_uk_2010-01_2010-12.parquet``: 336,100 rows of the UK in 2010, by the minute, with
  other column names (part of data set 502).

Columns: a line of an invoice is a purchase, its invoice the session, its country the context. Times
without a zone are UTC. Customers may buy an article again; two lines with the same customer,
article and time are one event, so that in the first file repeats within a day count as duplicates.
Title and price of an article are those of its first sale.
"""

from collections.abc import Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir

from components.ingestion.reading import find_file, require_columns
from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables

TERMS = (
    "Online Retail (UCI Machine Learning Repository 352 and 502, Daqing Chen): CC BY 4.0; "
    "not redistributed with Refit."
)
NAIVE_TIMES = "UTC"
IS_SIMULATED = False

BY_DAY = {
    "user_id": "customer_id",
    "item_id": "StockCode",
    "event_time": "order_date",
    "session_id": "InvoiceNo",
    "price": "UnitPrice",
    "country": "country",
    "title": "Description",
}
BY_MINUTE = {
    "user_id": "Customer ID",
    "item_id": "StockCode",
    "event_time": "InvoiceDate",
    "session_id": "BasketID",
    "price": "Price",
    "country": "Country",
    "title": "Product",
}


def find_files(settings: IngestSettings) -> Sequence[Path]:
    """Return one Parquet file."""
    names = ("transactions_2010-12_2011-12.parquet", "transactions_uk_2010-01_2010-12.parquet")
    return [find_file(settings, *names)]


def read(con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
    """Read invoice lines as purchases; items are derived from them."""
    (path,) = find_files(settings)
    lines = con.read_parquet(path)
    names = BY_MINUTE if "BasketID" in lines.columns else BY_DAY
    require_columns(lines, names.values(), path)
    columns: dict[str, ir.Value] = {name: lines[raw] for name, raw in names.items()}
    if columns["user_id"].type().is_floating():
        columns["user_id"] = columns["user_id"].cast("int64")
    events = lines.select(**columns, event_type=ibis.literal("purchase"))
    return RawTables(events, context_columns=("country",), derived_item_columns=("title", "price"))
