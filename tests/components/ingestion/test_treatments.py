"""Every documented treatment of invalid data; the table is in the README."""

import gzip
from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refit.errors import DataValidationError, RefitError

NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)


BAD_EVENTS = [
    ({"user_id": None}, "user_id: missing"),
    ({"item_id": None}, "item_id: missing"),
    ({"event_type": None}, "event_type: missing"),
    ({"event_time": None}, "event_time: missing"),
    ({"user_id": ""}, "user_id: empty"),
    ({"user_id": " \t\u00a0"}, "user_id: empty"),
    ({"user_id": "u\x00"}, "user_id: holds control or invisible characters"),
    ({"item_id": "i\n1"}, "item_id: holds control or invisible characters"),
    ({"user_id": "u\u200b1"}, "user_id: holds control or invisible characters"),
    ({"user_id": "\ufeffu1"}, "user_id: holds control or invisible characters"),
    ({"user_id": "u\u202e1"}, "user_id: holds control or invisible characters"),
    ({"event_type": "View"}, "event_type: unknown event type"),
    ({"event_type": "refund"}, "event_type: unknown event type"),
    (
        {"event_time": datetime(2024, 4, 1, 0, 0, 1, tzinfo=UTC)},
        "event_time: is in the future",
    ),
    ({"event_time": datetime(1970, 1, 1, tzinfo=UTC)}, "event_time: before 1990"),
    ({"price": -0.01}, "price: negative"),
    ({"price": float("inf")}, "price: not finite"),
]


def test_a_bad_event_is_rejected_with_its_reason(shop, make_events):
    bad = [change | {"surface": f"place {n}"} for n, (change, _) in enumerate(BAD_EVENTS)]
    shop.write("events", make_events(*bad, price=5.0, surface="home"))
    counts = shop.ingest().counts["events"]
    assert (counts.rows_in, counts.kept, counts.rejected) == (12 + len(bad), 12, len(bad))
    rejected = {row["surface"]: row for row in shop.read_rejected("events")}
    reasons = Counter()
    for n, (change, reason) in enumerate(BAD_EVENTS):
        row = rejected[f"place {n}"]
        found = row["reason"].split("; ")
        assert reason in found
        reasons.update(found)
        (column,) = change
        assert row[column] == change[column]
    assert counts.reasons == reasons


def test_a_row_with_several_violations_has_all_reasons_and_counts_once(shop, make_events):
    shop.write("events", make_events({"user_id": None, "event_type": "buy"}))
    counts = shop.ingest().counts["events"]
    assert counts.rejected == 1
    assert counts.reasons == {"user_id: missing": 1, "event_type: unknown event type": 1}


def test_odd_but_visible_ids_are_kept_byte_for_byte(shop, make_events):
    odd = {"Ünïcødé", "e\u0301", "\u00e9", "日本", "🧥", " padded ", "a;b'\"c"}
    shop.write("events", make_events(*({"user_id": name} for name in odd)))
    shop.ingest()
    assert odd <= {row["user_id"] for row in shop.read("users")}


def test_ids_in_different_unicode_forms_stay_two_users(shop, make_events):
    shop.write("events", make_events({"user_id": "e\u0301"}, {"user_id": "\u00e9"}))
    assert shop.ingest().counts["events"].kept == 14


def test_text_that_is_not_unicode_stops_the_run(shop, make_events):
    rows = make_events()
    broken = pa.array([b"\xff\xfe"] * len(rows), pa.binary()).view(pa.string())
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.set_column(0, "user_id", broken), shop.source / "events.parquet")
    with pytest.raises(DataValidationError):
        shop.ingest()


def test_whole_number_ids_become_text_and_fractions_stop_the_run(shop, make_events):
    shop.write("events", make_events(user_id=17))
    shop.ingest()
    assert {row["user_id"] for row in shop.read("users")} == {"17"}
    shop.write("events", make_events(user_id=17.5))
    with pytest.raises(DataValidationError, match="column 'user_id' cannot be read as a string"):
        _ingest_again(shop)


def _ingest_again(shop, **settings):
    shop.out = shop.out.with_name("again")
    return shop.ingest(**settings)


def ingest_with_times(shop, make_events, *written):
    """The reasons for which events with these times in text are rejected, beside valid ones."""
    valid = [row | {"event_time": row["event_time"].isoformat()} for row in make_events()]
    shop.write("events", [*valid, *(valid[0] | {"event_time": text} for text in written)])
    assert shop.ingest().counts["events"].kept == len(valid)
    return {row["event_time"]: row["reason"] for row in shop.read_rejected("events")}


