"""The recommender's measurements as Prometheus metrics, added up over worker processes.

The names, and the histogram's buckets, are those of Seldon's exporter, so that alert rules and
dashboards fit both doors.
"""

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from serving.counters import Counters

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The folder through which the processes share their metrics; set before they start."""
_files = threading.Lock()
"""Held while the files are read or replaced, so that nothing is counted twice."""
BUCKETS = tuple(float(f"{0.001 * 30000 ** (n / 49):.6g}") for n in range(50))
"""Seconds, from 1 ms to 30 s."""


class Exporter:
    """Hands one process's measurements to Prometheus's client library.

    Args:
        counters: The measurements of this process.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._known: dict[str, Any] = {}

    def export(self) -> None:
        """Hand over what was measured since the last call."""
        for measured in self._counters.drain():
            metric = self._find(measured["type"], measured["key"], measured["tags"])
            if measured["tags"]:
                metric = metric.labels(**measured["tags"])
            if measured["type"] == "COUNTER":
                metric.inc(measured["value"])
            elif measured["type"] == "GAUGE":
                metric.set(measured["value"])
            else:
                metric.observe(measured["value"] / 1000)

    def _find(self, kind: str, name: str, labels: Iterable[str]) -> Any:
        if name not in self._known:
            self._known[name] = _make(kind, name, sorted(labels))
        return self._known[name]


def _make(kind: str, name: str, labels: list[str]) -> Any:
    from prometheus_client import Counter, Gauge, Histogram

    help_text = "see docs/reference"
    if kind == "COUNTER":
        return Counter(name, help_text, labels)
    if kind == "GAUGE":
        # Every worker serves the same; one that ended no longer counts.
        return Gauge(name, help_text, labels, multiprocess_mode="livemax")
    return Histogram(name, help_text, labels, buckets=BUCKETS)


def render() -> tuple[bytes, str]:
    """The metrics of all worker processes, and their content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=os.environ[FOLDER_VARIABLE])
    with _files:
        return generate_latest(registry), CONTENT_TYPE_LATEST


def forget(pid: int, folder: Path) -> None:
    """Forget a process that has ended, but for its counts.

    They are added to those of all that ended before, so that neither files nor the time that it
    takes to read them grow with the number of processes that came and went.
    """
    from prometheus_client.mmap_dict import MmapedDict

    with _files:
        for file in folder.glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)
        for kind in ("counter", "histogram"):
            file = folder / f"{kind}_{pid}.db"
            if not file.exists():
                continue
            ended = MmapedDict(str(folder / f"{kind}_ended.db"))
            for key, value, time, _ in MmapedDict.read_all_values_from_file(str(file)):
                ended.write_value(key, ended.read_value(key)[0] + value, time)
            ended.close()
            file.unlink()
