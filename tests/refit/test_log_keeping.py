"""Merging, pruning and removing a person, beside writers, readers and each other."""

import io
import threading
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refit import log_keeping
from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.files import write_atomically
from refit.log_keeping import GRACE, compact, drop_days, remove_person
from refit.log_parts import MANIFEST, MERGED, LogParts, MergedParts
from refit.prediction import PREDICTION_SCHEMA, build_predictions
from tests.s3 import BUCKET

NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)


def answers(ids: list[str], users: list[str | None] | None = None, day: int = 1) -> pa.Table:
    n = len(ids)
    columns = {
        "request_id": ids,
        "bundle_id": ["b"] * n,
        "embedding_version": ["t"] * n,
        "user_id": users or [f"user of {name}" for name in ids],
        "time": pa.array([datetime(2026, 3, day, 10, tzinfo=UTC)] * n, pa.timestamp("us", "UTC")),
        "context": ["{}"] * n,
        "item_ids": [["i1", "i2"]] * n,
        "scores": [[0.5, 0.25]] * n,
    }
    return build_predictions(columns, n)


def add(log: LogParts, table: pa.Table, day: int = 1) -> str:
    """Add a part as a server does."""
    name = f"{uuid.uuid4().hex}.parquet"
    content = io.BytesIO()
    pq.write_table(table, content)
    path = log.path(f"2026-03-{day:02d}", name)
    if "file" in log.store.protocol:
        with write_atomically(Path(path)) as staging:
            staging.write_bytes(content.getvalue())
    else:
        log.store.pipe_file(path, content.getvalue())
    return name


def read(log: LogParts) -> list[str]:
    """Ids of all answers that count."""
    contents = [log.store.cat_file(path) for path in log.find()]
    tables = [pq.read_table(io.BytesIO(content), columns=["request_id"]) for content in contents]
    return sorted(name for table in tables for name in table["request_id"].to_pylist())


@pytest.fixture(params=["folder", "memory", "s3"])
def log(request, tmp_path) -> LogParts:
    """An empty log, in a folder and in object stores."""
    if request.param == "folder":
        (tmp_path / "log").mkdir()
        return LogParts.at(tmp_path / "log")
    if request.param == "memory":
        return LogParts.at(f"memory://{uuid.uuid4().hex}/log")
    request.getfixturevalue("s3")
    return LogParts.at(f"s3://{BUCKET}/{uuid.uuid4().hex}")


def test_small_parts_become_one_and_are_removed_an_hour_later(log):
    small = [add(log, answers([f"r{number}"])) for number in range(5)]
    add(log, answers(["other"], day=2), day=2)
    (merged,) = compact(log, NOW)
    assert (merged.before, merged.after, merged.rows) == (5, 1, 5)
    everything = ["other", "r0", "r1", "r2", "r3", "r4"]
    assert read(log) == everything
    assert set(small) <= set(log.list_day("2026-03-01")), "somebody may be reading them"
    assert compact(log, NOW + GRACE / 2) == []
    assert set(small) <= set(log.list_day("2026-03-01"))
    assert compact(log, NOW + GRACE) == []
    assert not set(small) & set(log.list_day("2026-03-01"))
    assert read(log) == everything


def test_the_merged_part_has_the_schema_and_columns_that_earlier_logs_lack(log):
    add(log, answers(["new"]))
    add(log, answers(["old"]).drop_columns(["sources", "positions", "propensities", "bucket"]))
    compact(log, NOW)
    (path,) = log.find()
    table = pq.read_table(io.BytesIO(log.store.cat_file(path)))
    assert table.schema.equals(PREDICTION_SCHEMA)
    assert table["bucket"].to_pylist() == [None, None]


def test_a_part_that_comes_late_counts_and_is_merged_next(log):
    for number in range(3):
        add(log, answers([f"r{number}"]))
    compact(log, NOW)
    add(log, answers(["late"]))
    assert read(log) == ["late", "r0", "r1", "r2"]
    (merged,) = compact(log, NOW)
    assert (merged.before, merged.after) == (2, 1)
    assert read(log) == ["late", "r0", "r1", "r2"]


