"""A Kafka topic as a feed, against the real broker."""

import json
import time
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions

from refit.errors import ServiceUnreachable, UsageError
from refit.ports import free_port
from serving.feeds import kafka as kafka_module
from serving.feeds.feed import MAX_LINE_BYTES, Position
from serving.feeds.intake import open_intakes
from serving.feeds.kafka import KafkaFeed
from serving.feeds.landing import main
from serving.feeds.settings import LiveFeedSettings
from tests.kafka.broker import Broker
from tests.serving import tiny
from tests.serving.tiny import LIVE, NEW, every_item, gone

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = Broker(
        tmp_path_factory.mktemp("kafka"),
        {"message.max.bytes": 4 << 20, "log.cleaner.backoff.ms": 100},
    )
    yield broker
    broker.stop()


@pytest.fixture
def open_feed():
    feeds = []

    def open_one(address: str, since: datetime = LONG_AGO) -> KafkaFeed:
        feeds.append(KafkaFeed.at(address, "", since))
        return feeds[-1]

    yield open_one
    for feed in feeds:
        feed.close()


def write(broker: Broker, topic: str, *values: object, partition: int = 0, key: str = "") -> None:
    producer = broker.producer()
    for value in values:
        text = value if isinstance(value, bytes | None) else json.dumps(value).encode()
        producer.produce(topic, text, key=key or None, partition=partition)
    assert producer.flush(30) == 0


def texts(feed: KafkaFeed) -> list[str]:
    return [line.content.decode() for line in feed.read()]


def wait_for(feed: KafkaFeed, n: int, seconds: float = 20.0) -> list[str]:
    found: list[str] = []
    deadline = time.monotonic() + seconds
    while len(found) < n:
        assert time.monotonic() < deadline, found
        found += texts(feed)
        time.sleep(0.02)
    return found


def test_the_first_read_goes_to_the_end_of_all_partitions_and_later_ones_go_on(broker, open_feed):
    address = broker.make_topic("all", 3)
    for partition in range(3):
        write(broker, "all", *range(2000), partition=partition)
    feed = open_feed(address)
    lines = list(feed.read())
    assert len(lines) == 6000
    assert Position("all/1", 7) in [line.position for line in lines]
    assert feed.behind == 0
    write(broker, "all", "more", partition=2)
    assert wait_for(feed, 1) == ['"more"']
    assert len(list(open_feed(address).read())) == 6000 + 1, "every process reads all by itself"


def test_an_empty_topic_is_at_its_end_and_a_message_without_a_value_says_nothing(broker, open_feed):
    feed = open_feed(broker.make_topic("empty", 2))
    assert texts(feed) == []
    write(broker, "empty", None, b" ", b"x" * (MAX_LINE_BYTES + 1), "a", key="m1")
    deadline = time.monotonic() + 20
    lines = []
    while len(lines) < 2 and time.monotonic() < deadline:
        lines += list(feed.read())
    assert lines[0].fault == f"longer than {MAX_LINE_BYTES} bytes"
    assert lines[1].content == b'"a"'


def test_what_was_written_before_the_bundle_is_not_read(broker, open_feed):
    address = broker.make_topic("since", 2)
    write(broker, "since", "old")
    time.sleep(0.1)
    since = datetime.now(UTC)
    assert texts(open_feed(address, since)) == []
    feed = open_feed(address, since)
    write(broker, "since", "new", partition=1)
    write(broker, "since", "new")
    assert wait_for(feed, 2) == ['"new"'] * 2
    assert sorted(texts(open_feed(address, since))) == ['"new"'] * 2
    assert len(texts(open_feed(address))) == 3


def test_a_line_comes_again_if_its_reader_failed(broker, open_feed):
    address = broker.make_topic("again")
    write(broker, "again", 1, 2, 3)
    feed = open_feed(address)
    for line in feed.read():
        if line.content == b"2":
            break  # as an error of the reader would
    assert texts(feed) == ["2", "3"]


