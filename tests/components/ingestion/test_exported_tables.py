"""Tables as people export them: read right, or a message with the lines of a config that help."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from components.ingestion.fingerprint import fingerprint_source
from components.ingestion.settings import IngestSettings
from refit.errors import DataValidationError, UsageError

HEADER = "user_id,item_id,event_type,event_time"


def advice_of(error):
    """The settings that a message says to write."""
    text = str(error.value).partition("write in the config:\n")[2].partition("\nThe rejected")[0]
    return yaml.safe_load(text)["ingestion"]


def cure(shop, match, **settings):
    """Ingest as the error of a first try says."""
    strict = {"max_rejected": {"events": 0.01, "items": 0.01, "users": 0.01}}
    with pytest.raises(DataValidationError, match=match) as error:
        shop.ingest(**strict, **settings)
    return shop.ingest_again(**strict, **settings, **advice_of(error)), str(error.value)


def as_csv(rows, delimiter=","):
    lines = [delimiter.join(rows[0])]
    for row in rows:
        values = (v.isoformat() if isinstance(v, datetime) else str(v) for v in row.values())
        lines.append(delimiter.join(values))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("prices", "settings"),
    [
        (["12,50", "7,00"], {"decimal": ","}),
        (["1.250,00", "1.007,50"], {"decimal": ",", "thousands": "."}),
        (["1,250.00", "1,007.50"], {"thousands": ","}),
        (["£12.50", "£7"], {"currency_signs": ["£"]}),
        (["12 €", "7 €"], {"currency_signs": ["€"]}),
        (["12.5", "None"], {"null_values": ["None"]}),
    ],
)
def test_prices_in_other_forms(shop, make_events, prices, settings):
    shop.write("events", make_events())
    rows = [{"item_id": f"i{n}", "price": prices[n % 2]} for n in range(5)]
    shop.write_text("items", as_csv(rows, ";"))
    manifest, message = cure(shop, "price: cannot be read as a number")
    assert "events: " not in message  # that follows from the items
    assert (manifest.counts["items"].kept, manifest.counts["events"].kept) == (5, 12)
    for name, value in settings.items():
        assert f"{name}: " in message
        assert yaml.safe_load(message.partition(f"    {name}: ")[2].split("\n")[0]) == value


def test_words_of_other_event_types(shop, make_events):
    words = ["pageview", "addtocart", "transaction"]
    shop.write("events", [r | {"event_type": words[n % 3]} for n, r in enumerate(make_events())])
    _, message = cure(shop, "unknown event type: 12 rows, which are 'addtocart', 'pageview'")
    assert "one of view, like, cart, offer, purchase, hide" in message
    types = [row["event_type"] for row in shop.read("events")]
    assert types == ["view", "cart", "purchase"] * 4


def test_numbers_of_event_types(shop, make_events):
    shop.write("events", make_events(event_type=3))
    shop.ingest(event_types={3: "purchase"})
    assert {row["event_type"] for row in shop.read("events")} == {"purchase"}


@pytest.mark.parametrize(
    ("names", "as_text"),
    [
        (("UserID", "ItemID", "EventType", "EventTime"), False),
        (("USER_ID", "ITEM_ID", "EVENT_TYPE", "EVENT_TIME"), False),
        (("customer_id", "article id", "action", "timestamp"), False),
        (("customer_id", "article id", "action", "timestamp"), True),
    ],
)
def test_columns_of_other_names(shop, make_events, names, as_text):
    rows = [dict(zip(names, row.values(), strict=True)) for row in make_events()]
    if as_text:
        shop.write_text("events", as_csv(rows).replace(names[0], f" {names[0]} ", 1))
    else:
        shop.write("events", rows)
    manifest, message = cure(shop, "column 'user_id' is missing")
    assert f"there are: {', '.join(map(repr, names))}" in message
    assert manifest.counts["events"].kept == 12


def test_an_optional_column_in_another_spelling_is_not_lost(shop, make_events, items):
    shop.write("events", make_events())
    shop.write("items", [{"item_id": i["item_id"], "Price": i["price"]} for i in items])
    cure(shop, "column 'Price' is not read as 'price'")
    assert shop.read("items")[0]["price"] == 10.0


def test_a_name_that_the_files_do_not_have(shop, make_events):
    shop.write("events", make_events())
    with pytest.raises(DataValidationError, match="'who', which the files do not have"):
        shop.ingest(columns={"events": {"user_id": "who"}})


@pytest.mark.parametrize(
    ("unit", "as_text"),
    [("s", False), ("ms", False), ("us", False), ("ns", False), ("s", True), ("ns", True)],
)
def test_times_as_numbers(shop, make_events, unit, as_text):
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    rows = [r | {"event_time": int(r["event_time"].timestamp()) * factor} for r in make_events()]
    if as_text:
        shop.write_text("events", as_csv(rows))
    else:
        shop.write("events", rows)
    cure(shop, "cannot be read as a time")
    assert shop.read("events")[0]["event_time"] == datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("version", ["1.0", "2.6"])
def test_times_without_a_zone_name_the_setting_and_nothing_that_follows(
    shop, make_events, items, version
):
    rows = [r | {"event_time": r["event_time"].replace(tzinfo=None)} for r in make_events()]
    table = pa.Table.from_pylist(rows)
    pq.write_table(
        table, shop.source / "events.parquet", use_deprecated_int96_timestamps=version == "1.0"
    )
    listed = datetime(2024, 2, 1)
    shop.write("items", [item | {"listed_at": listed} for item in items])
    _, message = cure(shop, "event_time: has no time zone")
    assert "missing" not in message
    assert "not among" not in message


def test_zones_by_their_abbreviation_are_shown(shop, make_events):
    rows = [r | {"event_time": f"{r['event_time']:%Y-%m-%d %H:%M:%S} IST"} for r in make_events()]
    shop.write_text("events", as_csv(rows))
    with pytest.raises(DataValidationError, match=r"such as '2024-03-01 12:00:00 IST'.*"):
        shop.ingest(naive_times="UTC", max_rejected={"events": 0.01})


def test_ids_that_are_spelled_like_null(shop, make_events):
    nulls = ["NULL", "nan", r"\N"]
    rows = [r | {"user_id": nulls[n % 3] if n < 6 else "u"} for n, r in enumerate(make_events())]
    shop.write("events", rows)
    with pytest.raises(DataValidationError, match="spelled like null: 6 rows") as error:
        shop.ingest(max_rejected={"events": 0.01})
    assert advice_of(error) == {"null_values": nulls}
    counts = shop.ingest_again(null_values=nulls).counts["events"]
    assert counts.reasons == {"user_id: missing": 6}
    assert shop.ingest_again(null_values=[]).counts["events"].kept == 12


def test_ids_as_fractions_are_whole_numbers_in_every_table(shop, make_events):
    shop.write("events", [r | {"user_id": float(r["user_id"][1:])} for r in make_events()])
    shop.write("users", [{"user_id": n} for n in range(4)])
    assert shop.ingest().counts["users"].kept == 4
    assert {row["user_id"] for row in shop.read("events")} == {"0", "1", "2", "3"}


def test_events_on_items_of_another_spelling_show_both(shop, make_events):
    shop.write("events", make_events())
    shop.write("items", [{"item_id": f"I-{n}", "price": 1.0} for n in range(5)])
    with pytest.raises(DataValidationError, match=r"such as 'i0'.*\n.*the items have 'I-0'"):
        shop.ingest(max_rejected={"events": 0.01})


def test_columns_that_nothing_uses_do_not_stop_a_run(shop, make_events, items):
    odd = {"meta": {"a": 1}, "tags": ["x"], "seen": datetime(2024, 1, 1), "raw": b"\xff"}
    odd |= {"huge": float("inf"), "map": [{"k": 1}]}
    shop.write("events", make_events(**odd))
    shop.write("items", [item | odd for item in items])
    manifest = shop.ingest()
    assert (manifest.counts["events"].rejected, manifest.counts["items"].rejected) == (0, 0)
    assert set(shop.read("items")[0]) == {"item_id", "price", "huge"}
    assert shop.read("items")[0]["huge"] is None
    with pytest.raises(DataValidationError, match="cannot be read as a string: it holds struct"):
        shop.ingest_again(item_columns=["meta"])


def test_a_vector_in_columns(shop, make_events, items):
    values = np.arange(200, dtype=np.float64).reshape(5, 40)
    rows = [
        item | {f"emb_{n}": (None if at == 4 else float(values[at, n])) for n in range(40)}
        for at, item in enumerate(items)
    ]
    shop.write("events", make_events())
    shop.write("items", rows)
    shop.ingest()
    assert set(shop.read("items")[0]) == {"item_id", "price"}
    for spec in ("emb_", "emb_*", [f"emb_{n}" for n in range(40)]):
        shop.ingest_again(vector_columns={"image_embedding": spec})
        vectors = [row["image_embedding"] for row in shop.read("items")]
        assert vectors == [*values[:4].tolist(), None]


def test_hundreds_of_columns_are_no_problem(shop, make_events, items):
    wide = {f"c{chr(97 + n % 26)}{n}x": float(n) for n in range(200)}
    shop.write("events", make_events())
    shop.write("items", [item | wide for item in items])
    assert shop.ingest().counts["items"].kept == 5


def test_an_empty_vector_means_no_picture(shop, make_events, items):
    vectors = [[], [0.1, 0.2], None, [], [0.3, 0.4]]
    rows = [i | {"image_embedding": v} for i, v in zip(items, vectors, strict=True)]
    shop.write("events", make_events())
    shop.write("items", rows)
    assert shop.ingest().counts["items"].kept == 5


def test_folders_of_keys_are_read_with_their_keys(shop, make_events):
    for number, row in enumerate(make_events()):
        folder = shop.source / "events" / f"event_type={row['event_type']}" / f"d={number}%2F"
        folder.mkdir(parents=True)
        row.pop("event_type")
        pq.write_table(pa.Table.from_pylist([row]), folder / "part-0.parquet")
    (shop.source / "events" / "_SUCCESS").touch()
    manifest = shop.ingest()
    assert (manifest.counts["events"].kept, manifest.context_columns) == (12, ("d",))
    assert shop.read("events")[0]["d"] == "0/"


def test_the_fingerprint_covers_the_names_of_folders(shop, make_events):
    folder = shop.source / "events" / "surface=home"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(make_events()), folder / "a.parquet")
    settings = IngestSettings(source="files", path=str(shop.source), validation_days=1, test_days=1)
    first = fingerprint_source(settings)
    folder.rename(folder.with_name("surface=search"))
    assert fingerprint_source(settings) != first


def test_parts_may_differ_in_order_and_types_and_lack_columns(shop, make_events):
    rows = make_events(price=5)
    folder = shop.source / "events"
    folder.mkdir()
    whole = [r | {"user_id": 7} for r in rows[:4]]
    fraction = [r | {"user_id": 7.0, "price": 5.5} for r in rows[4:8]]
    text = [{k: r[k] for k in ("item_id", "event_time", "event_type", "user_id")} for r in rows[8:]]
    for number, part in enumerate((whole, fraction)):
        pq.write_table(pa.Table.from_pylist(part), folder / f"{number}.parquet")
    shop.ingest(validation_start="2024-03-03", test_start="2024-03-06")
    assert {row["user_id"] for row in shop.read("events")} == {"7"}
    pq.write_table(pa.Table.from_pylist(text), folder / "2.parquet")
    assert shop.ingest_again().counts["events"].kept == 12


def test_a_part_without_zones_is_not_read_as_utc_beside_one_with_them(shop, make_events):
    rows = make_events()
    naive = [r | {"event_time": r["event_time"].replace(tzinfo=None)} for r in rows[:6]]
    folder = shop.source / "events"
    folder.mkdir()
    for number, part in enumerate((naive, rows[6:])):
        pq.write_table(pa.Table.from_pylist(part), folder / f"{number}.parquet")
    reasons = shop.ingest(validation_start="2024-03-08", test_start="2024-03-10")
    assert reasons.counts["events"].reasons == {"event_time: has no time zone": 6}


def test_csv_parts_with_an_empty_one_and_upper_case_names(shop, make_events):
    folder = shop.source / "EVENTS"
    folder.mkdir()
    rows = make_events()
    (folder / "a.CSV").write_text(as_csv(rows[:6]))
    turned = [dict(reversed(row.items())) for row in rows[6:]]
    (folder / "b.csv").write_text(as_csv(turned, ";"))
    (folder / "c.csv").touch()
    assert shop.ingest().counts["events"].kept == 12


def test_two_columns_of_one_name_that_matters_are_refused(shop, make_events):
    shop.write_text("events", as_csv(make_events()).replace("event_type", "user_id", 1))
    with pytest.raises(DataValidationError, match="more than one column 'user_id'"):
        shop.ingest()
    rows = make_events(note="x", Note="y")
    shop.write("events", rows)
    (shop.source / "events.csv").unlink()
    assert shop.ingest_again().counts["events"].kept == 12


@pytest.mark.parametrize(
    "settings",
    [
        {"columns": {"events": {"user_id": "u"}}},
        {"event_types": {"buy": "purchase"}},
        {"encoding": "cp1252"},
        {"delimiter": ";"},
        {"quote": ""},
        {"escape": "\\"},
        {"decimal": ","},
        {"thousands": ","},
        {"currency_signs": ["£"]},
        {"null_values": ["NULL"]},
        {"time_unit": "s"},
        {"vector_columns": {"image_embedding": "e"}},
        {"paths": {"events": "x"}},
    ],
)
def test_a_setting_that_another_source_does_not_read_is_an_error(shop, settings):
    (name,) = settings
    with pytest.raises(UsageError, match=f"{name}: only for source 'files'"):
        shop.ingest(source="hm", **settings)


@pytest.mark.parametrize("lacking", [True, False])
def test_lines_that_lack_or_add_empty_fields_are_fitted(shop, make_events, lacking):
    header, *lines = as_csv([row | {"surface": "home"} for row in make_events()]).split("\n")
    for n in range(3):
        lines[n] = lines[n].removesuffix(",home") if lacking else f"{lines[n]},,"
    shop.write_text("events", "\n".join([header, *lines]))
    manifest, message = cure(shop, f"line: too {'few' if lacking else 'many'} fields: 3 rows")
    assert "uneven_lines: fit" in message
    assert manifest.counts["events"].kept == 12
    surfaces = [row["surface"] for row in shop.read("events")]
    assert surfaces == ([None] * 3 if lacking else ["home"] * 3) + ["home"] * 9


def test_a_remark_is_never_fitted(shop, make_events):
    shop.write_text("events", f"{as_csv(make_events())}\n(12 rows affected)\n")
    assert shop.ingest(uneven_lines="fit").counts["events"].reasons == {"line: too few fields": 1}
    with pytest.raises(DataValidationError, match="12 rows affected") as error:
        shop.ingest_again(max_rejected={"events": 0.01})
    assert "uneven_lines" not in str(error.value)


def test_a_header_within_the_file_is_no_row(shop, make_events, items):
    shop.write("events", make_events())
    header, *lines = as_csv(items).split("\n")
    shop.write_text("items", "\n".join([header, *lines[:2], header, *lines[2:], header]))
    counts = shop.ingest().counts["items"]
    assert (counts.rows_in, counts.kept) == (7, 5)
    assert counts.reasons == {"line: repeats the header": 2}
    assert [row["_line"] for row in shop.read_rejected("items")] == [4, 8]


def test_a_file_that_may_be_a_table_is_not_passed_over(shop, make_events):
    shop.write("events", make_events())
    for name in (
        "items.txt",
        "items.xlsx",
        "items_2024-03-01.csv",
        "item.csv",
        "Items (1).csv",
    ):
        (shop.source / name).write_text("item_id\ni0\n")
        with pytest.raises(UsageError, match=r"may be the items, and is not read.*paths\.items"):
            shop.ingest()
        (shop.source / name).unlink()
    for note in (
        "items.md",
        "itemsize.csv",
        "items.csv.md5",
        "._items.csv",
        "()",
        "items_schema.csv",
    ):
        (shop.source / note).write_text("")
    assert shop.ingest().counts["events"].kept == 12


def test_parts_in_other_case_and_with_numbers_as_ids(shop, make_events):
    rows = [row | {"user_id": "7", "surface": "home"} for row in make_events()]
    (shop.source / "events").mkdir()
    for number, part in enumerate((rows[:6], rows[6:])):
        if number:
            part = [r | {"user_id": 7.0} for r in part]
            part = [{"Surface" if k == "surface" else k: v for k, v in r.items()} for r in part]
        pq.write_table(pa.Table.from_pylist(part), shop.source / "events" / f"{number}.parquet")
    assert shop.ingest().counts["users"].kept == 1
    assert {(r["user_id"], r["surface"]) for r in shop.read("events")} == {("7", "home")}


def test_columns_called_like_those_that_are_added(shop, make_events):
    odd = dict.fromkeys(("_raw", "_place", "_file", "_line", "_problem", "reason", "n"), "x")
    shop.write("events", make_events(**odd))
    assert shop.ingest().counts["events"].kept == 12
    shop.source.joinpath("events.parquet").unlink()
    shop.write_text("events", as_csv(make_events(**odd)))
    assert shop.ingest_again().counts["events"].kept == 12


def test_vectors_as_numpy_writes_them(shop, make_events):
    shop.write("events", make_events())
    rows = [f'i{n},"[ 1.   {n}.5\n 3e-1]"' for n in range(5)]
    shop.write_text("items", "\n".join(["item_id,image_embedding", *rows, "i6,[0.1 ... 0.2]"]))
    counts = shop.ingest().counts["items"]
    assert counts.reasons == {"image_embedding: cannot be read as a vector": 1}
    assert shop.read("items")[2]["image_embedding"] == pytest.approx([1.0, 2.5, 0.3])


def test_times_in_a_wrong_unit_are_rejected(shop, make_events):
    rows = [r | {"event_time": int(r["event_time"].timestamp())} for r in make_events()]
    shop.write("events", rows)
    with pytest.raises(DataValidationError, match="event_time: before 1990: 12 rows") as error:
        shop.ingest(time_unit="ms")
    assert advice_of(error) == {"time_unit": "s"}


def test_the_delimiter_and_the_quote_are_named(shop, make_events):
    shop.write_text("events", as_csv(make_events(), "^"))
    cure(shop, "there are: 'user_id\\^item_id")
    quoted = [{k: f"'{v}'" for k, v in row.items()} for row in make_events()]
    shop.write_text("events", as_csv(quoted))
    shop.out = shop.out.with_name("quoted")
    cure(shop, "unknown event type")
    assert shop.read("events")[0]["user_id"] == "u0"


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"PK\x03\x04\x14", "a zip archive"), (b'{"a": 1}', "JSON"), (b"<html>", "HTML")],
)
def test_files_that_are_no_csv(shop, content, kind):
    (shop.source / "events.csv").write_bytes(content)
    with pytest.raises(DataValidationError, match=rf"events\.csv is .*{kind}"):
        shop.ingest()


def test_links_that_lead_nowhere_or_back(shop, make_events):
    folder = shop.source / "events"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(make_events()), folder / "a.parquet")
    (folder / "b.parquet").symlink_to(folder / "gone")
    with pytest.raises(UsageError, match="which does not exist"):
        shop.ingest()
    (folder / "b.parquet").unlink()
    (folder / "day=1").symlink_to(folder)
    with pytest.raises(UsageError, match="a link to a folder that it is in"):
        shop.ingest()


@pytest.mark.parametrize(
    ("time", "order"),
    [("{d:%d/%m/%Y %H:%M:%S}", "dmy"), ("{d:%m/%d/%Y %I:%M:%S %p}", "mdy")],
)
def test_dates_with_the_year_last_name_the_setting_and_are_read(shop, make_events, time, order):
    events = [e | {"event_time": time.format(d=e["event_time"])} for e in make_events()]
    shop.write("events", events)
    with pytest.raises(DataValidationError) as error:
        shop.ingest(naive_times="UTC")
    assert "date_order: dmy" in str(error.value)
    assert shop.ingest(naive_times="UTC", date_order=order).counts["events"].kept == len(events)
    times = sorted(row["event_time"] for row in shop.read("events"))
    assert times == sorted(e["event_time"] for e in make_events())