def test_naive_times_in_text_are_rejected_by_default(shop, make_events):
    naive = ("2024-03-04 12:00:00", "2024-03-04", "2024-03-04T12:00:00.5")
    reasons = ingest_with_times(shop, make_events, *naive)
    assert reasons == dict.fromkeys(naive, "event_time: has no time zone")


def test_a_naive_column_is_rejected_as_a_whole(shop, make_events):
    rows = [row | {"event_time": row["event_time"].replace(tzinfo=None)} for row in make_events()]
    shop.write("events", rows)
    with pytest.raises(DataValidationError, match="has no time zone: 12 rows"):
        shop.ingest()


def test_naive_times_are_read_in_the_given_zone(shop, make_events):
    rows = [row | {"event_time": row["event_time"].replace(tzinfo=None)} for row in make_events()]
    shop.write("events", rows)
    shop.ingest(naive_times="Europe/Oslo")
    assert shop.read("events")[0]["event_time"] == datetime(2024, 3, 1, 11, tzinfo=UTC)


def test_times_in_several_zones_are_each_read_with_their_offset(shop, make_events):
    written = (
        "2024-03-04T12:00:00Z",
        "2024-03-04 14:00:00+02:00",
        "2024-03-04T04:00:00-0800",
        "2024-03-04 12:00:00 UTC",
        "2024-03-04T12:00:00.000000+00",
    )
    valid = [row | {"event_time": row["event_time"].isoformat()} for row in make_events()]
    same = [valid[0] | {"user_id": f"z{n}", "event_time": t} for n, t in enumerate(written)]
    shop.write("events", valid + same)
    shop.ingest()
    times = {row["event_time"] for row in shop.read("events") if row["user_id"].startswith("z")}
    assert times == {NOON}
    assert pq.read_schema(shop.out / "events.parquet").field("event_time").type == pa.timestamp(
        "us", "UTC"
    )


def test_text_that_is_not_a_time_is_rejected(shop, make_events):
    odd = ("soon", "2024-13-45T12:00:00Z", "1709553600", "12:00:00Z")
    reasons = ingest_with_times(shop, make_events, *odd)
    assert reasons == dict.fromkeys(odd, "event_time: cannot be read as a time")


def test_times_as_numbers_stop_the_run(shop, make_events):
    shop.write("events", make_events(event_time=1_709_553_600))
    with pytest.raises(DataValidationError, match="cannot be read as a time: it holds int64"):
        shop.ingest()


def test_a_repeated_event_is_a_duplicate(shop, make_events):
    events = make_events()
    shop.write("events", [*events, events[0], events[0], events[5]])
    counts = shop.ingest().counts["events"]
    assert (counts.rows_in, counts.kept, counts.rejected, counts.duplicates) == (15, 12, 0, 3)


def test_which_duplicate_is_kept_does_not_depend_on_the_order_of_rows(shop, make_events):
    rows = make_events({"surface": "search"}, {"surface": "home"}, {"surface": None}, surface="z")
    shop.write("events", rows)
    shop.ingest()
    first = shop.read("events")
    shop.write("events", rows[::-1])
    _ingest_again(shop)
    assert shop.read("events") == first


def test_a_price_in_single_precision_is_the_price_that_was_meant(shop, make_events, items):
    rows = [{**row, "price": 19.99 + number} for number, row in enumerate(items)]
    schema = pa.schema([("item_id", pa.string()), ("price", pa.float32())])
    shop.write("events", make_events())
    pq.write_table(pa.Table.from_pylist(rows, schema), shop.source / "items.parquet")
    shop.ingest()
    prices = {row["item_id"]: row["price"] for row in shop.read("items")}
    assert prices == {f"i{number}": 19.99 + number for number in range(5)}


def test_a_hide_is_an_event(shop, make_events):
    shop.write("events", make_events({"event_type": "hide"}))
    assert shop.ingest().counts["events"].kept == 13


def test_nan_is_read_as_null(shop, make_events):
    rows = make_events({"price": float("nan"), "user_id": "z"}, price=1.0)
    shop.write("events", rows)
    assert shop.ingest().counts["events"].kept == 13
    assert next(r for r in shop.read("events") if r["user_id"] == "z")["price"] is None


