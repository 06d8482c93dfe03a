"""The dataset folder: its content, that no row is lost, and that it is written atomically."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from uuid import uuid4

import fsspec
import ibis
import pandera.ibis as pandera
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.ingestion import ingest as ingest_module
from components.ingestion.cleaning import check_row_counts
from components.ingestion.fingerprint import fingerprint_source
from components.ingestion.schemas import build_events_schema, build_items_schema
from components.ingestion.settings import IngestSettings
from refit.contract import EVENTS, ITEMS
from refit.dataset import DatasetManifest, RowCounts
from refit.errors import DataValidationError, UsageError
from refit.remote import upload

from .conftest import AS_OF, DAY_0, LENIENT


def test_tables_are_typed_sorted_and_split(shop, make_events, items):
    events = make_events(occasion="ball", height=170, note="x", price=3)
    shop.write("events", events[::-1])
    shop.write("items", items)
    shop.write("users", [{"user_id": f"u{n}", "age": 30 + n} for n in range(4)])
    manifest = shop.ingest(context_columns=["occasion", "height"])
    assert DatasetManifest.read(shop.out) == manifest
    assert pq.read_schema(shop.out / "events.parquet").names == [
        *("user_id", "item_id", "event_type", "event_time", "price", "occasion", "height")
    ]
    table = pq.read_table(shop.out / "events.parquet")
    assert table.schema.field("event_time").type == pa.timestamp("us", "UTC")
    assert table.schema.field("user_id").type == pa.string()
    assert table.schema.field("height").type == pa.float64()
    order = [(r["event_time"], r["user_id"], r["item_id"]) for r in table.to_pylist()]
    assert order == sorted(order)
    assert manifest.context_columns == ("occasion", "height")
    assert manifest.user_columns == ("age",)
    assert manifest.split.start == DAY_0
    assert manifest.split.end == AS_OF
    assert {name: c.kept for name, c in manifest.counts.items()} == {
        "events": 12,
        "items": 5,
        "users": 4,
    }


def test_every_version_of_a_user_is_kept(shop, make_events):
    versions = [(None, 30), (DAY_0, 31), (DAY_0, 31), (AS_OF + timedelta(days=1), 32)]
    shop.write("events", make_events())
    shop.write(
        "users", [{"user_id": "u0", "valid_from": since, "age": age} for since, age in versions]
    )
    counts = shop.ingest().counts["users"]
    assert sorted(row["age"] for row in shop.read("users")) == [30, 31]
    assert (counts.kept, counts.duplicates, counts.rejected) == (2, 1, 1), "one is in the future"


def test_every_version_of_an_item_is_kept_and_the_latest_is_its_row(shop, make_events, items):
    start = DAY_0 - timedelta(days=1)
    later = [{**items[0], "price": 5.0, "valid_from": DAY_0 + timedelta(days=n)} for n in (3, 1, 3)]
    later[1]["price"] = 7.0
    shop.write("events", make_events())
    shop.write("items", [*later, *({**item, "valid_from": start} for item in items)])
    manifest = shop.ingest()
    counts = manifest.counts["items"]
    assert (counts.kept, counts.duplicates, counts.rejected) == (len(items) + 2, 1, 0)
    latest = shop.read("items")
    assert [row["item_id"] for row in latest] == sorted(item["item_id"] for item in items)
    assert "valid_from" not in latest[0]
    assert latest[0]["price"] == 5.0
    versions = [row for row in shop.read("item_versions") if row["item_id"] == "i0"]
    assert [row["price"] for row in versions] == [items[0]["price"], 7.0, 5.0]
    lines = {check.name: check.shown for check in manifest.health}
    assert lines["items with one version"] == "4 of 5 (80.0%)"
    assert lines["changes between versions"] == "2: price 2"
    assert lines["items listed before their first version"] == "0 of 5 (0.0%)"


def test_versions_of_items_that_cannot_be_ordered_are_rejected(shop, make_events, items):
    first = [{**item, "valid_from": DAY_0 - timedelta(days=1)} for item in items]
    faulty = [
        *({**items[0], "price": float(n), "valid_from": DAY_0} for n in (1, 2)),
        {**items[1], "valid_from": None},
        {**items[2], "valid_from": AS_OF + timedelta(days=1)},
    ]
    shop.write("events", make_events())
    shop.write("items", [*first, *faulty])
    counts = shop.ingest(max_rejected={"items": 1.0}).counts["items"]
    assert counts.reasons == {
        "valid_from: missing": 1,
        "valid_from: is in the future": 1,
        "valid_from: the item has several rows of this time with different values": 2,
    }
    assert (counts.kept, counts.rejected) == (len(items), 4)
    assert pq.read_table(shop.out / "rejected/items.parquet").num_rows == 4


def test_a_version_after_the_window_is_left_out(shop, make_events, items):
    times = (DAY_0 - timedelta(days=1), datetime(2024, 3, 12, tzinfo=UTC))
    shop.write("events", make_events())
    shop.write("items", [{**item, "valid_from": time} for item in items for time in times])
    counts = shop.ingest(end="2024-03-12").counts["items"]
    assert (counts.kept, counts.outside) == (len(items), len(items))


def test_items_without_versions_have_no_file_and_no_line_of_them(shop, make_events, items):
    shop.write("events", make_events())
    shop.write("items", items)
    manifest = shop.ingest()
    assert not (shop.out / "item_versions.parquet").exists()
    assert not [check.name for check in manifest.health if "version" in check.name]


def test_items_and_users_are_derived_when_not_given(shop, make_events):
    shop.write("events", make_events())
    shop.ingest()
    assert [row["item_id"] for row in shop.read("items")] == ["i0", "i1", "i2", "i3", "i4"]
    assert [row["user_id"] for row in shop.read("users")] == ["u0", "u1", "u2", "u3"]


def test_split_by_days_ends_at_midnight_after_the_last_event(shop, make_events):
    shop.write("events", make_events())
    split = shop.ingest(
        as_of=None, validation_start=None, test_start=None, validation_days=3, test_days=2
    ).split
    assert split.end == datetime(2024, 3, 13, tzinfo=UTC)
    assert split.test_start == datetime(2024, 3, 11, tzinfo=UTC)
    assert split.validation_start == datetime(2024, 3, 8, tzinfo=UTC)


def test_an_event_at_the_end_is_not_in_the_window(shop, make_events):
    shop.write("events", make_events({"event_time": datetime(2024, 3, 12, tzinfo=UTC)}))
    counts = shop.ingest(end="2024-03-12").counts["events"]
    assert (counts.kept, counts.outside) == (11, 2)


def test_kept_tables_pass_the_full_schema_and_raw_ones_do_not(shop, make_events, items):
    shop.write("events", make_events({"price": -1.0}, {"event_type": "buy"}, price=2.0))
    shop.write("items", [*items, {"item_id": "x", "price": -1.0}])
    shop.ingest()
    con = ibis.duckdb.connect()
    con.raw_sql("SET TimeZone = 'UTC'")
    for name, contract, make in (
        ("events", EVENTS, lambda c: build_events_schema(c, AS_OF, None)),
        ("items", ITEMS, lambda c: build_items_schema(c, AS_OF)),
    ):
        raw = con.read_parquet(shop.source / f"{name}.parquet")
        kept = con.read_parquet(shop.out / f"{name}.parquet")
        columns = [c for c in contract if c.name in raw.columns and c.kind != "time"]
        make(columns).validate(kept, lazy=True)
        with pytest.raises(pandera.errors.SchemaErrors):
            make(columns).validate(raw, lazy=True)


@pytest.mark.parametrize("seed", range(3))
def test_every_row_is_accounted_for_with_random_errors(shop, seed):
    rng = random.Random(seed)
    rows = [
        {
            "user_id": rng.choice(["u1", "u2", "u3", "ü", None, "", "u\x07"]),
            "item_id": rng.choice(["i1", "i2", "i3", None, " "]),
            "event_type": rng.choice(["view", "like", "buy", None]),
            "event_time": DAY_0 + timedelta(days=rng.choice([*range(12), 60])),
            "price": rng.choice([1.0, 0.0, None, -1.0, float("nan"), float("inf")]),
        }
        for _ in range(4000)
    ]
    valid = [row for row in rows if _is_valid(row)]
    keys = {(r["user_id"], r["item_id"], r["event_type"], r["event_time"]) for r in valid}
    shop.write("events", rows)
    counts = shop.ingest(max_rejected={"events": 1.0}).counts["events"]
    assert counts == RowCounts(
        rows_in=4000,
        kept=len(keys),
        rejected=4000 - len(valid),
        duplicates=len(valid) - len(keys),
        reasons=counts.reasons,
    )
    kept = {
        (r["user_id"], r["item_id"], r["event_type"], r["event_time"]) for r in shop.read("events")
    }
    assert kept == keys
    assert (
        counts.reasons["event_type: unknown event type"]
        == Counter(row["event_type"] for row in rows)["buy"]
    )


def _is_valid(row):
    price = row["price"]
    return (
        row["user_id"] in {"u1", "u2", "u3", "ü"}
        and row["item_id"] in {"i1", "i2", "i3"}
        and row["event_type"] in {"view", "like"}
        and row["event_time"] <= AS_OF
        and (price is None or price != price or 0 <= price < float("inf"))
    )


def test_a_lost_row_stops_the_run():
    check_row_counts("events", RowCounts(rows_in=6, kept=3, rejected=2, duplicates=1))
    with pytest.raises(AssertionError, match="6 rows were read, but 3 kept"):
        check_row_counts("events", RowCounts(rows_in=6, kept=3, rejected=2, duplicates=0))


def test_an_interrupted_run_leaves_nothing(shop, make_events, monkeypatch):
    shop.write("events", make_events())

    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(ingest_module, "_find_split", die)
    with pytest.raises(KeyboardInterrupt):
        shop.ingest()
    assert [path.name for path in shop.out.parent.iterdir()] == ["source"]


def test_a_dataset_is_never_overwritten(shop, make_events):
    shop.write("events", make_events())
    shop.ingest()
    with pytest.raises(UsageError, match="datasets are never overwritten"):
        shop.ingest()


def test_a_dataset_holds_no_scratch(shop, make_events):
    shop.write("events", make_events())
    shop.ingest()
    assert sorted(path.name for path in shop.out.iterdir()) == [
        *("earlier.parquet", "events.parquet", "health.html", "health.json", "items.parquet"),
        *("manifest.json", "rejected", "users.parquet"),
    ]


def test_the_same_source_gives_the_same_bytes(shop, make_events, items):
    shop.write("events", make_events() * 3)
    shop.write("items", items)
    shop.ingest()
    first = {p.name: p.read_bytes() for p in shop.out.glob("*.*")}
    shop.out = shop.out.with_name("again")
    shop.ingest()
    assert {p.name: p.read_bytes() for p in shop.out.glob("*.*")} == first


def test_parts_in_a_folder_are_one_table(shop, make_events):
    rows = make_events()
    (shop.source / "events").mkdir()
    shop.write("events/part-0", rows[:5])
    shop.write("events/part-1", rows[5:])
    assert shop.ingest().counts["events"].kept == 12


def test_tables_may_be_in_other_places_and_of_either_format(shop, make_events, tmp_path):
    path = shop.write("happened", make_events())
    catalogue = shop.write_text(
        "catalogue", "item_id,price\n" + "".join(f"i{n},1\n" for n in range(5))
    )
    manifest = shop.ingest(path="", paths={"events": str(path), "items": str(catalogue)})
    assert manifest.counts["items"].kept == 5


def test_a_column_that_is_not_offered_is_named(shop, make_events):
    shop.write("events", make_events(occasion="ball"))
    with pytest.raises(UsageError, match="has no ocasion; it offers occasion"):
        shop.ingest(context_columns=["ocasion"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "ebay"}, "source: unknown source 'ebay': .*known: .*files, .*merrec"),
        ({"test_start": None}, "give either validation_start and test_start"),
        ({"test_days": 3}, "give either"),
        ({"test_start": "2024-03-01"}, "start < validation_start < test_start < end"),
        ({"naive_times": "Mars/Olympus"}, "IANA name"),
        ({"max_rejected": {"event": 0.1}}, "did you mean 'events'"),
        ({"max_rejected": {"events": 1.1}}, "less than or equal to 1"),
        ({"memory_limit": "lots"}, "memory_limit"),
        ({"path": "/nowhere/at/all"}, "does not exist"),
    ],
)
def test_invalid_settings_are_refused(shop, make_events, settings, message):
    shop.write("events", make_events())
    with pytest.raises(UsageError, match=message):
        shop.ingest(**settings)


def test_settings_are_the_same_after_json(shop):
    settings = IngestSettings.parse(
        {"source": "files", "validation_start": "2024-03-08", "test_start": "2024-03-10"}
    )
    assert IngestSettings.parse(settings.model_dump(mode="json")) == settings
    assert settings.test_start == datetime(2024, 3, 10, tzinfo=UTC)


def _fingerprint(shop, **changes):
    values = {"source": "files", "path": str(shop.source), "validation_days": 1, "test_days": 1}
    return fingerprint_source(IngestSettings.parse(values | changes))


def test_fingerprint_depends_on_data_and_settings_but_not_on_paths(shop, make_events, tmp_path):
    shop.write("events", make_events())
    first = _fingerprint(shop)
    assert _fingerprint(shop) == first
    assert _fingerprint(shop, threads=1, memory_limit="1GB") == first
    assert _fingerprint(shop, test_days=2) != first
    assert _fingerprint(shop, end="2024-03-09") != first
    moved = tmp_path / "moved"
    shop.source.rename(moved)
    shop.source = moved
    assert _fingerprint(shop) == first
    shop.write("events", make_events({"user_id": "new"}))
    assert _fingerprint(shop) != first


@pytest.fixture
def store():
    """A folder in fsspec's object store in memory."""
    return f"memory://{uuid4().hex}"


