"""The monitor's run keeps the prediction log, and does not depend on it."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.monitoring.log_days import keeping_log
from monitoring.settings import LogKeepingSettings, MonitorSettings
from monitoring.tables import log_files, read_log
from refit.drift import Window
from refit.errors import UsageError
from refit.log_keeping import compact
from refit.log_parts import MANIFEST, LogParts
from tests.refit.test_log_keeping import add, answers, read

END = datetime(2026, 3, 3, tzinfo=UTC)


@pytest.fixture
def log(tmp_path) -> LogParts:
    log = LogParts.at(tmp_path)
    for day in (1, 2):
        for number in range(3):
            add(log, answers([f"{day}-{number}"], day=day), day=day)
    return log


def test_parts_are_merged_before_and_old_days_removed_afterwards(log):
    with keeping_log(log.place, LogKeepingSettings(keep_days=1), END + timedelta(days=3)):
        assert len(log.find()) == 2
        assert len(read(log)) == 6, "the monitor still reads what is too old"
    assert read(log) == ["1-0", "1-1", "1-2", "2-0", "2-1", "2-2"], "the newest day counts"
    add(log, answers(["9"], day=9), day=9)
    with keeping_log(log.place, LogKeepingSettings(keep_days=7), END + timedelta(days=7)):
        assert len(read(log)) == 7
    assert log.days() == ["2026-03-02", "2026-03-09"] or log.days() == ["2026-03-09"]


def test_the_monitor_reads_what_counts(log):
    compact(log, END + timedelta(days=1))
    add(log, answers(["late"]))
    assert sorted(log_files(Path(log.root))) == sorted(log.find())
    first = Window(start=END - timedelta(days=2), end=END - timedelta(days=1))
    assert sorted(read_log(Path(log.root), ["request_id"], first)["request_id"].to_pylist()) == [
        "1-0",
        "1-1",
        "1-2",
        "late",
    ]


def test_only_folders_of_days_that_may_count_are_listed(log):
    second = Window(start=END - timedelta(days=1), end=END)
    files = log_files(Path(log.root), second)
    assert {Path(file).parent.name for file in files} == {"date=2026-03-02"}
    assert len(files) == 3
    assert log_files(Path(log.root) / "nowhere") == []


def test_nothing_is_done_that_is_not_wanted(log):
    before = log.find()
    with keeping_log(log.place, LogKeepingSettings(compact=False, keep_days=0), END):
        pass
    assert log.find() == before


def test_an_error_does_not_stop_the_monitor(log, caplog):
    log.store.pipe_file(log.path("2026-03-01", MANIFEST), b"{")
    with caplog.at_level(logging.INFO), keeping_log(log.place, LogKeepingSettings(), END):
        reached = True
    assert reached
    assert "could not merge parts: RefitError" in caplog.text


def test_an_error_of_the_monitor_removes_no_day(log):
    late = END + timedelta(days=900)
    add(log, answers(["9"], day=31), day=31)
    settings = LogKeepingSettings(keep_days=7)
    with pytest.raises(RuntimeError), keeping_log(log.place, settings, late):
        raise RuntimeError
    assert len(log.days()) == 3


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"log": {"keep_days": 45}}, 46),
        ({"log": {"keep_days": 46}}, None),
        ({"log": {"keep_days": 0}}, None),
        ({"log": {"keep_days": 40}, "quality": {"baseline_days": 14}}, None),
        ({"log": {"keep_days": 40}, "quality": {"outcome_hours": 720, "baseline_days": 14}}, 47),
        ({"log": {"keep_days": 40}, "measure": {"window_days": 30, "choice_windows": 3}}, 123),
    ],
)
def test_less_than_the_monitor_reads_is_refused(settings, needed):
    if needed is None:
        MonitorSettings.parse(settings)
        return
    with pytest.raises(UsageError, match=f"give {needed} or more, or 0 to keep all"):
        MonitorSettings.parse(settings)
