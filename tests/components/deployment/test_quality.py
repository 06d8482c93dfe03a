from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.deployment.canary import Proportion
from components.deployment.quality import count_misses
from components.deployment.settings import RolloutSettings
from refit.errors import ServiceUnreachable
from refit.prediction import PREDICTION_SCHEMA

START = datetime(2026, 3, 1, 23, 0, tzinfo=UTC)
UNTIL = START + timedelta(hours=2)


def answer(request_id: str, bundle_id: str, minutes: float) -> dict:
    return {
        "request_id": request_id,
        "bundle_id": bundle_id,
        "embedding_version": "t",
        "time": START + timedelta(minutes=minutes),
        "context": "{}",
        "item_ids": [],
        "scores": [],
    }


def event(request_id: str | None, kind: str, minutes: float) -> dict:
    return {
        "request_id": request_id,
        "event_type": kind,
        "event_time": START + timedelta(minutes=minutes),
        "user_id": "u",
    }


@pytest.fixture
def log(tmp_path):
    rows = [
        answer("before", "old", -1),
        *(answer(f"old-{n}", "old", n) for n in range(90)),  # past midnight: two partitions
        *(answer(f"new-{n}", "new", n) for n in range(10)),
        answer("new-0", "new", 1),  # the same answer logged again
        answer("too-recent", "new", 121),
        answer("unrelated", "other", 5),
    ]
    for day in ("2026-03-01", "2026-03-02"):
        of_day = [row for row in rows if f"{row['time']:%Y-%m-%d}" == day]
        (tmp_path / "log" / f"date={day}").mkdir(parents=True)
        table = pa.Table.from_pylist(of_day, schema=PREDICTION_SCHEMA)
        pq.write_table(table, tmp_path / "log" / f"date={day}" / "a.parquet")
    return tmp_path / "log"


@pytest.fixture
def events(tmp_path):
    rows = [
        event("old-3", "view", 4),
        event("old-3", "purchase", 9),
        event("old-4", "cart", 200),
        event("new-1", "view", 2),
        event("new-2", "impression", 2),
        event(None, "view", 2),
        event("before", "view", 2),
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events.parquet")
    return tmp_path / "events.parquet"


def count(log, events, since=START, until=UNTIL, bundles=("old", "new")):
    return count_misses(RolloutSettings(), str(log), str(events), bundles, since, until)


def test_answers_without_an_outcome_are_counted(log, events):
    assert count(log, events) == {
        "old": Proportion(bad=88, total=90),
        "new": Proportion(bad=9, total=10),
    }


def test_a_log_and_events_can_be_at_a_url(log, events):
    assert count(f"file://{log}", f"file://{events}")["new"] == Proportion(bad=9, total=10)


@pytest.mark.parametrize("until", [START, START - timedelta(hours=1)])
def test_before_any_answer_is_old_enough_the_quality_is_unknown(log, events, until):
    assert count(log, events, until=until) == {"old": Proportion(), "new": Proportion()}


def test_the_quality_of_a_bundle_without_answers_is_unknown(log, events):
    assert count(log, events, bundles=("old", "none"))["none"].problem


def test_without_a_log_or_events_the_quality_is_unknown(tmp_path, log, events):
    for one, other in ((tmp_path / "nothing", events), (log, tmp_path / "nothing"), (log, "")):
        assert count(one, other) == {"old": Proportion(), "new": Proportion()}


def test_an_unreadable_file_is_an_error(tmp_path, log):
    (tmp_path / "torn.parquet").write_text("torn")
    with pytest.raises(ServiceUnreachable, match=r"torn\.parquet cannot be read"):
        count(log, tmp_path / "torn.parquet")