def test_new_partitions_are_read_from_their_beginning(broker, open_feed, monkeypatch):
    monkeypatch.setattr(kafka_module, "LOOK_SECONDS", 0.2)
    feed = open_feed(broker.make_topic("grows"))
    assert texts(feed) == []
    broker.admin.create_partitions([NewPartitions("grows", 2)])["grows"].result(10)
    write(broker, "grows", "new", partition=1)
    assert wait_for(feed, 1) == ['"new"']


def test_messages_that_are_gone_before_they_were_read_are_a_gap(broker, open_feed):
    address = broker.make_topic("gap")
    write(broker, "gap", *range(100))
    feed = open_feed(address)
    assert len(texts(feed)) == 100
    broker.admin.delete_topics(["gap"])["gap"].result(30)
    time.sleep(1)
    broker.make_topic("gap")
    write(broker, "gap", *range(3))
    deadline = time.monotonic() + 30
    found: list[str] = []
    while len(found) < 3 and time.monotonic() < deadline:
        try:
            found += texts(feed)
        except ServiceUnreachable:  # while the topic does not exist
            time.sleep(0.1)
    assert found == ["0", "1", "2"]
    assert feed.gaps >= 1


def test_a_topic_that_began_after_the_bundle_is_a_gap(broker, open_feed):
    address = broker.make_topic("retained")
    write(broker, "retained", *range(10))
    broker.admin.delete_records([TopicPartition("retained", 0, 4)])
    deadline = time.monotonic() + 20
    while True:
        feed = open_feed(address)
        found = texts(feed)
        if len(found) == 6 or time.monotonic() > deadline:
            break
    assert found == [str(n) for n in range(4, 10)]
    assert feed.gaps == 1


def test_a_compacted_topic_gives_the_last_word_on_each_item(broker, serve, until, tmp_path):
    address = broker.make_topic(
        "compacted",
        cleanup_policy="compact",
        segment_ms=200,
        min_cleanable_dirty_ratio=0.01,
        max_compaction_lag_ms=200,
        delete_retention_ms=0,
    )
    whole = {**NEW, "change": "listed"}
    for price in range(20, 60):
        write(broker, "compacted", {**whole, "price": price}, key="new-1")
    write(broker, "compacted", gone("item-1"), key="item-1")
    write(broker, "compacted", {**whole, "at": tiny.MUCH_LATER, "price": 7}, key="new-1")
    feed = KafkaFeed.at(address, "", LONG_AGO)

    def is_compacted() -> bool:
        write(broker, "compacted", gone("nobody"), key="nobody")  # rolls the segment
        again = KafkaFeed.at(address, "", LONG_AGO)
        n = len(texts(again))
        again.close()
        return n < 40

    until(is_compacted, 60)
    feed.close()
    recommender = serve(feeds={"stock": address})
    assert set(every_item(recommender)) == LIVE - {"item-1"} | {"new-1"}
    assert "new-1" in every_item(recommender, require={"price": {"max": 7}})


def test_addresses_properties_and_topics_that_are_wrong_are_clear_errors(broker, tmp_path):
    for address in ("kafka://host:9092", "kafka:///topic", "kafka://h:1/a/b"):
        with pytest.raises(UsageError, match="must be kafka://host:port,host:port/topic"):
            KafkaFeed.at(address, "", LONG_AGO)
    properties = tmp_path / "client.properties"
    properties.write_text("# TLS\nsecurity.protocol=SSL\nnonsense\n")
    with pytest.raises(UsageError, match="line 3"):
        KafkaFeed.at("kafka://h:1/t", str(properties), LONG_AGO)
    properties.write_text("no.such.setting = 1\n")
    with pytest.raises(UsageError, match=r"feeds.kafka_properties.*no.such.setting"):
        KafkaFeed.at("kafka://h:1/t", str(properties), LONG_AGO)
    with pytest.raises(UsageError, match="kafka_properties"):
        KafkaFeed.at("kafka://h:1/t", str(tmp_path / "nowhere"), LONG_AGO)
    feed = KafkaFeed.at(f"kafka://{broker.address}/no-such-topic", "", LONG_AGO)
    with pytest.raises(ServiceUnreachable, match="no-such-topic"):
        list(feed.read())
    feed.close()
    feed = KafkaFeed.at(f"kafka://127.0.0.1:{free_port()}/t", "", LONG_AGO)
    with pytest.raises(ServiceUnreachable, match="the topic t at"):
        list(feed.read())
    feed.close()


