"""How far behind a process is, and when that makes it unready."""

from datetime import UTC, datetime, timedelta

import pytest

from refit.errors import ServiceUnreachable
from serving.counters import Counters
from serving.feeds.dead_letters import DeadLetters
from serving.feeds.folder import FolderFeed
from serving.feeds.lag import FeedLag
from serving.feeds.lines import FeedReader
from serving.feeds.stock import StockChange


@pytest.fixture
def lag():
    lag = FeedLag(clock=lambda: lag.now)  # type: ignore[attr-defined]
    lag.now = 100.0  # type: ignore[attr-defined]
    return lag


def test_a_process_is_ready_from_its_first_full_read_on(lag):
    assert not lag.is_ready(60)
    lag.failed()
    assert not lag.is_ready(60)
    lag.looked(behind=7, gaps=0)
    assert not lag.is_ready(60)
    lag.looked(behind=0, gaps=0)
    assert lag.is_ready(60)


def test_one_that_falls_behind_is_unready_and_one_whose_feed_is_away_is_not(lag):
    lag.looked(behind=0, gaps=0)
    lag.now += 61
    lag.looked(behind=9, gaps=0)
    assert not lag.is_ready(60)
    lag.failed()
    assert lag.is_ready(60)
    lag.looked(behind=None, gaps=0)
    assert lag.is_ready(60)


def test_measurements_are_gauges_by_feed_and_gaps_are_counted_once(lag):
    counters = Counters()
    lag.measure("stock", counters)
    assert [m["key"] for m in counters.drain()] == ["refit_feed_gaps", "refit_feed_answers"]
    lag.looked(behind=3, gaps=2)
    lag.looked(behind=0, gaps=2)
    lag.newest = datetime.now(UTC) - timedelta(hours=1)
    lag.now += 5
    lag.measure("stock", counters)
    lag.measure("stock", counters)
    values = {m["key"]: m["value"] for m in counters.drain() if m["tags"] == {"feed": "stock"}}
    assert values["refit_feed_lag_seconds"] == 5
    assert values["refit_feed_behind"] == 0
    assert values["refit_feed_answers"] == 1
    assert values["refit_feed_newest_age_seconds"] == pytest.approx(3600, abs=60)
    assert counters.total("refit_feed_gaps", feed="stock") == 2


def test_a_reader_records_what_it_sees(tmp_path):
    letters = DeadLetters(tmp_path / "bad.jsonl", Counters(), "bad")
    feed = FolderFeed(tmp_path)
    reader = FeedReader(feed, StockChange, letters)
    (tmp_path / "a.jsonl").write_text('{"unfinished')
    reader.read(lambda *_: None)
    assert reader.lag.behind == 0, "a writer that died in the middle of a line does not count"
    assert reader.lag.answers

    def fail():
        raise ServiceUnreachable("away")
        yield

    reader.feed = type("Away", (), {"read": lambda self: fail()})()
    with pytest.raises(ServiceUnreachable):
        reader.read(lambda *_: None)
    assert not reader.lag.answers
    assert reader.lag.is_ready(60)
