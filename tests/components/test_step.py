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


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setenv(RUN_FOLDER_VARIABLE, str(tmp_path))
    return lambda: read_json(tmp_path / "steps" / "bake.json")


@pytest.fixture
def said(monkeypatch):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda entry: lines.append(entry.getMessage())
    monkeypatch.setattr(logging.getLogger("refit"), "handlers", [handler])
    return lines


def test_a_step_that_ends_well(record, said):
    with running("bake") as metadata:
        metadata["loaves"] = 3
    kept = record()
    assert kept.pop("seconds") >= 0
    assert kept == {"step": "bake", "exit_code": 0, "error": None, "metadata": {"loaves": 3}}
    assert said[0] == "[bake] started"
    assert said[-1].startswith("[bake] done in ")


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
def test_our_own_errors_end_the_process_with_their_code_and_words(record, said, kind, code):
    def bake():
        with running("bake") as metadata:
            metadata["oven"] = "cold"
            raise kind("the oven is cold; light it")

    with pytest.raises(SystemExit) as ended:
        bake()
    assert ended.value.code == code
    assert ended.value.__suppress_context__
    assert said[-1] == "[bake] error: the oven is cold; light it"
    kept = record()
    assert (kept["exit_code"], kept["error"]) == (code, "the oven is cold; light it")
    assert kept["metadata"] == {"oven": "cold"}


def test_a_fault_of_ours_keeps_its_traceback(record, said):
    with pytest.raises(KeyError), running("bake"):
        raise KeyError("flour")
    assert (record()["exit_code"], record()["error"]) == (1, "KeyError: 'flour'")
    assert said == ["[bake] started"]


def test_without_a_run_folder_nothing_is_written(tmp_path, monkeypatch, said):
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
    _, said = step.communicate(timeout=60)
    assert step.returncode == -signal.SIGKILL
    assert "done" not in said
