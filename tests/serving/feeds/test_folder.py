"""Feeds in a folder: what is read, once or more often, and never lost."""

from pathlib import Path

import pytest

from serving.feeds import folder as folder_module
from serving.feeds.feed import MAX_LINE_BYTES, Position
from serving.feeds.folder import FolderFeed


@pytest.fixture
def feed(tmp_path):
    feed = FolderFeed(tmp_path)
    yield feed
    feed.close()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def texts(feed: FolderFeed) -> list[str]:
    return [line.content.decode() for line in feed.read()]


def test_each_line_is_read_once_in_the_order_of_the_names(feed, tmp_path):
    append(tmp_path / "b.jsonl", "3\n")
    append(tmp_path / "a.jsonl", "1\n2\r\n")
    append(tmp_path / "notes.txt", "no\n")
    assert texts(feed) == ["1", "2", "3"]
    append(tmp_path / "a.jsonl", "4\n\n5\n")
    assert feed.behind == 5
    lines = list(feed.read())
    assert [line.content for line in lines] == [b"4", b"5"]
    assert lines[0].position == Position("a.jsonl", 5)
    assert texts(feed) == []
    assert feed.behind == 0


def test_a_folder_may_come_later(tmp_path):
    feed = FolderFeed(tmp_path / "stock")
    assert texts(feed) == []
    (tmp_path / "stock").mkdir()
    append(tmp_path / "stock" / "a.jsonl", "1\n")
    assert texts(feed) == ["1"]


def test_a_line_without_its_end_is_left_until_it_has_one(feed, tmp_path):
    append(tmp_path / "a.jsonl", "1\n2")
    assert texts(feed) == ["1"]
    append(tmp_path / "a.jsonl", "3\n")
    assert texts(feed) == ["23"]


def test_a_line_comes_again_if_its_reader_failed(feed, tmp_path):
    append(tmp_path / "a.jsonl", "1\n2\n3\n")
    for line in feed.read():
        if line.content == b"2":
            break  # as an error of the reader would
    assert texts(feed) == ["2", "3"]


def test_a_line_that_is_too_long_is_a_fault_and_the_next_is_read(feed, tmp_path):
    append(tmp_path / "a.jsonl", "1\n" + "x" * (2 * MAX_LINE_BYTES + 5) + "\n2\n")
    lines = list(feed.read())
    assert [line.fault for line in lines] == ["", f"longer than {MAX_LINE_BYTES} bytes", ""]
    assert lines[2].content == b"2"


def test_a_file_that_became_shorter_is_read_from_its_start(feed, tmp_path):
    append(tmp_path / "a.jsonl", "1\n2\n3\n")
    assert len(texts(feed)) == 3
    (tmp_path / "a.jsonl").write_text("4\n")
    assert texts(feed) == ["4"]
    assert feed.gaps == 1


def test_a_file_that_was_truncated_and_grew_again_is_read_from_its_start(feed, tmp_path):
    append(tmp_path / "a.jsonl", "1\n2\n3\n")
    assert len(texts(feed)) == 3
    (tmp_path / "a.jsonl").write_text("4\n5\n6\n7\n")
    assert texts(feed) == ["4", "5", "6", "7"]


def test_a_file_that_is_rotated_is_read_to_its_end(feed, tmp_path):
    path = tmp_path / "a.jsonl"
    append(path, "1\n")
    assert texts(feed) == ["1"]
    append(path, "2\n")
    path.rename(tmp_path / "a.jsonl.1")
    append(path, "3\n")
    append(tmp_path / "a.jsonl.1", "late\n")
    assert sorted(texts(feed)) == ["2", "3", "late"]


def test_a_file_that_is_renamed_within_the_feed_is_not_read_again(feed, tmp_path):
    append(tmp_path / "a.jsonl", "1\n")
    assert texts(feed) == ["1"]
    (tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl")
    assert texts(feed) == []


def test_a_file_that_is_removed_is_let_go(feed, tmp_path, monkeypatch):
    append(tmp_path / "a.jsonl", "1\n")
    assert texts(feed) == ["1"]
    append(tmp_path / "a.jsonl", "2\n")
    (tmp_path / "a.jsonl").unlink()
    monkeypatch.setattr(folder_module, "KEEP_SECONDS", -1)
    assert texts(feed) == ["2"]
    assert not feed._files


def test_a_file_that_cannot_be_read_stops_no_other(feed, tmp_path):
    append(tmp_path / "b.jsonl", "1\n")
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "c.jsonl").mkdir()
    assert texts(feed) == ["1"]
