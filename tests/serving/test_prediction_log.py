import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from refit.prediction import PREDICTION_SCHEMA
from serving import prediction_log
from serving.counters import Counters
from serving.prediction_log import JOURNAL_FOLDER, Prediction, PredictionLog, recover
from tests.disks import disk, full_disk
from tests.s3 import BUCKET
from tests.serving import tiny

REASONS = ("disk", "store", "slow", "end")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def prediction(number: int, time: datetime = NOON) -> Prediction:
    return Prediction(
        request_id=f"r{number}",
        bundle_id="b",
        embedding_version="t",
        user_id=None if number % 2 else "u",
        time=time,
        context=json.dumps({"occasion": "party"}),
        query_embedding=[0.25, -1.0],
        item_ids=["i1", "i2"],
        scores=[0.5, 0.25],
        fallback=None,
        latency_ms=1.5,
        sources=["towers", "exploration"],
        positions=[0, 1],
        propensities=[0.75, 0.25],
        bucket=None,
        repeat_item_ids=["i1"],
        repeat_scores=[0.5],
    )


def logged(folder: Path) -> list[str]:
    parts = sorted(folder.glob("date=*/*.parquet"))
    return sorted(name for part in parts for name in pq.read_table(part)["request_id"].to_pylist())


def open_log(folder: Path, rows=1000, seconds=60.0, capacity=10_000) -> PredictionLog:
    return PredictionLog(folder, rows, seconds, capacity, Counters())


def test_logged_answers_are_read_back_with_the_schema(tmp_path):
    log = open_log(tmp_path)
    log.put(prediction(0))
    log.close()
    (part,) = tmp_path.glob("date=2026-03-01/*.parquet")
    table = pq.read_table(part, partitioning=None)
    assert table.schema.equals(PREDICTION_SCHEMA)
    row = table.to_pylist()[0]
    assert row["time"] == NOON
    assert row["query_embedding"] == [0.25, -1.0]
    assert row["item_ids"] == ["i1", "i2"]
    assert (row["sources"], row["positions"]) == (["towers", "exploration"], [0, 1])
    assert (row["propensities"], row["bucket"]) == ([0.75, 0.25], None)
    assert not list((tmp_path / JOURNAL_FOLDER).iterdir())


def test_a_journal_of_an_earlier_version_is_recovered(tmp_path):
    line = json.loads(json.dumps(asdict(prediction(0)), default=datetime.isoformat))
    for name in ("sources", "positions", "propensities", "bucket"):
        del line[name]
    (tmp_path / JOURNAL_FOLDER).mkdir()
    (tmp_path / JOURNAL_FOLDER / "old.jsonl").write_text(json.dumps(line) + "\n")
    assert recover(tmp_path) == 1
    (row,) = pq.read_table(tmp_path, partitioning=None).to_pylist()
    assert (row["request_id"], row["sources"], row["bucket"]) == ("r0", None, None)


def test_a_part_is_closed_after_rows_and_after_seconds(tmp_path, until):
    by_rows = open_log(tmp_path / "rows", rows=2)
    for number in range(5):
        by_rows.put(prediction(number))
    until(lambda: len(logged(tmp_path / "rows")) >= 4)
    by_seconds = open_log(tmp_path / "seconds", seconds=0.1)
    by_seconds.put(prediction(0))
    until(lambda: logged(tmp_path / "seconds") == ["r0"])
    by_rows.close()
    by_seconds.close()
    assert len(logged(tmp_path / "rows")) == 5


def test_each_day_gets_its_own_part(tmp_path):
    log = open_log(tmp_path)
    log.put(prediction(0))
    log.put(prediction(1, datetime(2026, 3, 2, tzinfo=UTC)))
    log.close()
    assert sorted(p.name for p in tmp_path.glob("date=*")) == ["date=2026-03-01", "date=2026-03-02"]


def test_a_full_queue_drops_and_counts_instead_of_blocking(tmp_path, monkeypatch):
    monkeypatch.setattr(PredictionLog, "_run", lambda self: None)
    counters = Counters()
    log = PredictionLog(tmp_path, 10, 60.0, 3, counters)
    for number in range(10):
        log.put(prediction(number))
    assert counters.total("refit_log_dropped") == 7


