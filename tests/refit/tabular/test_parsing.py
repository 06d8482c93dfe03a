"""How values of each kind are read: right, or not at all."""

from datetime import UTC, datetime, timedelta

import ibis
import pyarrow as pa
import pytest

from refit.contract import Column
from refit.tabular.file_format import FileFormat
from refit.tabular.parsing import find_unreadable, parse

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def read(kind, values, name="x", type=None, **form):
    """The values as read, and the reasons of each."""
    table = ibis.memtable(pa.table({name: pa.array(values, type)}))
    columns = [Column(name=name, kind=kind, meaning="")]
    rows = parse(table, columns, FileFormat(**form))
    reasons = find_unreadable(rows, columns, FileFormat(**form))
    found = rows.mutate(**reasons).to_pyarrow().to_pylist()
    return [row[name] for row in found], [[r for r in reasons if row[r]] for row in found]


@pytest.mark.parametrize("naive_times", ["reject", "Asia/Tokyo"])
@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T00:00:00Z",
        " 2026-01-01 00:00:00 UTC ",
        "2026-01-01 00:00 GMT",
        "2026-01-01T01:00:00+0100",
        "2026-01-01T01:00:00+01",
        "2026-01-01 05:30:00 +05:30",
        "2026-01-01 01:00:00 Europe/Berlin",
        "2025-12-31 19:00:00 America/New_York",
        "2026-01-01T01:00:00+01:00[Europe/Berlin]",
        "2026-01-01T00:00:00Z[UTC]",
        "2026-01-01T00:00:00,000Z",
        "2026-01-01T00:00:00.000000123Z",
        "2025-12-31T19:00:00 Etc/GMT+5",
    ],
)
def test_a_time_with_a_zone_is_that_time(text, naive_times):
    assert read("time", [text], naive_times=naive_times) == ([NEW_YEAR], [[]])


@pytest.mark.parametrize("naive_times", ["reject", "UTC"])
@pytest.mark.parametrize(
    "text",
    [
        "2025-12-31 19:00:00 EST",
        "2026-01-01 05:30:00 IST",
        "2026-01-01 00:00:00 foo",
        "2026-01-01 00:00:00 Foo/Bar",
        "01/01/2026 00:00",
        "20260101000000",
        "1767225600",
        "infinity",
        "99999-01-01",
        "2026-13-01",
        "2026-01-01Z",
    ],
)
def test_a_time_of_which_the_zone_is_not_sure_is_no_time(text, naive_times):
    values, ((reason,),) = read("time", [text], naive_times=naive_times)
    assert (values, reason) == ([None], "x: cannot be read as a time")


def test_naive_times_when_clocks_change():
    """The treatment that the page of the source states."""
    skipped, twice = "2026-03-29 02:30:00", "2026-10-25 02:30:00"
    values, _ = read("time", [skipped, twice, "2026-07-01"], naive_times="Europe/Berlin")
    assert values == [
        datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
        datetime(2026, 6, 30, 22, tzinfo=UTC),
    ]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("as_text", [False, True])
def test_numbers_are_times_in_the_given_unit(unit, as_text):
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    moment = NEW_YEAR + timedelta(milliseconds=458 if unit != "s" else 0)
    number = int(moment.timestamp()) * factor + (458 * factor // 1000 if unit != "s" else 0)
    given = [str(number)] if as_text else [number]
    assert read("time", given, time_unit=unit) == ([moment], [[]])


NOON = datetime(2026, 12, 31, 12, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "order", "moment"),
    [
        ("31/12/2026 12:05", "dmy", NOON),
        ("31.12.2026 12:05:00", "dmy", NOON),
        ("12-31-2026 12:05", "mdy", NOON),
        ("12/31/2026 12:05 PM", "mdy", NOON),
        ("12/31/2026 12:05:00 am", "mdy", NOON - timedelta(hours=12)),
        ("1/2/2026 9:05 p.m.", "dmy", datetime(2026, 2, 1, 21, 5, tzinfo=UTC)),
        ("1/2/2026 9:05 PM", "mdy", datetime(2026, 1, 2, 21, 5, tzinfo=UTC)),
        ("31/12/2026 13:05 Europe/Berlin", "dmy", NOON),
        ("31/12/2026T13:05:00+01:00", "dmy", NOON),
        ("2026-12-31 12:05", "dmy", NOON),
        ("2026/12/31 12:05", "ymd", NOON),
        ("31/12/2026", "dmy", NOON.replace(hour=0, minute=0)),
        ("31/12/2026", "mdy", None),
        ("31/12/2026 12:05", "ymd", None),
        ("31/12/26 12:05", "dmy", None),
        ("31/12/2026 13:05 PM", "dmy", None),
        ("31/12/2026 0:05 PM", "dmy", None),
    ],
)
def test_dates_in_another_order(text, order, moment):
    values, ((*reasons,),) = read("time", [text], date_order=order, naive_times="UTC")
    assert values == [moment]
    assert reasons == ([] if moment else ["x: cannot be read as a time"])


