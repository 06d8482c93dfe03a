"""Lines that come as requests: checked, and safe once they are accepted."""

import json
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from refit.errors import ServiceUnreachable, UsageError
from refit.ports import free_port
from serving.feeds.folder import FolderFeed
from serving.feeds.intake import MOST_LINES, Intake, open_intakes
from serving.feeds.settings import LiveFeedSettings
from serving.feeds.stock import StockChange
from serving.feeds.writing import FolderWriter
from tests.serving.tiny import LIVE, NEW, every_item, gone


def encode(*lines: object) -> list[bytes]:
    return [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]


@pytest.fixture
def intakes(tmp_path):
    settings = LiveFeedSettings(
        stock=str(tmp_path / "stock"), activity=str(tmp_path / "activity"), ahead_seconds=60
    )
    intakes = open_intakes(settings)
    yield intakes
    for intake in intakes.values():
        intake.close()


def test_good_lines_are_in_the_feed_and_bad_ones_come_back_with_their_reasons(intakes, tmp_path):
    bad = [b"{", {**NEW, "price": -5}, {**NEW, "at": "2099-01-01T00:00:00Z"}, b'{"a":\r1}', b"[]"]
    counts = intakes["stock"].accept(encode(NEW, *bad, b" ", gone("item-1")))
    assert (counts.accepted, counts.refused) == (2, len(bad))
    assert [number for number, _ in counts.reasons] == [1, 2, 3, 4, 5]
    assert counts.reasons[1][1] == "price: negative"
    read = [line.content for line in FolderFeed(tmp_path / "stock").read()]
    assert read == encode(NEW, gone("item-1"))
    assert intakes["activity"].accept(encode(NEW)).refused == 1


def test_too_many_lines_are_refused_and_reasons_are_few(intakes):
    with pytest.raises(UsageError, match="send at most"):
        intakes["stock"].accept([b"{}"] * (MOST_LINES + 1))
    assert len(intakes["stock"].accept([b"{}"] * 100).reasons) == 20


def test_what_is_accepted_reaches_the_answers(serve, tmp_path, until):
    stock = str(tmp_path / "stock")
    recommender = serve(feeds={"stock": stock})
    intake = open_intakes(LiveFeedSettings(stock=stock), has_now=False)["stock"]
    assert intake.accept(encode(gone("item-1"), NEW)).accepted == 2
    until(lambda: set(every_item(recommender)) == LIVE - {"item-1"} | {"new-1"})


def test_threads_and_processes_write_whole_lines(tmp_path):
    writers = [FolderWriter(tmp_path) for _ in range(2)]  # as of two processes

    def write(number: int) -> None:
        for _ in range(50):
            writers[number % 2].append([("k", json.dumps([number] * 50).encode())] * 3)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line.content) for line in FolderFeed(tmp_path).read()]
    assert len(lines) == 4 * 50 * 3
    assert all(len(set(line)) == 1 and len(line) == 50 for line in lines)


def test_after_a_full_disk_no_line_is_appended_to_half_of_another(tmp_path, monkeypatch):
    intake = Intake(StockChange, FolderWriter(tmp_path), timedelta(days=10_000))
    assert intake.accept(encode(gone("item-1"))).accepted == 1
    (path,) = tmp_path.glob("*.jsonl")

    def half(_: int) -> None:
        path.write_bytes(path.read_bytes()[:-20])
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", half)
    with pytest.raises(ServiceUnreachable, match="No space left"):
        intake.accept(encode(gone("item-2")))
    monkeypatch.undo()
    assert intake.accept(encode(gone("item-2"))).accepted == 1
    read = [line.content for line in FolderFeed(tmp_path).read()]
    assert sorted(read) == encode(gone("item-1"), gone("item-2"))


def test_a_folder_that_cannot_be_made_and_brokers_that_are_away_are_said_to_be_unreachable(
    tmp_path,
):
    (tmp_path / "file").write_text("")
    intake = open_intakes(LiveFeedSettings(stock=str(tmp_path / "file" / "stock")))["stock"]
    with pytest.raises(ServiceUnreachable, match="cannot be written"):
        intake.accept(encode(gone("item-1")))
    address = f"kafka://127.0.0.1:{free_port()}/stock"
    intake = open_intakes(LiveFeedSettings(stock=address))["stock"]
    with pytest.raises(ServiceUnreachable, match="the topic stock at"):
        intake.accept(encode(gone("item-1")))
    with pytest.raises(UsageError, match="local folder or kafka://"):
        open_intakes(LiveFeedSettings(stock="s3://bucket/stock"))
    assert Path(tmp_path / "file").read_text() == ""
