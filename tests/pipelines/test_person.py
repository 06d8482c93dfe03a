"""refit person delete, in every place that it reaches."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.forget import blank_lines, forget_rows, mentions
from refit.log_parts import LogParts
from serving.counters import Counters
from serving.feeds.activity import ActivityEvent
from serving.feeds.dead_letters import DeadLetters
from serving.feeds.feed import Line, Position
from serving.feeds.folder import FolderFeed
from serving.feeds.landing import Landing
from serving.feeds.lines import FeedReader
from tests.refit.test_log_keeping import add, answers

ANN, BOB = "ann", "ann-2"
"""The id of one person is the beginning of that of another one."""
AT = "2026-03-01T10:00:00Z"


def event(user: str, item: str = "i1", kind: str = "view") -> str:
    values = {"user_id": user, "item_id": item, "event_type": kind, "event_time": AT}
    return json.dumps(values) + "\n"


@pytest.fixture
def home(tmp_path) -> Path:
    """A home that holds two people everywhere."""
    home = tmp_path / "home"
    (home / "predictions").mkdir(parents=True)
    log = LogParts.at(home / "predictions")
    add(log, answers(["a1", "b1"], [ANN, BOB]))
    add(log, answers(["a2", "b2"], [ANN, BOB], day=2), day=2)
    for name in ("activity", "stock", "monitoring/pages"):
        (home / name).mkdir(parents=True)
    (home / "activity" / "1.jsonl").write_text(event(BOB) + event(ANN) + event(BOB, "i2"))
    listed = {"item_id": "m1", "change": "listed", "at": AT, "seller_id": ANN}
    sold = {"item_id": "m2", "change": "sold", "at": AT}
    (home / "stock" / "1.jsonl").write_text(f"{json.dumps(listed)}\n{json.dumps(sold)}\n")
    letters = home / "predictions" / "activity_dead_letters"
    for number, user in enumerate((ANN, BOB)):
        keeper = DeadLetters(letters / f"{user}.jsonl", Counters(), "letters")
        keeper.keep(Line(event(user).encode()[:-3], Position("f", number)), "not JSON")
    (home / "monitoring" / "pages" / "1.html").write_text(f"<td>{ANN}</td>")
    (home / "monitoring" / "pages" / "2.html").write_text(f"<td>{BOB}</td>")
    return home


def holding(home: Path, user: str) -> list[str]:
    """Files that hold a person."""
    found = []
    for path in sorted(home.rglob("*")):
        if path.suffix == ".parquet":
            if user in pq.read_table(path)["user_id"].to_pylist():
                found.append(path.name)
        elif path.is_file() and mentions(path.read_bytes(), user):
            found.append(path.name)
    return found


def test_a_person_is_deleted_everywhere_and_nobody_else_is(refit, home):
    others = holding(home, BOB)
    result = refit("person", "delete", ANN, "--home", home, "--json")
    assert result.code == 0
    report = json.loads(result.out)
    counts = {Path(one["place"]).name: one["count"] for one in report["removed"]}
    assert counts == {
        "predictions": 2,
        "activity": 1,
        "stock": 1,
        "activity_dead_letters": 1,
        "stock_dead_letters": 0,
        "pages": 1,
    }
    assert not any(one["left"] for one in report["removed"])
    assert any("Kafka" in text for text in report["out_of_reach"])
    assert holding(home, ANN) == []
    assert len(holding(home, BOB)) == len(others)


def test_to_delete_a_person_again_finds_nothing(refit, home):
    refit("person", "delete", ANN, "--home", home)
    report = json.loads(refit("person", "delete", ANN, "--home", home, "--json").out)
    assert sum(one["count"] for one in report["removed"]) == 0


def test_a_dry_run_deletes_nothing(refit, home):
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    result = refit("person", "delete", ANN, "--home", home, "--dry-run")
    assert result.code == 0
    assert "2\t2" in result.out
    assert "not in reach" in result.err
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_nobody_known_is_refused(refit, home):
    result = refit("person", "delete", "", "--home", home)
    assert result.code == 2
    assert "name the person" in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--home", "nowhere"), "there is no home at"),
        (("--log", "nowhere"), "there is no prediction log at nowhere"),
        (("--log", "memory://nowhere/log"), "there is no prediction log at memory://"),
        (("--landing", "nowhere"), "there are no activity tables at nowhere"),
    ],
)
def test_a_place_that_is_not_there_is_refused(refit, home, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "--home" not in words:
        words += ("--home", home)
    result = refit("person", "delete", ANN, *words)
    assert result.code == 2
    assert message in result.err
    assert holding(home, ANN), "nothing was removed before the place was looked for"


def test_answers_that_are_about_to_be_written_are_told(refit, home):
    journal = home / "predictions" / "_journal" / "1.jsonl"
    journal.parent.mkdir()
    journal.write_text(json.dumps({"user_id": ANN, "time": AT}) + "\n")
    result = refit("person", "delete", ANN, "--home", home)
    assert "1 answers are about to be written: repeat this" in result.out


def test_a_feed_goes_on_where_its_readers_and_its_writer_are(tmp_path):
    path = tmp_path / "1.jsonl"
    path.write_text(event(BOB) * 5 + event(ANN))
    feed = FolderFeed(tmp_path)
    reader = FeedReader(feed, ActivityEvent, DeadLetters(tmp_path / "l", Counters(), "l"))
    with path.open("a") as writer:
        assert len(list(reader.parsed())) == 6
        found = blank_lines(tmp_path, ANN, mentions, dry_run=False)
        assert (found.count, found.files, found.left) == (1, 1, "")
        writer.write(event(BOB, "i9"))
    assert [one.item_id for one in reader.parsed()] == ["i9"]
    assert feed.gaps == 0
    feed.close()
    again = FeedReader(
        FolderFeed(tmp_path), ActivityEvent, DeadLetters(tmp_path / "l", Counters(), "l")
    )
    assert len(list(again.parsed())) == 6
    assert again.dead_letters._seen == set(), "a blank line is no bad line"


def test_a_line_that_is_being_written_is_left_and_told(tmp_path):
    (tmp_path / "1.jsonl").write_text(event(ANN) + event(ANN)[:-1])
    found = blank_lines(tmp_path, ANN, mentions, dry_run=False)
    assert found.count == 1
    assert "is being written" in found.left


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_landed_tables_lose_the_persons_rows(tmp_path, kind, request):
    (tmp_path / "feed").mkdir()
    lines = event(BOB) + event(ANN) + event(ANN, kind="impression")
    (tmp_path / "feed" / "1.jsonl").write_text(lines + event(ANN)[:-3] + "\n")
    to = str(tmp_path / "landed") if kind == "folder" else f"memory://{tmp_path.name}/landed"
    feed = FolderFeed(tmp_path / "feed")
    Landing(feed, to).land()
    feed.close()
    found = {one.place.rsplit("/", 1)[-1]: one for one in forget_rows(to, ANN, dry_run=False)}
    assert {name: one.count for name, one in found.items()} == {
        "events": 1,
        "impressions": 1,
        "dead_letters": 1,
    }
    assert sum(one.count for one in forget_rows(to, ANN, dry_run=False)) == 0
    store = LogParts.at(to).store
    left = list(store.find(LogParts.at(to).root))
    assert len(left) == 2, "the events of the other one, and the positions"
    assert not any(b'"ann"' in store.cat_file(path) for path in left)
    (events,) = (path for path in left if path.endswith(".parquet"))
    with store.open(events) as file:
        assert pq.read_table(file)["user_id"].to_pylist() == [BOB]


def test_positions_name_nobody_and_are_resumed(tmp_path):
    (tmp_path / "1.jsonl").write_text(event(ANN))
    feed = FolderFeed(tmp_path)
    assert len(list(feed.read())) == 1
    positions = json.loads(json.dumps(feed.positions))
    feed.close()
    assert not mentions(json.dumps(positions).encode(), ANN)
    with (tmp_path / "1.jsonl").open("a") as file:
        file.write(event(BOB))
    later = FolderFeed(tmp_path)
    later.resume(positions)
    assert [json.loads(line.content)["user_id"] for line in later.read()] == [BOB]
    later.close()


@pytest.mark.parametrize(
    ("text", "is_there"),
    [
        ('{"user_id": "zoë"}', True),
        (json.dumps({"user_id": "zoë"}), True),
        (json.dumps({"line": json.dumps({"user_id": "zoë"})}), True),
        ("zoë", True),
        ("zoëlle", False),
        ("x-zoë", False),
    ],
)
def test_an_id_is_found_however_it_is_spelt(text, is_there):
    assert mentions(text.encode(), "zoë") is is_there


def test_days_of_the_log_are_listed_compacted_and_pruned(refit, home):
    log = LogParts.at(home / "predictions")
    add(log, answers(["c1"]))
    listed = refit("predictions", "list", "--home", home)
    assert listed.out.splitlines()[1:] == ["2026-03-01\t2\t0", "2026-03-02\t1\t0"]
    dry = refit("predictions", "compact", "--home", home, "--dry-run")
    assert dry.out.splitlines()[1:] == ["2026-03-01\t2\t1"]
    done = refit("predictions", "compact", "--home", home)
    assert done.out == dry.out
    assert json.loads(refit("predictions", "list", "--home", home, "--json").out)[0]["merged"] == 1
    assert "nothing to merge" in refit("predictions", "compact", "--home", home).err
    add(log, answers(["now"], day=31), day=31)
    keep = ("--set", "monitoring.log.keep_days=60", "--home", home)
    assert "no day is older than 60 days" in refit("predictions", "prune", *keep).err
    now = datetime.now(UTC)
    content = pa.BufferOutputStream()
    pq.write_table(answers(["new"]), content)
    path = home / "predictions" / f"date={now:%Y-%m-%d}" / "new.parquet"
    path.parent.mkdir()
    path.write_bytes(content.getvalue())
    pruned = refit("predictions", "prune", *keep)
    assert [line.split("\t")[0] for line in pruned.out.splitlines()[1:]] == log_days(3)
    assert log.days() == [f"{now:%Y-%m-%d}"]


def log_days(count: int) -> list[str]:
    return ["2026-03-01", "2026-03-02", "2026-03-31"][:count]


def test_less_than_the_monitor_reads_is_refused(refit, home):
    result = refit("predictions", "prune", "--set", "monitoring.log.keep_days=30", "--home", home)
    assert result.code == 2
    assert "log.keep_days: 30 is less than the 46 days that the monitor itself reads" in result.err
