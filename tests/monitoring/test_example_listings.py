"""The listings that an alert shows are those that explain it, as they are in the feed now."""

from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.example_listings import describe_items, find_examples
from monitoring.review.evidence import ValueShare
from monitoring.windows import MonitoredData
from refit.drift import Window
from refit.errors import DataValidationError
from tests.monitoring.alerts import NOW

WINDOW = Window(start=NOW - timedelta(days=1), end=NOW)
HATS = ValueShare(column="brand in items", value="hat & co", before=0.0, now=0.4, source="brand")


def item(number, hours, brand="hat & co", **more):
    listed = NOW - timedelta(hours=hours)
    return {"item_id": f"i{number}", "brand": brand, "listed_at": listed, "price": 12.5, **more}


@pytest.fixture
def data(tmp_path):
    """Items with the newest last, one of them after the window, and an index of another one."""
    rows = [item(n, 30 - n, title=f"hat {n}") for n in range(8)]
    rows += [item(8, -1), item(9, 2, "shoes"), item(10, 3, None)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "feed.parquet")
    index = tmp_path / "index"
    index.mkdir()
    sold = [{"item_id": "sold", "title": "a coat", "price": None}, {"item_id": "i1", "title": "x"}]
    pq.write_table(pa.Table.from_pylist(sold), index / "items.parquet")
    return MonitoredData(log=tmp_path, items=tmp_path / "feed.parquet", index=index)


def test_the_newest_listings_of_the_values_that_grew_are_examples(data):
    fell = HATS.model_copy(update={"value": "shoes", "before": 0.9})
    derived = HATS.model_copy(update={"source": "price_band", "value": "10 to 20"})
    events = HATS.model_copy(update={"source": "", "value": "shoes"})
    (found,) = find_examples(data, WINDOW, [fell, derived, events, HATS, HATS])
    assert (found.column, found.value) == ("brand", "hat & co")
    assert found.item_ids == ("i7", "i6", "i5", "i4")


def test_without_items_there_are_no_examples(data):
    unreadable = {"items": DataValidationError("torn")}
    for broken in (
        MonitoredData(log=data.log),
        MonitoredData(log=data.log, items=data.items, unreadable=unreadable),
    ):
        assert list(find_examples(broken, WINDOW, [HATS])) == []


def test_items_are_described_by_the_feed_and_then_by_the_index(data):
    found = describe_items(data, ["i1", "sold", "gone", "i10", "i1"])
    assert found == {
        "i1": {"item_id": "i1", "title": "hat 1", "price": "12.50", "brand": "hat & co"},
        "i10": {"item_id": "i10", "price": "12.50"},
        "sold": {"item_id": "sold", "title": "a coat"},
    }