def test_a_part_that_is_uploaded_again_counts_once(log):
    names = [add(log, answers([f"r{number}"])) for number in range(2)]
    content = log.store.cat_file(log.path("2026-03-01", names[0]))
    compact(log, NOW)
    compact(log, NOW + GRACE)
    log.store.pipe_file(log.path("2026-03-01", names[0]), content)
    assert read(log) == ["r0", "r1"]
    compact(log, NOW + GRACE)
    assert names[0] not in log.list_day("2026-03-01")


def test_the_day_that_goes_on_is_merged_only_once_it_has_many_parts(log, monkeypatch):
    monkeypatch.setattr(log_keeping, "LEAST_TODAY", 4)
    for number in range(3):
        add(log, answers([f"r{number}"], day=3), day=3)
    assert compact(log, NOW) == []
    add(log, answers(["r3"], day=3), day=3)
    assert [day.day for day in compact(log, NOW)] == ["2026-03-03"]
    for number in range(4, 8):
        add(log, answers([f"r{number}"], day=3), day=3)
    compact(log, NOW)
    assert len(log.find()) == 2, "a day that goes on is not written again and again"
    compact(log, NOW + timedelta(days=1))
    assert len(log.find()) == 1
    assert read(log) == [f"r{number}" for number in range(8)]


def test_merged_parts_are_bounded_and_full_ones_are_left(log, monkeypatch):
    monkeypatch.setattr(log_keeping, "ROWS", 4)
    monkeypatch.setattr(log_keeping, "GROUP_ROWS", 2)
    for number in range(5):
        add(log, answers([f"r{number}a", f"r{number}b"]))
    compact(log, NOW)
    assert sorted(path.split(MERGED)[1][:9] for path in log.find()) == [
        "000000002",
        "000000004",
        "000000004",
    ]
    assert compact(log, NOW) == []
    assert len(read(log)) == 10


def test_a_merge_that_was_killed_leaves_nothing_that_counts(log, monkeypatch):
    for number in range(3):
        add(log, answers([f"r{number}"]))

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LogParts, "replace_manifest", die)
        with pytest.raises(KeyboardInterrupt):
            compact(log, NOW)
    (left,) = (name for name in log.list_day("2026-03-01") if name.startswith(MERGED))
    assert read(log) == ["r0", "r1", "r2"]
    compact(log, NOW)
    assert left in log.list_day("2026-03-01"), "it may be a merge that goes on"
    compact(log, datetime.now(UTC) + GRACE * 2)
    assert left not in log.list_day("2026-03-01")
    assert read(log) == ["r0", "r1", "r2"]


def test_of_two_merges_that_switch_the_same_day_one_begins_again(log, monkeypatch):
    for number in range(3):
        add(log, answers([f"r{number}"]))
    real, inner = LogParts.replace_manifest, []

    def meanwhile(self, *args):
        if not inner:
            inner.append(True)
            add(log, answers(["r3"]))
            compact(log, NOW)
        return real(self, *args)

    monkeypatch.setattr(LogParts, "replace_manifest", meanwhile)
    compact(log, NOW)
    assert read(log) == ["r0", "r1", "r2", "r3"]
    merged = [name for name in log.list_day("2026-03-01") if name.startswith(MERGED)]
    assert merged == list(log.read_manifest("2026-03-01").parts)


def test_what_is_cleaned_up_can_no_longer_be_switched_to(log, monkeypatch):
    """A merge that stalls for long, whose part another one takes for that of a killed merge."""
    for number in range(3):
        add(log, answers([f"r{number}"]))
    real, inner = LogParts.replace_manifest, []

    def stalled(self, *args):
        if not inner:
            inner.append(True)
            with monkeypatch.context() as patch:
                patch.setattr(log_keeping, "_find_sources", lambda *_, **__: [])
                compact(log, datetime.now(UTC) + GRACE * 2)
        return real(self, *args)

    monkeypatch.setattr(LogParts, "replace_manifest", stalled)
    compact(log, NOW)
    assert read(log) == ["r0", "r1", "r2"]