def test_a_url_is_the_same_data(shop, make_events, store):
    shop.write("events", make_events())
    near = _fingerprint(shop)
    upload(shop.source, f"{store}/market")
    assert _fingerprint(shop, path=f"{store}/market") == near
    alone = {"path": "", "paths": {"events": f"{store}/market/events.parquet"}}
    assert _fingerprint(shop, **alone) == near
    assert shop.ingest(path=f"{store}/market").counts["events"].kept == 12


def test_rejected_rows_go_where_a_url_says(shop, make_events, store):
    shop.write("events", make_events({"event_type": "sneeze"}))
    with pytest.raises(DataValidationError, match=f"rejected rows are in {store}/rejected/"):
        shop.ingest(max_rejected={"events": 0}, rejected_folder=f"{store}/rejected")
    files = fsspec.filesystem("memory").find(f"{store}/rejected")
    assert {PurePosixPath(name).name for name in files} >= {"events.parquet", "violations.json"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nothing/here", "there are no files at memory://"),
        ("what://x", "what://x cannot be read"),
    ],
)
def test_an_empty_or_unknown_url_is_named(shop, url, message):
    with pytest.raises(UsageError, match=message):
        _fingerprint(shop, path=url)


def test_manifest_carries_the_fingerprint_of_the_submission(shop, make_events):
    shop.write("events", make_events())
    values = {"as_of": AS_OF, "validation_start": "2024-03-08", "test_start": "2024-03-10"}
    loose = {"events": 0.9, "items": 0.9, "users": 0.9}
    values |= {"health": LENIENT}
    assert shop.ingest().fingerprint == fingerprint_source(
        IngestSettings.parse(
            {"source": "files", "path": str(shop.source), "max_rejected": loose} | values
        )
    )


def test_a_missing_file_is_an_error_before_a_run_is_submitted(shop):
    with pytest.raises(UsageError, match="no events"):
        _fingerprint(shop)


def test_violations_are_written_with_examples(shop, make_events):
    shop.write("events", make_events({"price": -1.0}, {"price": -2.0}, price=1.0))
    shop.ingest()
    text = (shop.out / "rejected" / "violations.json").read_text()
    assert '"reason": "price: negative"' in text
    assert '"count": 2' in text
    assert '"-1.0"' in text


def test_invalid_data_has_the_documented_exit_code():
    assert DataValidationError.exit_code == 4