def test_numbers_beyond_the_calendar_are_no_times():
    values, reasons = read("time", [2**62, None], time_unit="s")
    assert values == [None, None]
    assert reasons == [["x: cannot be read as a time"], []]
    assert read("time", ["1767225600.5"], time_unit="s")[0] == [NEW_YEAR + timedelta(seconds=0.5)]


@pytest.mark.parametrize(
    ("form", "text", "number"),
    [
        ({}, "1e3", 1000.0),
        ({}, " 12.50 ", 12.5),
        ({}, ".5", 0.5),
        ({"decimal": ","}, "12,50", 12.5),
        ({"decimal": ",", "thousands": "."}, "1.250,00", 1250.0),
        ({"thousands": ","}, "1,250.00", 1250.0),
        ({"thousands": ","}, "1,25,000", 125_000.0),
        ({"decimal": ",", "thousands": " "}, "1\u202f250,00", 1250.0),
        ({"thousands": "'"}, "1’250.00", 1250.0),
        ({"currency_signs": ("£",)}, "-£12", -12.0),
        ({"currency_signs": ("€", "EUR")}, "12\u00a0€", 12.0),
        ({"currency_signs": ("$",)}, "$12.50", 12.5),
    ],
)
def test_numbers_are_read_as_they_are_written(form, text, number):
    assert read("number", [text], **form) == ([number], [[]])


@pytest.mark.parametrize(
    ("form", "text"),
    [
        *(({}, text) for text in ("1,250.00", "12,50", "£12", "(12)", "0x10", "1_000", "true")),
        ({"decimal": ","}, "12.50"),
        ({"decimal": ",", "thousands": "."}, "12.50"),
        ({"thousands": ","}, "12,50"),
        ({"currency_signs": ("£",)}, "€12"),
    ],
)
def test_a_number_in_another_form_is_none(form, text):
    assert read("number", [text], **form) == ([None], [["x: cannot be read as a number"]])


def test_nan_is_null_and_texts_are_when_they_are_named():
    assert read("number", ["NaN", "-nan", ""]) == ([None] * 3, [[]] * 3)
    assert read("number", ["NULL"], null_values=["NULL"]) == ([None], [[]])
    assert read("string", ["None", r"\N", "x"], null_values=["None", r"\N"])[0] == [None, None, "x"]


def test_ids_that_are_spelled_like_null_are_rejected_unless_the_settings_speak_of_nulls():
    texts = ["NULL", "nan", "None", r"\N", "N/A", "nil", "x"]
    assert [bool(r) for r in read("string", texts, "user_id")[1]] == [True] * 6 + [False]
    assert read("string", texts, "user_id", null_values=[]) == (texts, [[]] * 7)
    assert read("string", texts, "brand") == (texts, [[]] * 7)


def test_fractions_are_ids_only_if_all_are_whole():
    assert read("string", [12.0, None, float("nan")], "user_id")[0] == ["12", None, None]
    assert read("string", [12.5, 13.0], "size")[0] == ["12.5", "13.0"]
    assert read("string", [b"u1"], "user_id")[0] == ["u1"]


def test_an_empty_vector_is_no_vector():
    assert read("vector", [[1.0], [], None])[0] == [[1.0], None, None]
    values, reasons = read("vector", ["[1, 2.5]", "[ ]", "x"])
    assert values == [[1.0, 2.5], None, None]
    assert reasons == [[], [], ["x: cannot be read as a vector"]]


def test_words_and_numbers_of_other_event_types_are_mapped():
    form = {"event_types": {"buy": "purchase", 3: "view"}}
    assert read("string", ["buy", "view", "x"], "event_type", **form)[0] == [
        "purchase",
        "view",
        "x",
    ]
    assert read("string", [3, 4], "event_type", **form)[0] == ["view", "4"]
    assert read("string", [3.0, None], "event_type", **form)[0] == ["view", None]
