"""What the demo costs: ``python tests/benchmarks/bench_demo.py [arguments of refit demo]``.

Prints one JSON object: seconds by stage, the largest memory that all of its processes held at one
moment (proportional set size, so that shared pages count once; sampled once a second), and the
sizes of the environments and of a bundle. For two cores: ``taskset -c 0,1 python ...``.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

ENVIRONMENTS = (Path(".venv"), Path(".venv-serving"))
SECONDS_BETWEEN_SAMPLES = 1.0


class MemoryMeter(threading.Thread):
    """Samples the memory of a process and all that it started."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._ended = threading.Event()
        self.peak_kb = 0

    def run(self) -> None:
        """Sample until stopped."""
        while not self._ended.wait(SECONDS_BETWEEN_SAMPLES):
            self.peak_kb = max(self.peak_kb, sum(map(proportional_kb, family(self._pid))))

    def stop(self) -> None:
        """Sample no more."""
        self._ended.set()
        self.join()


def family(root: int) -> Iterable[int]:
    """A process and everything below it."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = stat.parent.name, stat.read_text().rpartition(")")[2]
        except OSError:
            continue
        children[int(rest.split()[1])].append(int(pid))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        waiting += children[pid]
        yield pid


def proportional_kb(pid: int) -> int:
    """Proportional set size; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def megabytes(folder: Path) -> float:
    """Size of all files below a folder."""
    return round(sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6, 1)


def measure(arguments: list[str], out: Path) -> dict[str, object]:
    """Run the demo once."""
    started = time.monotonic()
    command = [sys.executable, "-m", "pipelines.cli", "demo", "--out", str(out), *arguments]
    demo = subprocess.Popen(command, stdout=sys.stderr)
    meter = MemoryMeter(demo.pid)
    meter.start()
    code = demo.wait()
    meter.stop()
    if code:
        raise SystemExit(f"refit demo ended with {code}")
    summary = json.loads((out / "summary.json").read_text())
    bundle = max((out / "home" / "registry" / "bundles").iterdir())
    return {
        "cores": len(os.sched_getaffinity(0)),
        "seconds": round(time.monotonic() - started, 1),
        "seconds_by_stage": {name: round(s, 1) for name, s in summary["seconds"].items()},
        "peak_memory_gb": round(meter.peak_kb / 1e6, 2),
        "requests": summary["requests"],
        "bundle_mb": megabytes(bundle),
        "environments_mb": {e.name: megabytes(e) for e in ENVIRONMENTS},
    }


if __name__ == "__main__":
    found = measure(sys.argv[1:], Path("build/demo").absolute())
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
