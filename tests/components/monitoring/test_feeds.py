"""Outcomes and items of the monitor are read as ingestion reads events and items."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.monitoring.feed_settings import FeedSettings
from components.monitoring.feeds import read_feed
from refit.errors import DataValidationError, UsageError
from refit.tabular.file_format import FileFormat

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def outcomes(n=4, **columns):
    return [
        {
            "user_id": f"u{number}",
            "item_id": "i",
            "event_type": "view",
            "event_time": NOON + timedelta(hours=number),
            "request_id": f"r{number}",
            "device": "phone",
        }
        | columns
        for number in range(n)
    ]


@pytest.fixture
def feed(tmp_path):
    def feed(rows, name="x.parquet", table="events", **form):
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(rows, str):
            place.write_text(rows)
        else:
            pq.write_table(pa.Table.from_pylist(rows), place)
        settings = FeedSettings(form=FileFormat.parse(form), number_columns=("age",))
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        root = tmp_path / name.split("/")[0]
        return pq.read_table(read_feed(table, root, out, settings)).to_pylist()

    return feed


def test_a_feed_of_the_contract_stays_as_it_is(feed):
    assert feed(outcomes()) == outcomes()


@pytest.mark.parametrize(
    ("columns", "form"),
    [
        ({"event_time": NOON.replace(tzinfo=None)}, {"naive_times": "UTC"}),
        ({"event_time": "2026-05-01 14:00:00+02:00"}, {}),
        ({"event_time": "2026-05-01 14:00:00 Europe/Berlin"}, {}),
        ({"event_time": int(NOON.timestamp()) * 1000}, {"time_unit": "ms"}),
    ],
)
def test_times_of_every_kind_are_utc(feed, columns, form):
    assert {row["event_time"] for row in feed(outcomes(**columns), **form)} == {NOON}


def test_of_items_in_versions_the_latest_counts(feed):
    rows = [
        {"item_id": "i", "price": float(n), "valid_from": time}
        for n, time in enumerate((NOON, NOON + timedelta(days=2), NOON + timedelta(days=1), None))
    ]
    assert feed(rows, table="items") == [{"item_id": "i", "price": 1.0}]


def test_csv_parts_in_folders_of_keys_with_other_names(feed):
    text = "who,item_id,what,event_time,request_id,age\nu1,i,buy,2026-05-01T12:00:00Z,r1,33\n"
    form = {"columns": {"events": {"user_id": "who", "event_type": "what"}}}
    rows = feed(text, "outcomes/surface=home/a.csv", event_types={"buy": "purchase"}, **form)
    assert rows == [
        {
            "user_id": "u1",
            "item_id": "i",
            "event_type": "purchase",
            "event_time": NOON,
            "request_id": "r1",
            "surface": "home",
            "age": 33.0,
        }
    ]


def test_the_items_are_read_too(feed):
    rows = [{"item_id": 7, "price": "12,50", "listed_at": "2026-05-01T12:00:00Z"}]
    (row,) = feed(rows, table="items", decimal=",")
    assert row == {"item_id": "7", "price": 12.5, "listed_at": NOON}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"event_time": NOON.replace(tzinfo=None)}, "naive_times: UTC"),
        ({"event_time": "2026-05-01 12:00:00 EST"}, "'2026-05-01 12:00:00 EST'"),
        ({"event_time": 1_777_636_800}, "time_unit"),
        ({"event_type": "buy"}, "buy: purchase"),
    ],
)
def test_what_cannot_be_read_names_the_setting(feed, columns, message):
    with pytest.raises(DataValidationError, match=message):
        feed(outcomes(**columns))


def test_no_file_no_row_and_no_column_are_errors(feed, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_feed("events", tmp_path / "nowhere", tmp_path / "out", FeedSettings())
    with pytest.raises(DataValidationError, match="holds no rows"):
        feed("user_id,item_id,event_type,event_time\n", "a.csv")
    with pytest.raises(DataValidationError, match=r"lacks user_id; there are: 'UserID'"):
        feed([{"UserID" if k == "user_id" else k: v for k, v in outcomes(1)[0].items()}])
