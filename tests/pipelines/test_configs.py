"""Every config names columns that its source has: ingest and feature tables succeed."""

import csv
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.features.build import build_features
from components.ingestion.ingest import ingest
from components.ingestion.sources.hm import ARTICLES, CUSTOMERS, TRANSACTIONS
from pipelines.settings import list_configs, read_settings
from refit.feature_tables import read_catalogue

RENTALS = {"events": 192_351, "items": 5_850, "users": 105_571}
PUBLIC = {
    "online_retail": ("online_retail", {"events": 385_414, "items": 3_665, "users": 4_339}),
    "vibrent": ("vibrent_partial", {"events": 11_703, "items": 2_849, "users": 5_416}),
    "beauty": ("amazon_beauty", {"events": 198_502, "items": 12_101, "users": 22_363}),
    "gowalla": ("gowalla_lightgcn", {"events": 1_027_370, "items": 40_981, "users": 29_858}),
    "renttherunway": ("renttherunway", RENTALS),
    "renttherunway_without_size": ("renttherunway", RENTALS),
}
"""The folder of a public data set, and how many rows of it are kept."""


def make_tables(name, out, *changes):
    settings = read_settings(name, changes)
    manifest = ingest(settings.ingestion, out / "dataset")
    features = build_features(settings.features, out / "dataset", out / "features")
    assert features.spec == settings.features.spec
    assert len(read_catalogue(out / "features")) == manifest.counts["items"].kept
    return {table: counts.kept for table, counts in manifest.counts.items()}


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLIC)
def test_public_data(name, tmp_path, public_data):
    folder, kept = PUBLIC[name]
    assert make_tables(name, tmp_path, f"ingestion.path={public_data / folder}") == kept


def test_simulated_and_files(tmp_path):
    """The files config also reads what refit simulate writes, as its first lines state."""
    from simulation.history import write_history

    market = {"days": 14, "n_shoppers": 60, "listings_per_day": 20, "visits_per_day": 60}
    kept = make_tables("simulated", tmp_path / "a", f"ingestion.simulated={market}")
    write_history(market, tmp_path / "market")
    path = f"ingestion.path={tmp_path / 'market'}"
    assert make_tables("files", tmp_path / "b", path) == kept


def test_hm(tmp_path):
    """On hand-made rows of the published columns."""
    source = tmp_path / "source"
    source.mkdir()
    days = [datetime(2020, 9, 1, tzinfo=UTC) + timedelta(days=day) for day in range(22)]
    rows = {
        "transactions_train.csv": [
            TRANSACTIONS,
            *(
                (f"{day:%Y-%m-%d}", f"c{i % 5}", f"01{i % 7}", 0.02, 2)
                for i, day in enumerate(days)
            ),
        ],
        "articles.csv": [
            [*dict.fromkeys(ARTICLES.values())],
            *([f"01{i}", *("x" for _ in list(ARTICLES)[1:])] for i in range(7)),
        ],
        "customers.csv": [
            CUSTOMERS,
            *((f"c{i}", 1, "", "ACTIVE", "NONE", 30, "p") for i in range(5)),
        ],
    }
    for name, lines in rows.items():
        with (source / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)
    kept = make_tables("hm", tmp_path / "made", f"ingestion.path={source}")
    assert kept == {"events": 22, "items": 7, "users": 5}


def test_merrec(tmp_path):
    """On hand-made rows of the columns that the publisher's own code reads."""
    kinds = ("item_view", "item_like", "buy_comp")
    rows = [
        {
            "user_id": number % 4,
            "session_id": number,
            "item_id": number % 9,
            "product_id": "p",
            "event_id": kinds[number % 3],
            "stime": f"2023-05-{1 + number // 3:02d} 08:00:00.250 UTC",
            "name": "Wool coat",
            "price": 25.0,
            "c0_name": "Women",
            "c1_name": "Coats",
            "c2_name": "Wool",
            "brand_name": "Zara",
            "item_condition_name": "Good",
            "size_id": 12,
            "color": "black",
            "shipper_id": 1,
        }
        for number in range(60)
    ]
    source = tmp_path / "source"
    source.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), source / "0.parquet")
    kept = make_tables("merrec", tmp_path / "made", f"ingestion.path={source}")
    assert kept == {"events": 60, "items": 9, "users": 4}


def test_every_config_is_tested_here():
    assert set(list_configs()) == {*PUBLIC, "simulated", "files", "hm", "merrec"}