CHILD = """
import time
from pathlib import Path
from tests.serving.test_prediction_log import open_log, prediction
log = open_log(Path({folder!r}), rows=7)
for number in range(20):
    log.put(prediction(number))
while log._journal is None or log._journal.rows != 6:
    time.sleep(0.01)
print("all handed over", flush=True)
time.sleep(60)
"""


def test_a_kill_loses_no_answer_in_the_journal(tmp_path):
    code = CHILD.format(folder=str(tmp_path))
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert child.stdout.readline().strip() == "all handed over"
    assert recover(tmp_path) == 0, "its writer lives"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    before = logged(tmp_path)
    open_log(tmp_path).close()
    assert len(before) == 14
    assert logged(tmp_path) == sorted(f"r{number}" for number in range(20))


def test_recovery_after_a_kill_between_part_and_journal_duplicates_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)
        log = open_log(tmp_path)
        log.put(prediction(0))
        log.close()
    assert list((tmp_path / JOURNAL_FOLDER).iterdir())
    assert recover(tmp_path) == 1
    assert logged(tmp_path) == ["r0"]


def test_only_a_truncated_last_line_is_lost(tmp_path):
    log = open_log(tmp_path)
    log.close()
    line = json.dumps(vars(prediction(0)), default=lambda time: time.isoformat())
    journal = tmp_path / JOURNAL_FOLDER / "dead.jsonl"
    journal.write_text(f"{line}\n{line[: len(line) // 2]}")
    recover(tmp_path)
    assert logged(tmp_path) == ["r0"]


def test_a_part_that_cannot_be_written_is_written_later(tmp_path, monkeypatch, until):
    counters = Counters()
    log = PredictionLog(tmp_path, 1, 60.0, 10, counters)
    real = prediction_log.pq.write_table
    monkeypatch.setattr(
        prediction_log.pq,
        "write_table",
        lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")),
    )
    log.put(prediction(0))
    until(lambda: counters.total("refit_log_failures") == 1)
    monkeypatch.setattr(prediction_log.pq, "write_table", real)
    log.put(prediction(1))
    log.close()
    assert logged(tmp_path) == ["r0", "r1"]


@pytest.mark.parametrize("times", [1, 2])
def test_closing_twice_has_no_further_effect(tmp_path, times):
    log = open_log(tmp_path)
    log.put(prediction(0))
    for _ in range(times):
        log.close()
    assert logged(tmp_path) == ["r0"]


@pytest.fixture
def store() -> str:
    """URL of an object store."""
    return f"memory://{uuid.uuid4().hex}/log"


def stored(url: str) -> list[str]:
    fs, root = fsspec.core.url_to_fs(url)
    tables = [pq.read_table(io.BytesIO(fs.cat_file(path))) for path in fs.glob(f"{root}/*/*")]
    return sorted(name for table in tables for name in table["request_id"].to_pylist())


@pytest.fixture
def bring_back(monkeypatch):
    """The store refuses everything until this is called."""

    def refuse(*_):
        raise OSError("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", refuse)
        yield patch.undo


def open_remote_log(
    folder: Path, url: str, counters: Counters, seconds=0.05, **more: int
) -> PredictionLog:
    return PredictionLog(folder, 1000, seconds, 10_000, counters, url, **more)


def test_closed_parts_of_a_remote_log_are_moved_to_its_url(tmp_path, store, until):
    log = open_remote_log(tmp_path, store, Counters())
    log.put(prediction(0))
    until(lambda: stored(store) == ["r0"])
    until(lambda: not list(tmp_path.glob("date=*/*.parquet")))
    log.put(prediction(1))
    log.close()
    assert stored(store) == ["r0", "r1"]


def test_without_the_store_parts_wait_and_failures_are_counted(tmp_path, store, until, bring_back):
    counters = Counters()
    log = open_remote_log(tmp_path, store, counters)
    log.put(prediction(0))
    until(lambda: counters.total("refit_log_upload_failures") > 2)
    assert logged(tmp_path) == ["r0"]
    bring_back()
    until(lambda: stored(store) == ["r0"])
    log.close()
    waiting = [one for one in counters.drain() if one["key"] == "refit_log_waiting_parts"]
    assert {one["value"] for one in waiting} == {0, 1}
    assert waiting[-1]["value"] == 0