BAD_ITEMS = [
    ({"item_id": None}, "item_id: missing"),
    ({"price": -1.0}, "price: negative"),
    ({"delisted_at": NOON - timedelta(days=9)}, "delisted_at: before listed_at"),
    ({"listed_at": datetime(2024, 5, 1, tzinfo=UTC)}, "listed_at: is in the future"),
    ({"seller_id": " "}, "seller_id: empty"),
    ({"image_embedding": [1.0, 2.0]}, "image_embedding: not 3 finite numbers"),
    ({"image_embedding": [1.0, None, 2.0]}, "image_embedding: not 3 finite numbers"),
    ({"image_embedding": [1.0, float("nan"), 2.0]}, "image_embedding: not 3 finite numbers"),
    ({"currency": "USD"}, "currency: not EUR"),
]


def test_a_bad_item_is_rejected_with_its_reason(shop, make_events, items):
    valid = {
        "listed_at": NOON - timedelta(days=5),
        "delisted_at": None,
        "seller_id": "s1",
        "image_embedding": [0.1, 0.2, 0.3],
        "currency": None,
    }
    bad = [
        items[0] | valid | {"item_id": f"bad {n}", "title": f"title {n}"} | change
        for n, (change, _) in enumerate(BAD_ITEMS)
    ]
    shop.write("events", make_events())
    shop.write("items", [*(item | valid | {"title": "coat"} for item in items), *bad])
    counts = shop.ingest(currency="EUR").counts["items"]
    assert (counts.rows_in, counts.kept, counts.rejected) == (5 + len(bad), 5, len(bad))
    assert counts.reasons == Counter(reason for _, reason in BAD_ITEMS)
    rejected = {row["title"]: row["reason"] for row in shop.read_rejected("items")}
    assert rejected == {f"title {n}": reason for n, (_, reason) in enumerate(BAD_ITEMS)}
    kept = shop.read("items")
    assert {row["currency"] for row in kept} == {"EUR"}
    assert pq.read_schema(shop.out / "items.parquet").field("image_embedding").type.value_type == (
        pa.float32()
    )


def test_an_event_on_an_unknown_item_is_rejected(shop, make_events, items):
    shop.write("events", make_events({"item_id": "nowhere"}))
    shop.write("items", items)
    counts = shop.ingest().counts["events"]
    assert counts.reasons == {"item_id: not among the items": 1}


def test_an_event_on_a_rejected_item_is_rejected_too(shop, make_events, items):
    shop.write("events", make_events())
    shop.write("items", [*items[:4], items[4] | {"price": -1.0}])
    counts = shop.ingest().counts
    assert counts["items"].rejected == 1
    assert counts["events"].reasons == {"item_id: not among the items": 2}


def test_a_repeated_item_is_a_duplicate_and_the_latest_listing_is_kept(shop, make_events, items):
    listed = [item | {"listed_at": NOON - timedelta(days=5)} for item in items]
    again = listed[0] | {"price": 99.0, "listed_at": NOON}
    shop.write("events", make_events())
    shop.write("items", [*listed, again, listed[0] | {"listed_at": None}])
    counts = shop.ingest().counts["items"]
    assert (counts.kept, counts.duplicates) == (5, 2)
    assert shop.read("items")[0]["price"] == 99.0


def test_a_sale_after_the_window_is_not_known(shop, make_events, items):
    sold = [item | {"delisted_at": NOON + timedelta(days=n)} for n, item in enumerate(items)]
    shop.write("events", make_events())
    shop.write("items", [*sold[:4], sold[4] | {"delisted_at": datetime(2024, 3, 20, tzinfo=UTC)}])
    shop.ingest(end="2024-03-13")
    assert [row["delisted_at"] is None for row in shop.read("items")] == [False] * 4 + [True]


def test_rows_outside_the_window_are_counted_separately(shop, make_events, items):
    listed = [item | {"listed_at": NOON - timedelta(days=9)} for item in items]
    later = {"item_id": "later", "price": 1.0, "listed_at": NOON + timedelta(days=9)}
    shop.write("events", make_events({"event_time": datetime(2024, 5, 1, tzinfo=UTC)}))
    shop.write("items", [*listed, later])
    counts = shop.ingest(start="2024-03-03", end="2024-03-12").counts
    assert (counts["events"].outside, counts["events"].rows_in) == (3, 10)
    assert counts["events"].reasons == {"event_time: is in the future": 1}
    assert (counts["items"].outside, counts["items"].rows_in) == (1, 5)


