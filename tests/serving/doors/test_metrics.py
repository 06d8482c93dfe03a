"""What the metrics of the plain door hold of processes that have ended."""

from pathlib import Path

import prometheus_client
import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from serving.doors.metrics import FOLDER_VARIABLE, forget, render


def write(path: Path, metric: str, sample: str, value: float, **labels: str) -> None:
    values = MmapedDict(str(path))
    key = mmap_key(metric, sample, list(labels), list(labels.values()), "see docs/reference")
    values.write_value(key, value, 0.0)
    values.close()


def test_counts_of_ended_processes_stay_in_one_file_and_their_gauges_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prometheus_client  # imported before the variable is set, which changes what it does
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for pid in range(1, 41):
        write(tmp_path / f"counter_{pid}.db", "asked", "asked_total", pid, kind="a")
        write(tmp_path / f"counter_{pid}.db", "asked", "asked_total", 1, kind=f"b{pid % 2}")
        write(tmp_path / f"histogram_{pid}.db", "took", "took_sum", 0.5)
        write(tmp_path / f"gauge_livemax_{pid}.db", "items", "items", pid)
        if pid < 40:
            forget(pid, tmp_path)
    text = render()[0].decode()
    assert 'asked_total{kind="a"} 820.0' in text
    assert 'asked_total{kind="b0"} 20.0' in text
    assert "took_sum 20.0" in text
    assert "items 40.0" in text
    assert len(list(tmp_path.iterdir())) == 5
    forget(40, tmp_path)
    forget(40, tmp_path)
    assert 'asked_total{kind="a"} 820.0' in render()[0].decode()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "counter_ended.db",
        "histogram_ended.db",
    ]