def test_closing_waits_for_the_store_with_a_timeout(tmp_path, store, monkeypatch, bring_back):
    monkeypatch.setattr(prediction_log, "CLOSE_SECONDS", 0.3)
    log = open_remote_log(tmp_path, store, Counters())
    log.put(prediction(0))
    log.close()
    assert logged(tmp_path) == ["r0"]


def test_a_start_uploads_the_parts_of_an_earlier_process(tmp_path, store):
    earlier = open_log(tmp_path)
    earlier.put(prediction(0))
    earlier.close()
    open_remote_log(tmp_path, store, Counters()).close()
    assert stored(store) == ["r0"]
    assert logged(tmp_path) == []


def dropped(counters: Counters) -> dict[str, float]:
    totals = {why: counters.total("refit_log_dropped", reason=why) for why in REASONS}
    return {why: total for why, total in totals.items() if total}


def test_every_counter_is_there_before_anything_happens(tmp_path):
    counters = Counters()
    PredictionLog(tmp_path, 10, 60.0, 10, counters).close()
    found = {(one["key"], one["tags"].get("reason")) for one in counters.drain()}
    assert {("refit_log_dropped", why) for why in REASONS} <= found
    assert {("refit_log_failures", None), ("refit_log_upload_failures", None)} <= found


def test_on_a_full_disk_answers_wait_and_those_beyond_the_queue_are_counted(tmp_path, until):
    counters = Counters()
    with full_disk(tmp_path / "full", "log") as disk:
        log = PredictionLog(disk / "log", 3, 0.05, 20, counters)
        log.put(prediction(0))
        until(lambda: counters.total("refit_log_failures") > 1)
        for number in range(1, 41):
            started = time.monotonic()
            log.put(prediction(number))
            assert time.monotonic() - started < 0.1, "an answer must not wait for the log"
        assert dropped(counters) == {"disk": 20}
        (disk / "filler").unlink()
        until(lambda: len(logged(disk / "log")) == 21)
        log.put(prediction(41))
        log.close()
        assert logged(disk / "log") == sorted(f"r{number}" for number in [*range(21), 41])
        assert dropped(counters) == {"disk": 20}


def test_a_disk_that_fills_up_in_the_middle_loses_and_doubles_nothing(tmp_path, until):
    counters = Counters()
    with disk(tmp_path / "small", "size=256k") as small:
        log = PredictionLog(small / "log", 40, 0.05, 10_000, counters)
        with (small / "filler").open("wb", buffering=0) as filler:
            for number in range(600):
                log.put(prediction(number))
                with suppress(OSError):
                    filler.write(b"x" * 1024)
                time.sleep(0.001)
        until(lambda: counters.total("refit_log_failures") > 2)
        (small / "filler").unlink()
        until(lambda: len(logged(small / "log")) == 600)
        log.close()
        assert logged(small / "log") == sorted(f"r{number}" for number in range(600))
    assert dropped(counters) == {}


def test_a_folder_that_may_not_be_written_stops_no_start_and_no_end(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_log, "CLOSE_SECONDS", 1.0)
    counters = Counters()
    with disk(tmp_path / "disk", "ro,size=256k") as folder:
        log = PredictionLog(folder / "log", 3, 0.05, 5, counters)
        for number in range(20):
            log.put(prediction(number))
        started = time.monotonic()
        log.close()
        assert time.monotonic() - started < 3
    assert dropped(counters).keys() == {"disk", "end"}
    assert sum(dropped(counters).values()) == 20, "each is counted once"


def test_a_log_folder_that_somebody_removes_is_made_again(tmp_path, until):
    log = open_log(tmp_path / "log", seconds=0.05)
    log.put(prediction(0))
    until(lambda: logged(tmp_path / "log") == ["r0"])
    shutil.rmtree(tmp_path / "log")
    log.put(prediction(1))
    until(lambda: logged(tmp_path / "log") == ["r1"])
    log.close()


