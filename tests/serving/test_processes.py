import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from refit.errors import ServiceUnreachable, UsageError
from serving.processes import Process

ROOT = Path(__file__).parents[2]
CHILD = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("got SIGTERM", flush=True))
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("child ready", flush=True)
time.sleep(60)
time.sleep(60)
"""
PARENT = """
import time
from pathlib import Path
from serving.processes import Process
child = Process("child", [{python!r}, "-c", {child!r}], Path({log!r}))
child.wait_until(lambda: "child ready" in child.output(), 30)
print(child.pid, flush=True)
time.sleep(60)
"""


def is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    # Nobody waits for orphans here: a group of the dead alone is gone as well.
    states = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(text[2]) == group:
            states.append(text[0])
    return all(state == "Z" for state in states)


def test_killing_a_parent_ends_its_children_and_their_children(tmp_path, until):
    log = tmp_path / "child.log"
    code = PARENT.format(python=sys.executable, child=CHILD, log=str(log))
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    group = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until(lambda: is_gone(group))
    assert "got SIGTERM" in log.read_text(), "SIGTERM first, then SIGKILL"


def test_stopping_ends_the_whole_process_group(tmp_path, monkeypatch, until):
    monkeypatch.setattr("serving.processes.TERM_SECONDS", 0.2)
    child = Process("child", [sys.executable, "-c", CHILD], tmp_path / "child.log")
    child.wait_until(lambda: "child ready" in child.output(), 30)
    child.stop()
    child.stop()
    until(lambda: is_gone(child.pid))
    assert not child.is_running()


def test_a_process_that_ends_before_it_is_ready_is_reported_with_its_last_lines(tmp_path):
    code = "import sys; print('what went wrong'); sys.exit(3)"
    child = Process("child", [sys.executable, "-c", code], tmp_path / "child.log")
    with pytest.raises(ServiceUnreachable, match=r"ended with code 3(.|\n)*what went wrong"):
        child.wait_until(lambda: False, 30)
    child.stop()


def test_a_process_that_is_not_ready_in_time_is_reported(tmp_path):
    child = Process("child", [sys.executable, "-c", "input()"], tmp_path / "child.log")
    with pytest.raises(ServiceUnreachable, match="not ready after 0 s"):
        child.wait_until(lambda: False, 0.0)
    child.stop()


def test_a_missing_program_is_a_clear_error(tmp_path):
    with pytest.raises(UsageError, match="cannot start the child"):
        Process("child", ["/nowhere/python"], tmp_path / "child.log")