def test_purchases_and_hides_before_the_window_are_kept_apart(shop, make_events):
    old = [
        {"event_type": kind, "event_time": NOON - timedelta(days=days)}
        for kind, days in (("purchase", 300), ("hide", 200), ("view", 200), ("purchase", 300))
    ]
    shop.write("events", make_events(*old))
    counts = shop.ingest(start="2024-03-01").counts
    assert counts["events"].outside == 4
    assert [(row["event_type"], row["event_time"]) for row in shop.read("earlier")] == [
        ("hide", NOON - timedelta(days=200)),
        ("purchase", NOON - timedelta(days=300)),
    ]
    assert {row["event_type"] for row in shop.read("events")} == {"view"}


def test_csv_with_a_byte_order_mark_and_leading_zeros(shop, make_events):
    lines = ["user_id,item_id,event_type,event_time,price,occasion"]
    lines += [
        f"00{d},i,view,{r['event_time'].isoformat()},,ball" for d, r in enumerate(make_events())
    ]
    shop.write_text("events", "\r\n".join(lines), "utf-8-sig")
    shop.write_text("users", "user_id\n000\n001\n")
    manifest = shop.ingest()
    assert manifest.counts["events"].kept == 12
    first = shop.read("events")[0]
    assert (first["user_id"], first["price"], first["occasion"]) == ("000", None, "ball")
    assert manifest.context_columns == ("occasion",)


def test_csv_values_are_read_as_their_kind_or_rejected(shop, make_events):
    header = "user_id;item_id;event_type;event_time;price;age;size"
    valid = [f"u;i;view;{r['event_time'].isoformat()}; 4.5 ;33;08" for r in make_events()]
    bad = "u;i;like;2024-03-04T12:00:00Z;cheap;old;08"
    shop.write_text("events", "\n".join([header, *valid, bad]))
    shop.write_text("items", 'item_id;image_embedding\ni;"[1, 2.5]"\n')
    counts = shop.ingest(number_columns=["age"]).counts["events"]
    assert counts.reasons == {
        "price: cannot be read as a number": 1,
        "age: cannot be read as a number": 1,
    }
    first = shop.read("events")[0]
    assert (first["price"], first["age"], first["size"]) == (4.5, 33.0, "08")
    assert shop.read("items")[0]["image_embedding"] == [1.0, 2.5]


def test_a_csv_line_of_another_length_is_a_rejected_row(shop, make_events):
    header = "user_id,item_id,event_type,event_time"
    valid = [f"u,i,view,{r['event_time'].isoformat()}" for r in make_events()]
    odd = {
        "u,i,view": "line: too few fields",
        "u,i,view,2024-03-04T12:00:00Z,too,much": "line: too many fields",
        "# items done": "line: too few fields",
    }
    shop.write_text("events", "\n".join([header, *valid, *odd]))
    counts = shop.ingest().counts["events"]
    assert (counts.rows_in, counts.kept, counts.reasons) == (15, 12, Counter(odd.values()))
    rows = sorted(shop.read_rejected("events"), key=lambda row: row["_line"])
    assert [(row["_line"], row["_content"], row["_file"], row["reason"]) for row in rows] == [
        (number, line, "events.csv", reason)
        for number, (line, reason) in enumerate(odd.items(), start=14)
    ]


def test_utf16_is_named(shop):
    shop.write_text("events", "user_id,item_id\n", "utf-16")
    with pytest.raises(DataValidationError, match="encoding: utf-16"):
        shop.ingest()


def test_csv_that_is_not_utf8_stops_the_run(shop, make_events):
    header = "user_id,item_id,event_type,event_time"
    rows = [f"Å,i,view,{r['event_time'].isoformat()}" for r in make_events()]
    shop.write_text("events", "\n".join([header, *rows]), "latin-1")
    with pytest.raises(DataValidationError, match=r"events\.csv"):
        shop.ingest()


def test_compressed_csv_is_read(shop, make_events):
    header = "user_id|item_id|event_type|event_time"
    rows = [f"u|i|view|{r['event_time'].isoformat()}" for r in make_events()]
    content = gzip.compress("\n".join([header, *rows]).encode())
    (shop.source / "events.csv.gz").write_bytes(content)
    assert shop.ingest().counts["events"].kept == 12