def test_while_the_store_is_away_what_waits_is_bounded_and_nothing_of_it_is_lost(
    tmp_path, store, until, bring_back
):
    counters = Counters()
    log = open_remote_log(tmp_path, store, counters, staging_bytes=20_000)
    kept = 0
    while not counters.total("refit_log_dropped", reason="store"):
        log.put(prediction(kept))
        kept += 1
        time.sleep(0.02)
    used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert 10_000 <= used < 60_000, "journals are larger than parts"
    waiting = len(logged(tmp_path))
    bring_back()
    until(lambda: not list(tmp_path.glob("date=*/*.parquet")))
    until(lambda: counters.total("refit_log_rows") + counters.total("refit_log_dropped") == kept)
    log.put(prediction(kept))
    log.close()
    found = stored(store)
    assert len(found) == len(set(found)) >= waiting
    assert f"r{kept}" in found, "after the store is back, answers are logged again"
    assert len(found) == counters.total("refit_log_rows")
    assert set(dropped(counters)) == {"store"}


def test_one_part_that_cannot_be_uploaded_holds_up_no_other(tmp_path, store, monkeypatch, until):
    earlier = open_log(tmp_path, rows=1)
    for number in range(3):
        earlier.put(prediction(number))
    earlier.close()
    bad = sorted(tmp_path.glob("date=*/*.parquet"))[0]
    real = MemoryFileSystem.put_file

    def refuse(self, source, *args, **kwargs):
        if source == str(bad):
            raise OSError("no such luck")
        return real(self, source, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
    monkeypatch.setattr(prediction_log, "CLOSE_SECONDS", 0.3)
    log = open_remote_log(tmp_path, store, Counters())
    until(lambda: len(stored(store)) == 2)
    log.close()
    assert len(logged(tmp_path)) == 1


def test_what_a_kill_left_half_written_is_removed_with_its_journal(tmp_path):
    line = json.dumps(asdict(prediction(0)), default=datetime.isoformat)
    (tmp_path / JOURNAL_FOLDER).mkdir()
    (tmp_path / JOURNAL_FOLDER / "dead.jsonl").write_text(line + "\n")
    (tmp_path / "date=2026-03-01").mkdir()
    half = tmp_path / "date=2026-03-01" / ".dead.parquet.1234.partial"
    half.write_bytes(b"PAR1")
    assert recover(tmp_path) == 1
    assert not half.exists()
    assert logged(tmp_path) == ["r0"]


def test_a_file_url_sees_parts_whole(tmp_path):
    log = open_remote_log(tmp_path / "staging", f"file://{tmp_path}/log", Counters())
    log.put(prediction(0))
    log.close()
    assert logged(tmp_path / "log") == ["r0"]
    assert not list((tmp_path / "log").rglob("*.partial"))


def test_parts_are_moved_to_a_real_store(tmp_path, s3, until):
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    log = open_remote_log(tmp_path, url, Counters())
    for number in range(5):
        log.put(prediction(number))
        time.sleep(0.06)
    log.close()
    until(lambda: stored(url) == [f"r{number}" for number in range(5)])
    assert logged(tmp_path) == []


def test_on_a_full_disk_people_get_answers_and_sales_count(tmp_path, serve, until):
    with full_disk(tmp_path / "full") as disk:
        recommender = serve(log_folder=disk / "log", log_queue=5)
        first = recommender.recommend({"user_id": "user-3", "k": 3})
        assert first["fallback"] is None
        sold = first["items"][0]["item_id"]
        with (tmp_path / "stock" / "feed.jsonl").open("a") as feed:
            feed.write("this line is kept nowhere, for want of space\n")
            feed.write(json.dumps(tiny.gone(sold)) + "\n")
        until(lambda: recommender.counters.total("refit_stock_dead_letters") == 1)

        def shown() -> list[str]:
            return tiny.ids(recommender.recommend({"user_id": "user-3", "k": 3}))

        until(lambda: sold not in shown())
        until(lambda: shown() and recommender.counters.total("refit_log_dropped", reason="disk"))
        assert recommender.status()["ready"]
        assert not recommender.counters.total("refit_errors")