def test_what_is_accepted_is_on_the_topic_in_the_order_of_each_key(broker, open_feed):
    address = broker.make_topic("intake", 3)
    intake = open_intakes(LiveFeedSettings(stock=address), has_now=False)["stock"]
    lines = [{**NEW, "item_id": f"m{n % 5}", "price": n} for n in range(500)]
    counts = intake.accept([json.dumps(line).encode() for line in lines])
    assert (counts.accepted, counts.refused) == (500, 0)
    read = [json.loads(line.content) for line in open_feed(address).read()]
    for item in range(5):
        prices = [line["price"] for line in read if line["item_id"] == f"m{item}"]
        assert prices == sorted(prices)
        assert len(prices) == 100
    intake.close()


def test_landing_goes_on_where_it_was(broker, tmp_path):
    address = broker.make_topic("activity", 2)

    def event(number: int) -> dict:
        time = datetime(2024, 5, 1, 10, number, tzinfo=UTC).isoformat()
        return {"user_id": "u", "item_id": f"i{number}", "event_type": "view", "event_time": time}

    for number in range(4):
        write(broker, "activity", event(number), partition=number % 2)
        if number % 2:
            main(["--activity", address, "--to", str(tmp_path)])
    parts = [pq.read_table(path).to_pylist() for path in (tmp_path / "events").glob("*.parquet")]
    assert [len(part) for part in parts] == [2, 2]
    assert {row["item_id"] for part in parts for row in part} == {"i0", "i1", "i2", "i3"}


def test_a_server_follows_a_topic_and_goes_on_when_the_broker_was_away(
    broker, serve, until, registry, other_bundle
):
    """It answers meanwhile, also if it is started meanwhile, and misses nothing."""
    address = broker.make_topic("stock", 2)
    write(broker, "stock", gone("item-1"))
    settings = {"feeds": {"stock": address}}
    recommender = serve(**settings)
    assert set(every_item(recommender)) == LIVE - {"item-1"}
    write(broker, "stock", gone("item-2"), NEW, partition=1)
    until(lambda: set(every_item(recommender)) == LIVE - {"item-1", "item-2"} | {"new-1"})
    broker.stop()
    total = recommender.counters.total
    until(lambda: total("refit_follow_failures", what="stock") > 0)
    assert set(every_item(recommender)) == LIVE - {"item-1", "item-2"} | {"new-1"}
    tiny.promote(registry, other_bundle)
    failures = total("refit_follow_failures", what="champion")
    until(lambda: total("refit_follow_failures", what="champion") > failures)
    assert recommender.snapshot.bundle_id != other_bundle.bundle_id, "it would know less"
    late = serve(**settings)
    assert set(every_item(late)) == LIVE
    assert recommender.status()["ready"]
    assert not late.status()["ready"], "it does not know what was sold"
    broker.start()
    write(broker, "stock", gone("item-3"))
    expected = LIVE - {"item-1", "item-2", "item-3"} | {"new-1"}
    for one in (recommender, late):
        until(lambda one=one: set(every_item(one)) == expected)
        until(lambda one=one: one.status()["ready"])
        until(lambda one=one: one.snapshot.bundle_id == other_bundle.bundle_id)
        assert set(every_item(one)) == expected