def test_truncated_parquet_stops_the_run(shop, make_events):
    path = shop.write("events", make_events())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataValidationError, match=r"events\.parquet"):
        shop.ingest()


def test_parquet_with_corrupt_data_stops_the_run(shop, make_events):
    path = shop.write("events", make_events() * 1000)
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 400 + content[404:])
    with pytest.raises(DataValidationError):
        shop.ingest()


def test_a_file_of_no_bytes_stops_the_run(shop):
    (shop.source / "events.parquet").write_bytes(b"")
    with pytest.raises(DataValidationError, match="0 bytes"):
        shop.ingest()


@pytest.mark.parametrize("table", ["events", "items", "users"])
def test_a_table_without_rows_stops_the_run(shop, make_events, items, table):
    shop.write("events", make_events())
    shop.write("items", items)
    shop.write("users", [{"user_id": "u1"}])
    path = shop.source / f"{table}.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(DataValidationError, match=f"{table}: there are no rows"):
        shop.ingest()


def test_every_missing_column_is_named_at_once(shop, make_events):
    shop.write("events", [{"user_id": "u", "price": "free"} for _ in make_events()])
    shop.write("items", [{"name": "x"}])
    with pytest.raises(DataValidationError) as broken:
        shop.ingest()
    for name in ("item_id", "event_type", "event_time"):
        assert f"events: column '{name}' is missing" in str(broken.value)
    assert "items: column 'item_id' is missing" in str(broken.value)


@pytest.mark.parametrize(
    ("window", "named"),
    [
        ({"validation_start": "2024-02-01", "test_start": "2024-03-10"}, "train"),
        (
            {"validation_start": "2024-03-12T13:00", "test_start": "2024-03-12T14:00"},
            r"validation .* and test",
        ),
        ({"test_start": "2024-03-12T13:00"}, "test"),
        (
            {
                "start": "2024-02-01",
                "end": "2024-02-20",
                "validation_start": "2024-02-05",
                "test_start": "2024-02-09",
            },
            "no event is left",
        ),
        (
            {"validation_start": None, "test_start": None, "validation_days": 20, "test_days": 20},
            "train",
        ),
    ],
)
def test_an_empty_window_stops_the_run(shop, make_events, window, named):
    shop.write("events", make_events())
    with pytest.raises(DataValidationError, match=named):
        shop.ingest(**window)
    assert not shop.out.exists()
    left = {path.name for path in shop.out.parent.rglob("*") if path.is_file()}
    assert left <= {"events.parquet", "health.html", "health.json", "violations.json"}


def test_too_many_rejected_rows_stop_the_run_and_are_kept(shop, make_events):
    shop.write("events", make_events({"price": -7.5}, {"user_id": None}, price=1.0))
    with pytest.raises(DataValidationError) as broken:
        shop.ingest(max_rejected={"events": 0.1})
    message = str(broken.value)
    assert broken.value.exit_code == 4
    assert "2 of 14 rows (14.3%) were rejected" in message
    assert "events: price: negative: 1 rows, such as -7.5" in message
    assert not shop.out.exists()
    (place,) = shop.out.parent.glob("dataset.rejected-*")
    assert str(place) in message
    rows = pq.read_table(place / "events.parquet").to_pylist()
    assert sorted(row["reason"] for row in rows) == ["price: negative", "user_id: missing"]


def test_rejected_rows_go_where_the_settings_say(shop, make_events, tmp_path):
    shop.write("events", make_events({"user_id": None}))
    with pytest.raises(DataValidationError):
        shop.ingest(max_rejected={"events": 0.0}, rejected_folder=str(tmp_path / "kept"))
    assert len(list((tmp_path / "kept").glob("dataset.rejected-*/events.parquet"))) == 1


def test_exactly_the_allowed_share_does_not_stop_the_run(shop, make_events):
    shop.write("events", make_events({"user_id": None}))
    assert shop.ingest(max_rejected={"events": 1 / 13}).counts["events"].rejected == 1


def test_too_little_memory_is_an_error_that_names_the_setting(shop, make_events):
    shop.write("events", make_events() * 20_000)
    with pytest.raises(RefitError, match=r"ingestion\.memory_limit 1MB is too small for source 'f"):
        shop.ingest(memory_limit="1MB")
