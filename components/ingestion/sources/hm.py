"""H&M: two years of purchases with article texts and customer attributes.

Origin: Kaggle, competition "H&M Personalized Fashion Recommendations"; you need an account and
have to accept its rules, which allow use for the competition and for academic, non-commercial
purposes. ``path`` is a folder with ``transactions_train.csv``, ``articles.csv`` and
``customers.csv``.

This module was written from the published column lists and is tested on small hand-made files; it
has not been run on the whole data set.

Columns: ``t_dat`` is a day, read as midnight UTC. Ids are text, so that articles keep their leading
zero. Prices are scaled by the publisher and have no currency. When a customer buys an article twice
on a day, the second event counts as a duplicate.
"""

from collections.abc import Sequence
from pathlib import Path

import ibis

from components.ingestion.reading import find_all_files, read_parts, require_columns
from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables

TERMS = (
    "H&M Personalized Fashion Recommendations (Kaggle): the competition's rules, non-commercial; "
    "not redistributed with Refit."
)
NAIVE_TIMES = "UTC"
IS_SIMULATED = False

FILES = ("transactions_train.csv", "articles.csv", "customers.csv")
TRANSACTIONS = ("t_dat", "customer_id", "article_id", "price", "sales_channel_id")
ARTICLES = {
    "item_id": "article_id",
    "title": "prod_name",
    "description": "detail_desc",
    "category_1": "index_group_name",
    "category_2": "product_group_name",
    "category_3": "product_type_name",
    "colour": "colour_group_name",
    "product_code": "product_code",
    "graphical_appearance": "graphical_appearance_name",
    "perceived_colour": "perceived_colour_master_name",
    "department": "department_name",
    "section": "section_name",
    "garment_group": "garment_group_name",
}
CUSTOMERS = (
    *("customer_id", "FN", "Active", "club_member_status", "fashion_news_frequency"),
    *("age", "postal_code"),
)


def find_files(settings: IngestSettings) -> Sequence[Path]:
    """Return the three CSV files."""
    origin = "Kaggle, competition h-and-m-personalized-fashion-recommendations"
    return find_all_files(settings, FILES, origin)


def read(con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
    """Read transactions as purchases, articles as items, customers as users."""
    paths = find_files(settings)
    transactions, articles, customers = (read_parts(con, [path]) for path in paths)
    for table, needed, path in zip(
        (transactions, articles, customers),
        (TRANSACTIONS, ARTICLES.values(), CUSTOMERS),
        paths,
        strict=True,
    ):
        require_columns(table, needed, path)
    events = transactions.select(
        user_id="customer_id",
        item_id="article_id",
        event_type=ibis.literal("purchase"),
        event_time="t_dat",
        price="price",
        sales_channel="sales_channel_id",
    )
    items = articles.select(**ARTICLES)
    users = customers.select(
        user_id="customer_id",
        fashion_news="FN",
        active="Active",
        club_member_status="club_member_status",
        fashion_news_frequency="fashion_news_frequency",
        age=customers.age.try_cast("float64"),
        postal_code="postal_code",
    )
    return RawTables(
        events,
        items,
        users,
        context_columns=("sales_channel",),
        item_columns=(
            *("product_code", "graphical_appearance", "perceived_colour", "department"),
            *("section", "garment_group"),
        ),
        user_columns=(
            *("fashion_news", "active", "club_member_status", "fashion_news_frequency"),
            *("age", "postal_code"),
        ),
    )
