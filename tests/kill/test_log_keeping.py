"""kill -9 at random moments while a prediction log is merged, and a person removed from it."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from refit.log_keeping import GRACE, compact
from refit.log_parts import MERGED, LogParts
from tests.kill.killing import ROOT, SEED, Report
from tests.refit.test_log_keeping import add, answers, read

KILLS = 20
KEEPER = """
import sys
from datetime import UTC, datetime, timedelta
from refit import log_keeping
from refit.log_parts import LogParts
log_keeping.LEAST_TODAY = 2
log_keeping.GRACE = timedelta(seconds=2)
log = LogParts.at(sys.argv[1])
print("started", flush=True)
while True:
    log_keeping.compact(log, datetime.now(UTC) + timedelta(days=1))
    log_keeping.remove_person(log, "ann", datetime.now(UTC))
"""

pytestmark = pytest.mark.slow


def test_no_kill_of_a_merge_loses_or_doubles_an_answer(tmp_path: Path, report: Report):
    moments = random.Random(SEED)
    log = LogParts.at(tmp_path / "log")
    written: list[str] = []
    for kill in range(KILLS):
        keepers = [
            subprocess.Popen(
                [sys.executable, "-c", KEEPER, str(tmp_path / "log")],
                cwd=ROOT,
                stdout=subprocess.PIPE,
            )
            for _ in range(2)
        ]
        for keeper in keepers:
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == b"started\n"
        end = time.monotonic() + moments.uniform(0.05, 1.0)
        while time.monotonic() < end:
            names = [f"{kill}-{len(written)}", f"{kill}-{len(written)}-ann"]
            add(log, answers(names, ["bob", "ann"]))
            written.append(names[0])
            time.sleep(0.005)
        for keeper in keepers:
            os.kill(keeper.pid, signal.SIGKILL)
            keeper.wait()
            keeper.stdout.close()
        counts = Counter(name for name in read(log) if not name.endswith("ann"))
        assert set(counts.values()) == {1}, [name for name, n in counts.items() if n > 1]
        assert sorted(counts) == sorted(written)
    days = log.list_day("2026-03-01")
    report(f"{KILLS} kills of two at once, {len(written)} parts, {len(days)} files are left")
    later = datetime.now(UTC) + timedelta(days=1) + GRACE
    compact(log, later)
    compact(log, later + 2 * GRACE)
    left = [name for name in log.list_day("2026-03-01") if name.endswith(".parquet")]
    assert [name.startswith(MERGED) for name in left] == [True]
