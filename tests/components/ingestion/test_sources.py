"""Each source with a few hand-made rows in its published columns; with -m data, the real files."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.ingestion.fingerprint import fingerprint_source
from components.ingestion.ingest import ingest
from components.ingestion.settings import IngestSettings
from components.ingestion.sources import SOURCES
from refit.errors import DataValidationError, UsageError
from simulation.history import write_history

DAYS = [datetime(2017, 6, day) for day in range(1, 11)]
SPLIT = {"validation_start": "2017-06-05", "test_start": "2017-06-08"}
ONE_USER = {"largest_user": {"stop": None}}
"""The hand-made rows of some sources are of one user."""


def _ingest(tmp_path, source, path=None, **settings):
    root = tmp_path / "source" if path is None else path
    values = {"source": source, "path": str(root), "health": ONE_USER} | SPLIT | settings
    return ingest(IngestSettings.parse(values), tmp_path / "dataset")


def _read(tmp_path, name):
    return pq.read_table(tmp_path / "dataset" / f"{name}.parquet").to_pylist()


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def _write_rentals(folder, **changes):
    n = len(DAYS)
    columns = {
        "user_id": list(range(n)),
        "item_id": [7] * n,
        "review_date": DAYS,
        "rented_for": ["wedding"] * n,
        "category": ["gown"] + ["dress"] * (n - 1),
        "size": [8] * n,
        "body_type": ["pear"] * n,
        "age": [9.0, 10.0, 100.0, 101.0, None, *[30.0] * (n - 5)],
        "height_in": [65.0] * n,
        "weight_lbs": [None] * n,
        "bust_size_num": [34.0] * n,
        "bust_size_letter": ["d", None] + ["d"] * (n - 2),
        "rating": [10.0] * n,
    }
    pq.write_table(pa.table(columns | changes), folder / "rentals.parquet")


def test_renttherunway(tmp_path, source):
    _write_rentals(source)
    manifest = _ingest(tmp_path, "renttherunway")
    events = _read(tmp_path, "events")
    assert events[0] == {
        "user_id": "0",
        "item_id": "7",
        "event_type": "purchase",
        "event_time": datetime(2017, 6, 1, tzinfo=UTC),
        "occasion": "wedding",
        "size": "8",
        "body_type": "pear",
        "bust": "34d",
        "age": None,
        "height_in": 65.0,
        "weight_lbs": None,
        "bust_size_num": 34.0,
        "bust_size_letter": "d",
    }
    assert [row["age"] for row in events[:5]] == [None, 10.0, 100.0, None, None]
    assert events[1]["bust"] is None
    assert manifest.counts["events"].rejected == 0
    assert _read(tmp_path, "items") == [{"item_id": "7", "category_1": "gown"}]


def test_a_missing_column_of_a_source_is_named(tmp_path, source):
    _write_rentals(source)
    path = source / "rentals.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["rented_for"]), path)
    with pytest.raises(DataValidationError, match="lacks rented_for"):
        _ingest(tmp_path, "renttherunway")


def test_online_retail_by_day(tmp_path, source):
    n = len(DAYS)
    table = {
        "InvoiceNo": ["1"] * n,
        "order_date": pa.array(DAYS).cast(pa.date32()),
        "customer_id": ["17850"] * n,
        "country": ["France"] * n,
        "StockCode": ["85123A"] * n,
        "Description": [None, "HEART", *["RED HEART"] * (n - 2)],
        "UnitPrice": [2.55, 3.0, *[4.0] * (n - 2)],
    }
    both = pa.concat_tables([pa.table(table)] * 2)
    pq.write_table(both, source / "transactions_2010-12_2011-12.parquet")
    manifest = _ingest(tmp_path, "online_retail")
    counts = manifest.counts["events"]
    assert (counts.kept, counts.duplicates) == (n, n)
    assert _read(tmp_path, "items") == [{"item_id": "85123A", "title": "HEART", "price": 2.55}]
    first = _read(tmp_path, "events")[0]
    assert (first["price"], first["country"], first["session_id"]) == (2.55, "France", "1")


def test_online_retail_by_minute(tmp_path, source):
    n = len(DAYS)
    table = {
        "BasketID": ["1"] * n,
        "Customer ID": [14590.0] * n,
        "InvoiceDate": pa.array(DAYS, pa.timestamp("ns")),
        "StockCode": ["1"] * n,
        "Product": ["mug"] * n,
        "Price": [1.0] * n,
        "Country": ["United Kingdom"] * n,
    }
    path = source / "transactions_uk_2010-01_2010-12.parquet"
    pq.write_table(pa.table(table), path)
    _ingest(tmp_path, "online_retail", path)
    assert _read(tmp_path, "users") == [{"user_id": "14590"}]


def test_vibrent(tmp_path, source):
    orders = ["customer.id;outfit.id;rentalPeriod.start;rentalPeriod.end"]
    orders += [f"0{d.day};outfit.a;{d:%Y-%m-%d};{d:%Y-%m-%d}" for d in DAYS]
    (source / "original_orders.csv").write_text("\n".join(orders))
    header = (
        "date_added;id;name;brand;owner;condition;condition_desctription;retail_price;tc_price;sold"
    )
    sales = [
        ";outfit.a;Skirt;Filippa K;FJONG;5 - Damaged;Flekker;800;50.0;True",
        "2017-06-02;outfit.b;Kjole;Samsøe;FJONG;2 - Good;;4700;1175.0;False",
        "2019-06-02;outfit.later;Kjole;Samsøe;FJONG;2 - Good;;4700;1175.0;False",
    ]
    (source / "third_chance.csv").write_text("\n".join([header, *sales]), encoding="utf-8")
    manifest = _ingest(tmp_path, "vibrent")
    rented, listed = _read(tmp_path, "items")
    assert manifest.counts["items"].outside == 1
    assert (rented["item_id"], rented["brand"]) == ("outfit.a", "Filippa K")
    assert (rented["condition"], rented["price"], rented["listed_at"]) == (None, None, None)
    assert (listed["price"], listed["currency"], listed["seller_id"]) == (1175.0, "NOK", "FJONG")
    assert listed["listed_at"] == datetime(2017, 6, 2, tzinfo=UTC)
    assert _read(tmp_path, "users")[0] == {"user_id": "01"}


def test_hm(tmp_path, source):
    transactions = ["t_dat,customer_id,article_id,price,sales_channel_id"]
    transactions += [f"{day:%Y-%m-%d},c1,0108775015,0.0169,2" for day in DAYS]
    transactions.append(transactions[-1])
    (source / "transactions_train.csv").write_text("\n".join(transactions))
    articles = [
        "article_id,product_code,prod_name,product_type_no,product_type_name,product_group_name,"
        "graphical_appearance_no,graphical_appearance_name,colour_group_code,colour_group_name,"
        "perceived_colour_value_id,perceived_colour_value_name,perceived_colour_master_id,"
        "perceived_colour_master_name,department_no,department_name,index_code,index_name,"
        "index_group_no,index_group_name,section_no,section_name,garment_group_no,"
        "garment_group_name,detail_desc",
        "0108775015,0108775,Strap top,253,Vest top,Garment Upper body,1010016,Solid,09,Black,4,"
        "Dark,5,Black,1676,Jersey Basic,A,Ladieswear,1,Ladieswear,16,Womens,1002,Jersey,"
        '"Soft, narrow"',
    ]
    (source / "articles.csv").write_text("\n".join(articles))
    (source / "customers.csv").write_text(
        "customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code\n"
        "c1,1,,ACTIVE,NONE,49,p1\n"
    )
    manifest = _ingest(tmp_path, "hm")
    counts = manifest.counts["events"]
    assert (counts.kept, counts.duplicates) == (10, 1)
    (item,) = _read(tmp_path, "items")
    assert item["item_id"] == "0108775015"
    assert item["description"] == "Soft, narrow"
    assert (item["category_1"], item["category_3"], item["colour"]) == (
        *("Ladieswear", "Vest top", "Black"),
    )
    (user,) = _read(tmp_path, "users")
    assert (user["age"], user["active"], user["club_member_status"]) == (49.0, None, "ACTIVE")
    assert _read(tmp_path, "events")[0]["sales_channel"] == "2"


def test_hm_names_missing_files_and_their_origin(tmp_path, source):
    with pytest.raises(
        UsageError, match=r"holds no transactions_train\.csv, articles\.csv.*Kaggle"
    ):
        _ingest(tmp_path, "hm")


def _write_merrec(folder, **changes):
    kinds = (
        "item_view",
        "item_like",
        "item_add_to_cart_tap",
        "offer_make",
        "buy_start",
        "buy_comp",
    )
    rows = [
        {
            "user_id": day.day,
            "sequence_id": 1,
            "session_id": 3,
            "item_id": 100 + day.day % 2,
            "product_id": "p1",
            "event_id": kinds[number % len(kinds)],
            "stime": f"{day:%Y-%m-%d} 08:00:00.250 UTC",
            "name": "Wool coat",
            "price": 25.0 + number,
            "c0_name": "Women",
            "c1_name": "Coats",
            "c2_name": "Wool",
            "brand_name": "Zara",
            "brand_id": 5,
            "item_condition_id": 3,
            "item_condition_name": "Good",
            "size_id": 12,
            "color": "black",
            "shipper_id": 1,
            "sequence_length": 10,
        }
        | changes
        for number, day in enumerate(DAYS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "000000000000.parquet")


def test_merrec(tmp_path, source):
    _write_merrec(source)
    _ingest(tmp_path, "merrec")
    events = _read(tmp_path, "events")
    assert [row["event_type"] for row in events[:6]] == [
        *("view", "like", "cart", "offer", "cart", "purchase")
    ]
    assert events[0]["event_time"] == datetime(2017, 6, 1, 8, 0, 0, 250_000, tzinfo=UTC)
    item = _read(tmp_path, "items")[1]
    assert item == {
        "item_id": "101",
        "title": "Wool coat",
        "category_1": "Women",
        "category_2": "Coats",
        "category_3": "Wool",
        "brand": "Zara",
        "condition": "Good",
        "size": "12",
        "colour": "black",
        "product_id": "p1",
        "shipper": "1",
        "price": 25.0,
        "currency": "USD",
    }


def test_an_unknown_event_type_of_merrec_is_rejected_under_its_name(tmp_path, source):
    _write_merrec(source, event_id="item_share")
    with pytest.raises(
        DataValidationError, match="unknown event type: 10 rows, which are 'item_share'"
    ):
        _ingest(tmp_path, "merrec")


SMALL_MARKET = {"days": 20, "n_shoppers": 200, "visits_per_day": 60, "listings_per_day": 30}


def test_simulated(tmp_path):
    manifest = _ingest(
        tmp_path,
        "simulated",
        path="",
        simulated=SMALL_MARKET,
        validation_start=None,
        test_start=None,
        validation_days=4,
        test_days=4,
    )
    assert manifest.simulated
    assert "Simulated" in manifest.terms
    assert manifest.counts["events"].kept > 0
    assert manifest.counts["events"].rejected == 0


def test_simulated_tables_are_read_from_a_path(tmp_path):
    write_history(SMALL_MARKET, tmp_path / "made")
    manifest = _ingest(
        tmp_path,
        "simulated",
        path=str(tmp_path / "made"),
        simulated={},
        validation_start=None,
        test_start=None,
        validation_days=4,
        test_days=4,
    )
    made = pq.read_table(tmp_path / "made" / "events.parquet")
    assert manifest.simulated
    assert manifest.counts["events"].kept == made.num_rows


def test_simulated_fingerprint_depends_on_its_settings():
    def take(seed):
        return fingerprint_source(
            IngestSettings(
                source="simulated", simulated={"seed": seed}, validation_days=4, test_days=4
            )
        )

    assert take(1) == take(1) != take(2)


@pytest.mark.parametrize("name", SOURCES.builtin_names())
def test_every_source_states_its_terms_and_its_origin(name):
    source = SOURCES.load(name)
    assert len(source.TERMS) > 20
    assert "Origin:" in (source.__doc__ or "")
    assert source.IS_SIMULATED is (name == "simulated")


REAL = {
    "renttherunway": ("renttherunway", 192_544, 193, 5_850, 105_571, "2017-05-01", "2017-07-01"),
    "online_retail": ("online_retail", 397_924, 12_510, 3_665, 4_339, "2011-09-01", "2011-10-01"),
    "vibrent": ("vibrent_partial", 12_558, 800, 2_849, 5_438, "2019-06-01", "2020-01-01"),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_files(tmp_path, public_data, name):
    folder, rows, duplicates, items, users, validation_start, test_start = REAL[name]
    manifest = _ingest(
        tmp_path,
        name,
        public_data / folder,
        validation_start=validation_start,
        test_start=test_start,
    )
    events = manifest.counts["events"]
    assert (events.rows_in, events.rejected, events.duplicates) == (rows, 0, duplicates)
    assert manifest.counts["items"].kept == items
    assert manifest.counts["users"].kept == users


def _write_sequences(folder, lines, attributes=None):
    (folder / "seen.txt").write_text("\n".join(lines))
    options = {"sequences": "seen.txt"}
    if attributes is not None:
        (folder / "known.json").write_text(json.dumps(attributes))
        options["attributes"] = "known.json"
    return {
        "options": options,
        "validation_start": None,
        "test_start": None,
        "validation_days": 1,
        "test_days": 1,
    }


def test_sequences_are_split_into_the_last_the_last_but_one_and_the_rest(tmp_path, source):
    settings = _write_sequences(
        source, ["1 a b c d", "2 b a", "", "3 c e b"], {"a": [7, 9], "f": [7], "b": []}
    )
    manifest = _ingest(tmp_path, "sequences", **settings)
    events, split = _read(tmp_path, "events"), manifest.split
    parts = {"train": [], "validation": [], "test": []}
    for row in events:
        time = row["event_time"]
        name = "train" if time < split.validation_start else "validation"
        parts["test" if time >= split.test_start else name].append(row["user_id"] + row["item_id"])
    assert parts == {
        "train": ["1a", "1b", "3c"],
        "validation": ["1c", "2b", "3e"],
        "test": ["1d", "2a", "3b"],
    }
    assert {row["event_type"] for row in events} == {"purchase"}
    items = {row["item_id"]: row for row in _read(tmp_path, "items")}
    assert {name: row["attributes"] for name, row in items.items()} == {
        "a": "7 9",
        "b": "",
        "c": None,
        "d": None,
        "e": None,
        "f": "7",
    }
    assert {row["listed_at"] for row in items.values()} == {events[0]["event_time"]}
    assert events[0]["event_time"] == split.start


def test_sequences_without_attributes(tmp_path, source):
    _ingest(tmp_path, "sequences", **_write_sequences(source, ["1 a b c"]))
    assert "attributes" not in _read(tmp_path, "items")[0]


@pytest.mark.parametrize(
    ("lines", "attributes", "error", "words"),
    [
        (["1 a b c", "2"], None, DataValidationError, "line 2 of .*a user without an item: '2'"),
        (["1 a b c", "1 b"], None, DataValidationError, "line 2 of .*a second line of the same"),
        ([], None, DataValidationError, "is empty"),
        (["1 a b c"], [1], DataValidationError, "must be a JSON object with a list"),
        (["1 a b c"], {"a": 1}, DataValidationError, "must be a JSON object with a list"),
    ],
)
def test_sequences_that_cannot_be_read(tmp_path, source, lines, attributes, error, words):
    settings = _write_sequences(source, lines, attributes)
    with pytest.raises(error, match=words):
        _ingest(tmp_path, "sequences", **settings)


def test_the_files_of_sequences_are_named_by_options(tmp_path, source):
    settings = _write_sequences(source, ["1 a b c"])
    (source / "seen.txt").unlink()
    with pytest.raises(UsageError, match=r"holds no seen\.txt"):
        _ingest(tmp_path, "sequences", **settings)
    with pytest.raises(UsageError, match="sequences"):
        _ingest(tmp_path, "sequences", **settings | {"options": {}})


def _write_given_split(folder, train, test, **options):
    (folder / "train.txt").write_text("\n".join(train))
    (folder / "test.txt").write_text("\n".join(test))
    return {
        "options": {"train": "train.txt", "test": "test.txt", **options},
        "validation_start": None,
        "test_start": None,
        "validation_days": 1,
        "test_days": 1,
    }


def _items_by_part(folder, split):
    parts = {"train": {}, "validation": {}, "test": {}}
    for row in _read(folder, "events"):
        time = row["event_time"]
        name = "train" if time < split.validation_start else "validation"
        part = parts["test" if time >= split.test_start else name]
        part.setdefault(row["user_id"], set()).add(row["item_id"])
    return parts


def test_a_given_split_is_split_as_given_and_validation_is_held_out_of_training(tmp_path, source):
    train = ["1 a b c d e f g h i j", "", "2 a b", "3 z"]
    settings = _write_given_split(source, train, ["2 c d e", "1 x y", "9 a"], held_out=0.2)
    manifest = _ingest(tmp_path, "given_split", **settings)
    parts = _items_by_part(tmp_path, manifest.split)
    assert parts["test"] == {"1": {"x", "y"}, "2": {"c", "d", "e"}, "9": {"a"}}
    assert {user: len(items) for user, items in parts["validation"].items()} == {"1": 2}
    assert parts["train"]["1"] | parts["validation"]["1"] == set("abcdefghij")
    assert not parts["train"]["1"] & parts["validation"]["1"]
    assert parts["train"]["2"] == {"a", "b"}  # a fifth of two items is none
    assert parts["train"]["3"] == {"z"}
    events = _read(tmp_path, "events")
    test_times = {row["event_time"] for row in events if row["item_id"] in "xy"}
    assert len(test_times) == 1
    items = _read(tmp_path, "items")
    assert {row["item_id"] for row in items} == set("abcdefghijxyz")
    assert {row["listed_at"] for row in items} == {min(row["event_time"] for row in events)}


def test_what_is_held_out_of_a_given_split_follows_from_the_seed(tmp_path, source):
    def held_out(name, seed):
        (tmp_path / name).mkdir()
        train = ["1 " + " ".join("abcdefghijklmnopqrst")]
        settings = _write_given_split(source, train, ["1 x"], held_out=0.5, seed=seed)
        found = _ingest(tmp_path / name, "given_split", source, **settings)
        return _items_by_part(tmp_path / name, found.split)["validation"]["1"]

    assert held_out("a", 0) == held_out("b", 0) != held_out("c", 1)


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (["1 a b c", "2"], ["1 d"], "line 2 of .*train.txt is a user without an item: '2'"),
        (["1 a b c"], ["1 d", "1 e"], "line 2 of .*test.txt is a second line of the same"),
        (["1 a b c"], [], "test.txt is empty"),
        (["1 a b a"], ["1 d"], "an item of user '1' twice"),
        (["1 a b c"], ["1 d b"], "item 'b' of user '1' is in both files"),
    ],
)
def test_given_splits_that_cannot_be_read(tmp_path, source, train, test, words):
    with pytest.raises(DataValidationError, match=words):
        _ingest(tmp_path, "given_split", **_write_given_split(source, train, test))


@pytest.mark.parametrize("held_out", [0, 1, -0.1])
def test_a_given_split_needs_something_to_train_on_and_to_validate_on(tmp_path, source, held_out):
    settings = _write_given_split(source, ["1 a b c"], ["1 d"], held_out=held_out)
    with pytest.raises(UsageError, match="held_out"):
        _ingest(tmp_path, "given_split", **settings)


def test_the_files_of_a_given_split_are_named_by_options(tmp_path, source):
    settings = _write_given_split(source, ["1 a b c"], ["1 d"])
    (source / "test.txt").unlink()
    with pytest.raises(UsageError, match=r"holds no test\.txt"):
        _ingest(tmp_path, "given_split", **settings)
