import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys

import pytest

from components.step import RUN_FOLDER_VARIABLE, RUN_LOCK, running
from refit.errors import (
    DataValidationError,
    GateRefused,
    RefitError,
    ServiceUnreachable,
    UsageError,
)
from refit.files import read_json
from refit.progress import EVENTS_VARIABLE, parse_event
from tests.disks import full_disk


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setenv(RUN_FOLDER_VARIABLE, str(tmp_path))
    return lambda: read_json(tmp_path / "steps" / "bake.json")


@pytest.fixture
def logged(monkeypatch):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda entry: lines.append(entry.getMessage())
    monkeypatch.setattr(logging.getLogger("refit"), "handlers", [handler])
    return lines


def test_a_step_that_succeeds(record, logged):
    with running("bake") as metadata:
        metadata["loaves"] = 3
    kept = record()
    assert kept.pop("seconds") >= 0
    assert kept == {"step": "bake", "exit_code": 0, "error": None, "metadata": {"loaves": 3}}
    assert logged[0] == "[bake] started"
    assert logged[-1].startswith("[bake] done in ")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (RefitError, 1),
        (UsageError, 2),
        (GateRefused, 3),
        (DataValidationError, 4),
        (ServiceUnreachable, 5),
    ],
)
def test_a_refit_error_ends_the_process_with_its_exit_code_and_message(record, logged, kind, code):
    def bake():
        with running("bake") as metadata:
            metadata["oven"] = "cold"
            raise kind("the oven is cold; light it")

    with pytest.raises(SystemExit) as ended:
        bake()
    assert ended.value.code == code
    assert ended.value.__suppress_context__
    assert logged[-1] == "[bake] error: the oven is cold; light it"
    kept = record()
    assert (kept["exit_code"], kept["error"]) == (code, "the oven is cold; light it")
    assert kept["metadata"] == {"oven": "cold"}


def test_an_unexpected_error_keeps_its_traceback(record, logged):
    with pytest.raises(KeyError), running("bake"):
        raise KeyError("flour")
    assert (record()["exit_code"], record()["error"]) == (1, "KeyError: 'flour'")
    assert logged == ["[bake] started"]


def test_without_a_run_folder_nothing_is_written(tmp_path, monkeypatch, logged):
    monkeypatch.delenv(RUN_FOLDER_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with running("bake"):
        pass
    assert not any(tmp_path.iterdir())


def test_a_step_dies_with_its_runner(tmp_path):
    work = "from components.step import running\nimport time\n"
    work += "with running('bake'):\n    time.sleep(0.3)\n    print('baking', flush=True)\n"
    work += "    time.sleep(100)"
    with (tmp_path / RUN_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        step = subprocess.Popen(
            [sys.executable, "-c", work],
            env={**os.environ, RUN_FOLDER_VARIABLE: str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert step.stdout.readline() == "baking\n"  # alive while the runner holds its lock
    _, err = step.communicate(timeout=60)
    assert step.returncode == -signal.SIGKILL
    assert "done" not in err


def fail(error):
    with running("bake"):
        raise error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/oven"), 1, "no space is left"),
        (PermissionError(errno.EACCES, "Permission denied", "/oven"), 2, "no permission for /oven"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), 5, "be reached"),
    ],
)
def test_an_error_that_a_user_can_act_on_ends_in_one_line(
    record, logged, capsys, error, code, words
):
    with pytest.raises(SystemExit) as ended:
        fail(error)
    assert ended.value.code == code
    assert logged[-1].startswith("[bake] error: ")
    assert words in logged[-1]
    assert words in record()["error"]
    assert "Traceback" in capsys.readouterr().err  # the log keeps it


def test_ctrl_c_ends_a_step_without_a_traceback(record, logged, capsys):
    with pytest.raises(SystemExit) as ended:
        fail(KeyboardInterrupt())
    assert ended.value.code == record()["exit_code"] == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_full_disk_hides_no_error(tmp_path, logged, monkeypatch):
    """The step's record cannot be written either."""

    def bake(folder):
        with running("bake"):
            (folder / "bread").write_bytes(b"x" * 10_000)

    with full_disk(tmp_path / "full", "steps") as folder:
        monkeypatch.setenv(RUN_FOLDER_VARIABLE, str(folder))
        with pytest.raises(SystemExit) as ended:
            bake(folder)
    assert ended.value.code == 1
    assert "record is not written" in logged[-2]
    assert logged[-1].startswith("[bake] error: no space is left on a disk")


def test_a_step_sends_its_changes_to_whoever_asks(record, logged, monkeypatch, capsys):
    monkeypatch.setenv(EVENTS_VARIABLE, "1")
    with running("bake"):
        pass
    events = [parse_event(line) for line in capsys.readouterr().err.splitlines()]
    assert [(event.step, event.state) for event in events] == [
        ("bake", "running"),
        ("bake", "succeeded"),
    ]