def test_an_unreadable_part_holds_up_no_other(log):
    add(log, answers(["r0"]))
    add(log, answers(["r1"]))
    log.store.pipe_file(log.path("2026-03-01", "broken.parquet"), b"PAR1 no")
    (merged,) = compact(log, NOW)
    assert merged.unreadable == ("broken.parquet",)
    assert "broken.parquet" in log.live("2026-03-01"), "it is not dropped in silence"
    assert len(log.live("2026-03-01")) == 2


def test_a_damaged_manifest_is_an_error(log):
    add(log, answers(["r0"]))
    log.store.pipe_file(log.path("2026-03-01", MANIFEST), b"{")
    with pytest.raises(RefitError, match=r"_parts\.json is damaged"):
        log.find()


def test_a_dry_run_changes_nothing(log):
    for number in range(3):
        add(log, answers([f"r{number}"], ["ann"]))
    before = log.list_day("2026-03-01")
    assert compact(log, NOW, dry_run=True)[0].after == 1
    assert remove_person(log, "ann", NOW, dry_run=True)[0].removed == 3
    assert drop_days(log, 1, NOW + timedelta(days=9), NOW, dry_run=True) == []
    add(log, answers(["today"], day=9), day=9)
    assert [day.day for day in drop_days(log, 1, NOW, NOW, dry_run=True)] == ["2026-03-01"]
    assert log.list_day("2026-03-01") == before


def test_old_days_are_removed_whole(log):
    for day in (1, 2, 3):
        for number in range(2):
            add(log, answers([f"{day}-{number}"], day=day), day=day)
    compact(log, NOW)
    gone = drop_days(log, 1, NOW, NOW)
    assert [day.day for day in gone] == ["2026-03-01"]
    assert "2026-03-01" not in log.days() or log.list_day("2026-03-01") == []
    assert read(log) == ["2-0", "2-1", "3-0", "3-1"]


def test_age_counts_from_the_newest_day_where_that_is_earlier(log):
    for day in (1, 2, 3):
        add(log, answers([f"r{day}"], day=day), day=day)
    years_later = NOW + timedelta(days=3000)
    assert drop_days(log, 2, years_later, years_later) == []
    assert [day.day for day in drop_days(log, 1, years_later, years_later)] == ["2026-03-01"]


def test_a_persons_answers_are_removed_wherever_they_are(log):
    add(log, answers(["a1", "b1", "n1"], ["ann", "bob", None]))
    add(log, answers(["a2"], ["ann"]))
    compact(log, NOW)
    add(log, answers(["a3", "b3"], ["ann", "bob"]))
    add(log, answers(["b4"], ["bob"], day=2), day=2)
    add(log, answers(["a5"], ["ann"], day=3), day=3)
    found = remove_person(log, "ann", NOW)
    assert {day.day: day.removed for day in found} == {"2026-03-01": 3, "2026-03-03": 1}
    assert read(log) == ["b1", "b3", "b4", "n1"]
    for day in log.days():
        for name in log.list_day(day):
            content = log.store.cat_file(log.path(day, name))
            if name != MANIFEST:
                users = pq.read_table(io.BytesIO(content))["user_id"].to_pylist()
                assert "ann" not in users, "no part is kept for who is reading it"
    assert remove_person(log, "ann", NOW) == []
    assert read(log) == ["b1", "b3", "b4", "n1"]


def test_a_merge_that_goes_on_does_not_bring_a_person_back(log, monkeypatch):
    add(log, answers(["a1", "b1"], ["ann", "bob"]))
    add(log, answers(["b2"], ["bob"]))
    real, inner = LogParts.replace_manifest, []

    def meanwhile(self, *args):
        if not inner:
            inner.append(True)
            remove_person(log, "ann", NOW)
        return real(self, *args)

    monkeypatch.setattr(LogParts, "replace_manifest", meanwhile)
    compact(log, NOW)
    assert read(log) == ["b1", "b2"]
    contents = [log.store.cat_file(log.path("2026-03-01", n)) for n in log.list_day("2026-03-01")]
    assert not any(b"ann" in content for content in contents)


