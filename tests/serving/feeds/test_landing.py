"""Activity lands in the events table that ingestion reads: nothing lost, nothing counted twice."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.ingestion.ingest import ingest
from components.ingestion.settings import IngestSettings
from refit.dataset import EVENTS_FILE
from refit.errors import ServiceUnreachable
from serving.feeds import landing as landing_module
from serving.feeds.folder import FolderFeed
from serving.feeds.landing import Landing, main

START = datetime(2024, 5, 1, tzinfo=UTC)


def event(number: int, kind: str = "view", **more: object) -> dict:
    time = START + timedelta(hours=number)
    return {
        "user_id": f"u{number % 7}",
        "item_id": f"i{number}",
        "event_type": kind,
        "event_time": time.isoformat(),
        **more,
    }


@pytest.fixture
def write(tmp_path):
    def append(*events: object, name: str = "a.jsonl") -> None:
        (tmp_path / "activity").mkdir(exist_ok=True)
        with (tmp_path / "activity" / name).open("a") as file:
            for one in events:
                file.write((one if isinstance(one, str) else json.dumps(one)) + "\n")

    return append


def land(folder: Path, **options: object) -> int:
    feed = FolderFeed(folder / "activity")
    try:
        return Landing(feed, str(folder / "landed"), **options).land()
    finally:
        feed.close()


def rows(folder: Path, table: str = "events") -> list[dict]:
    parts = sorted((folder / "landed" / table).glob("*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_each_call_writes_what_came_since_the_last(write, tmp_path):
    write(
        event(0, price=7), event(1, "not_interested"), "garbage", event(2, "impression", seen=True)
    )
    assert land(tmp_path, context=("occasion",)) == 3
    write(event(3, occasion="party", age=31), name="b.jsonl")
    write(event(4))
    assert land(tmp_path, context=("occasion", "age")) == 2
    assert land(tmp_path) == 0
    landed = {row["item_id"]: row for row in rows(tmp_path)}
    assert sorted(landed) == ["i0", "i1", "i3", "i4"]
    assert landed["i1"]["event_type"] == "hide"
    assert (landed["i0"]["price"], landed["i0"]["event_time"]) == (7, START)
    assert (landed["i3"]["occasion"], landed["i3"]["age"]) == ("party", "31")
    (shown,) = rows(tmp_path, "impressions")
    assert shown["seen"] is True
    (letters,) = (tmp_path / "landed" / "dead_letters").glob("*.jsonl")
    (letter,) = map(json.loads, letters.read_text().splitlines())
    assert letter["line"].strip() == "garbage"
    assert letter["reason"].startswith("not JSON")


def test_a_call_that_is_killed_loses_nothing(write, tmp_path, monkeypatch):
    monkeypatch.setattr(landing_module, "ROWS", 10)
    write(*(event(n) for n in range(35)))
    put, calls = Landing._put_bytes, []

    def die(self: Landing, name: str, content: bytes) -> None:
        calls.append(name)
        if len(calls) == 6:  # after the third part, before its positions are written
            raise ServiceUnreachable("killed")
        put(self, name, content)

    monkeypatch.setattr(Landing, "_put_bytes", die)
    with pytest.raises(ServiceUnreachable):
        land(tmp_path)
    monkeypatch.setattr(Landing, "_put_bytes", put)
    land(tmp_path)
    found = [row["item_id"] for row in rows(tmp_path)]
    assert set(found) == {f"i{n}" for n in range(35)}
    assert len(found) > 35, "some twice, which ingestion drops"


def test_a_file_that_was_written_anew_is_landed_from_its_start(write, tmp_path):
    write(event(0), event(1))
    land(tmp_path)
    (tmp_path / "activity" / "a.jsonl").unlink()
    write(event(5), event(6), event(7))
    assert land(tmp_path) == 3


def test_ingestion_reads_what_was_landed_beside_the_history(write, tmp_path):
    write(*(event(n, occasion="party") for n in range(200)))
    land(tmp_path, context=("occasion",))
    (tmp_path / "landed" / "positions.json").unlink()  # as if it had been killed
    land(tmp_path, context=("occasion",))
    history = [event(-n) for n in range(1, 100)]
    times = [datetime.fromisoformat(one.pop("event_time")) for one in history]
    table = pa.Table.from_pylist(history).append_column("event_time", pa.array(times))
    pq.write_table(table, tmp_path / "landed" / "events" / "history.parquet")
    settings = IngestSettings(
        source="files",
        paths={"events": str(tmp_path / "landed" / "events")},
        validation_days=1,
        test_days=1,
        end=START + timedelta(hours=200),
    )
    manifest = ingest(settings, tmp_path / "dataset")
    counts = manifest.counts["events"]
    assert (counts.kept, counts.rejected, counts.duplicates) == (299, 0, 200)
    kept = pq.read_table(tmp_path / "dataset" / EVENTS_FILE)
    assert kept.num_rows == 299
    assert "occasion" in manifest.context_columns


def test_without_a_feed_nothing_is_written(tmp_path):
    main(["--activity", "", "--to", str(tmp_path / "landed")])
    assert not (tmp_path / "landed").exists()


def test_the_command_ends_with_the_exit_code_of_its_error(write, tmp_path):
    write(event(0))
    main(["--activity", str(tmp_path / "activity"), "--to", str(tmp_path / "landed")])
    assert len(rows(tmp_path)) == 1
    with pytest.raises(SystemExit) as end:
        main(["--activity", "kafka://127.0.0.1:1/t", "--to", str(tmp_path / "landed")])
    assert end.value.code == 5
    with pytest.raises(SystemExit) as end:
        main(["--activity", "s3://no/feed", "--to", str(tmp_path / "landed")])
    assert end.value.code == 2
