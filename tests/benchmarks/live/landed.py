"""kill -9 of the landing, while activity comes: nothing may be missing from the tables."""

import argparse
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from serving.processes import PROJECT
from tests.benchmarks.live.figures import Figure, count

PART = "kill -9, landing"
PER_SECOND = 400
RUNS_SECONDS = 3.0
"""A kill falls into the first seconds of a landing; it starts in about one."""


def run(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Start the landing again and again, kill it, and at last let it finish."""
    rng, stop, written = random.Random(options.seed), threading.Event(), []
    writer = threading.Thread(target=_write, args=(folder / "activity", stop, written))
    writer.start()
    killed = finished = 0
    while killed < options.kills:
        landing = _start(folder)
        try:
            landing.wait(rng.uniform(0.2, RUNS_SECONDS))
            finished += 1
        except subprocess.TimeoutExpired:
            landing.kill()
            landing.wait()
            killed += 1
    stop.set()
    writer.join()
    assert _start(folder).wait(120) == 0
    landed = [
        row
        for path in (folder / "landed" / "events").glob("*.parquet")
        for row in pq.read_table(path)["item_id"].to_pylist()
    ]
    yield count(PART, "events that are missing", len(written), len(set(written) - set(landed)))
    repeated = len(landed) - len(set(landed))
    yield Figure(
        PART, "rows that are there again, which ingestion drops", len(landed), f"{repeated:,}"
    )
    yield Figure(PART, "killed while it ran, of all runs", killed + finished, f"{killed}")


def _start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "serving.feeds.landing"]
    command += ["--activity", str(folder / "activity"), "--to", str(folder / "landed")]
    return subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL)


def _write(folder: Path, stop: threading.Event, written: list[str]) -> None:
    folder.mkdir()
    with (folder / "a.jsonl").open("a", buffering=1) as file:
        while not stop.wait(0.1):
            for _ in range(PER_SECOND // 10):
                item_id = f"item-{len(written)}"
                at = datetime.now(UTC).isoformat()
                event = {"user_id": "u", "item_id": item_id, "event_type": "view", "event_time": at}
                file.write(json.dumps(event) + "\n")
                written.append(item_id)