def test_a_part_that_cannot_be_read_may_hold_the_person_and_is_told(log):
    add(log, answers(["b1"], ["bob"]))
    log.store.pipe_file(log.path("2026-03-01", "broken.parquet"), b"PAR1 no")
    (day,) = remove_person(log, "ann", NOW)
    assert (day.removed, day.unreadable) == (0, ("broken.parquet",))


def test_a_copy_is_a_log_of_what_counts(log, tmp_path):
    for day in (1, 2):
        for number in range(3):
            add(log, answers([f"{day}-{number}"], day=day), day=day)
    compact(log, NOW)
    add(log, answers(["2-late"], day=2), day=2)
    copy = LogParts.at(log.copy(tmp_path / "copy", "2026-03-02"))
    assert read(copy) == ["2-0", "2-1", "2-2", "2-late"]
    assert copy.days() == ["2026-03-02"]


def test_a_copy_begins_again_when_a_part_goes_away(log, tmp_path, monkeypatch):
    add(log, answers(["a1", "b1"], ["ann", "bob"]))
    real, inner = LogParts.live, []

    def meanwhile(self, day):
        names = real(self, day)
        if not inner:
            inner.append(True)
            remove_person(log, "ann", NOW)
        return names

    monkeypatch.setattr(LogParts, "live", meanwhile)
    assert read(LogParts.at(log.copy(tmp_path / "copy"))) == ["b1"]


def test_a_store_without_conditional_writes_is_refused(tmp_path):
    other = LogParts("zip://log", ZipLike(), str(tmp_path))
    with pytest.raises(UsageError, match="has no conditional writes that Refit knows"):
        other.shared.read("a")


class ZipLike:
    """The file system of a store that Refit does not know."""

    protocol = "zip"


def test_a_log_that_cannot_be_reached_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nobody")
    with pytest.raises(ServiceUnreachable, match="s3://none/log cannot be read"):
        LogParts.at("s3://none/log").copy(tmp_path / "copy")


def test_every_answer_counts_once_beside_writers_readers_and_two_merges(tmp_path, monkeypatch):
    monkeypatch.setattr(log_keeping, "LEAST_TODAY", 5)
    monkeypatch.setattr(log_keeping, "GRACE", timedelta(seconds=2))
    (tmp_path / "log").mkdir()
    written: list[str] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def repeat(work):
        def run():
            log = LogParts.at(tmp_path / "log")
            try:
                while not done.is_set():
                    work(log)
            except BaseException as error:
                errors.append(error)
                done.set()

        return threading.Thread(target=run)

    def write(log):
        name = uuid.uuid4().hex
        add(log, answers([name]))
        written.append(name)
        time.sleep(0.002)

    def look(log):
        before = list(written)
        try:
            counts = Counter(read(log))
        except FileNotFoundError:
            return  # it took longer than the grace
        assert not [name for name in before if counts[name] != 1]
        assert set(counts.values()) <= {1}

    def merge(log):
        compact(log, datetime.now(UTC))
        time.sleep(0.05)

    threads = [repeat(work) for work in (write, write, look, merge, merge)]
    for thread in threads:
        thread.start()
    done.wait(4)
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    log = LogParts.at(tmp_path / "log")
    assert read(log) == sorted(written)
    assert len(written) > 100
    assert log.read_manifest("2026-03-01").epoch > 2


def test_a_manifest_knows_what_it_replaced_when():
    first = MergedParts().replace(["a", "b"], [f"{MERGED}1"], NOW)
    second = first.replace([f"{MERGED}1", "c"], [f"{MERGED}2"], NOW + GRACE)
    assert second.parts == (f"{MERGED}2",)
    assert second.replaced_before(NOW) == {"a", "b"}
    assert second.gone == {"a", "b", "c", f"{MERGED}1"}
    names = ["a", "d.parquet", f"{MERGED}1.parquet", f"{MERGED}3.parquet", ".x.partial"]
    assert second.select(names) == ["d.parquet", f"{MERGED}2"]
    assert second.find_unnamed(names) == [f"{MERGED}1.parquet", f"{MERGED}3.parquet"]
