"""Memory over time: one server with running feeds and people who ask, its processes sampled."""

import argparse
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from tests.benchmarks.live.figures import Figure, count
from tests.benchmarks.live.market import make_bundles
from tests.benchmarks.live.served import MODEL_SERVER, SUPERVISOR, WORKER, Load, Replica
from tests.kill.killing import read
from tests.serving import tiny

PART = "memory"
SAMPLE_SECONDS = 5.0
GROWTH = 0.01
"""A process may grow by this share in 10 minutes after the warm-up."""
ENDED, PEOPLE, EVENTS = 500, 300, 20
"""Bounds of what is kept, so low that they are reached in the warm-up."""
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> int:
    """Bytes of memory that a process has; 0 of one that has ended."""
    fields = read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * PAGE if fields else 0


@dataclass(frozen=True)
class Slope:
    """How memory changes.

    Attributes:
        start: Bytes after the warm-up.
        share: Growth in 10 minutes, as a share of that.
        low, high: Its 95% interval.
    """

    start: float
    share: float
    low: float
    high: float


def find_slope(minutes: Sequence[float], sizes: Sequence[float]) -> Slope:
    """A straight line through the medians of each minute.

    Samples of a few seconds depend on each other; medians of a minute hardly do.
    """
    whole = np.floor(minutes)
    x = np.unique(whole)
    y = np.array([np.median(np.asarray(sizes)[whole == one]) for one in x])
    if len(x) < 3:
        raise ValueError("a slope needs at least 3 minutes after the warm-up")
    away = x - x.mean()
    slope = float(away @ y / (away @ away))
    line = y.mean() + slope * away
    error = np.sqrt(np.sum((y - line) ** 2) / (len(x) - 2) / (away @ away))
    margin = float(stats.t.ppf(0.975, len(x) - 2) * error)
    start = float(line[0])
    scale = 10 / start
    return Slope(start, slope * scale, (slope - margin) * scale, (slope + margin) * scale)


def run(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Sample the memory of every process; what is kept is at its bounds after the warm-up."""
    bundle, _ = make_bundles(folder)
    tiny.promote(folder / "registry", bundle)
    recommender = {
        "feeds": {"ended_listings": ENDED},
        "people": {"people": PEOPLE, "events": EVENTS, "running_visit": "always"},
        "tower_deadline_ms": 5000,
    }
    rate = options.rate / 2
    with Replica(folder / "home", str(folder / "registry"), recommender) as server:
        stop = threading.Event()
        writer = threading.Thread(target=_write, args=(server.home, stop))
        writer.start()
        with Load([server], rate, rate) as tally:
            samples = _sample(server, options.minutes)
        stop.set()
        writer.join()
        names = _name(server)
    (folder / "memory.json").write_text(json.dumps({names[p]: s for p, s in samples.items()}))
    yield count(PART, "failed at the first try", tally.answers, len(tally.first))
    yield Figure(PART, f"answers in {options.minutes:g} min", tally.answers, f"{tally.answers:,}")
    yield count(PART, "processes that ended or began", len(samples), len(samples) - len(names))
    for pid, name in names.items():
        yield judge(name, samples[pid], options.minutes)


def judge(name: str, samples: Sequence[tuple[float, int]], minutes: float) -> Figure:
    """Whether one process's memory is flat after the warm-up, a sixth of the time."""
    after = [(minute, size) for minute, size in samples if minute >= minutes / 6]
    slope = find_slope(*zip(*after, strict=True))
    found = (
        f"{slope.share:+.2%} ({slope.low:+.2%} to {slope.high:+.2%}) of {slope.start / 1e6:.0f} MB"
    )
    goal = f"<= {GROWTH:.0%} in 10 min"
    return Figure(PART, name, len(after), found, goal, met=slope.high <= GROWTH)


def _sample(server: Replica, minutes: float) -> Mapping[int, list[tuple[float, int]]]:
    samples: dict[int, list[tuple[float, int]]] = {pid: [] for pid in server.pids()}
    started = time.monotonic()
    while (passed := (time.monotonic() - started) / 60) < minutes:
        for pid in server.pids():
            samples.setdefault(pid, []).append((passed, resident(pid)))
        time.sleep(SAMPLE_SECONDS)
    return samples


def _name(server: Replica) -> dict[int, str]:
    """What each process that still runs is."""
    kinds = {b"pipelines.cli": "refit serve", WORKER: "door worker", SUPERVISOR: "supervisor"}
    kinds |= {MODEL_SERVER: "model server", b"parent_watch": "watcher"}
    names = {}
    for pid in server.pids():
        command = read(f"/proc/{pid}/cmdline")
        kind = next((name for part, name in kinds.items() if part in command), "another process")
        names[pid] = f"{kind} {sum(name.startswith(kind) for name in names.values()) + 1}"
    return names


def _write(home: Path, stop: threading.Event) -> None:
    """Lines of both feeds; as much ends as begins."""
    number = 0
    for name in ("stock", "activity"):
        (home / name).mkdir(exist_ok=True)
    with (
        (home / "stock" / "a.jsonl").open("ab", buffering=0) as stock,
        (home / "activity" / "a.jsonl").open("ab", buffering=0) as activity,
    ):
        while not stop.wait(0.2):
            number += 1
            at = datetime.now(UTC).isoformat()
            lines: list[dict[str, Any]] = [
                {**tiny.NEW, "item_id": f"new-{number}", "at": at},
                {"item_id": f"new-{number - 100}", "change": "sold", "at": at},
                {"item_id": f"item-{number % 300}", "change": "changed", "at": at, "price": 9.5},
            ]
            if number % 25 == 0:
                lines.append({"item_id": "item-1", "change": "changed", "at": at, "price": -1})
            stock.write(_as_lines(lines))
            events = [
                {
                    "user_id": f"person-{(number * 7 + one) % 1000}",
                    "item_id": f"item-{(number + one) % 1000}",
                    "event_type": kind,
                    "event_time": at,
                }
                for one, kind in enumerate(("view", "like", "hide", "purchase"))
            ]
            activity.write(_as_lines(events))


def _as_lines(values: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()
