"""A ``refit`` command in its own process group, and how to kill all of it."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from pipelines.home import Home
from refit.files import read_json
from refit.registry import Registry

ROOT = Path(__file__).parent.parent.parent
SEED = int(os.environ.get("KILL_SEED", "0"))
"""Seed of every moment of a kill; it is printed."""
MARK = "REFIT_KILL_TEST"
"""An environment variable that all descendants inherit."""

Report = Callable[[str], None]


class RefitProcess:
    """A running ``refit <arguments>``, whose output goes to a file.

    Args:
        home: $REFIT_HOME; the output is kept beside it.
        arguments: Of the command.
    """

    def __init__(self, home: Path, *arguments: object) -> None:
        self.mark = uuid.uuid4().hex
        self._seen: set[int] = set()
        self.log = home.parent / "output" / f"{time.monotonic_ns()}-{arguments[0]}.txt"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, "REFIT_HOME": str(home), MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def is_running(self) -> bool:
        return self._process.poll() is None

    def runs_until(self, happened: Callable[[], object], seconds: float = 240.0) -> bool:
        """Wait until something happened; False when the command ended first."""
        deadline = time.monotonic() + seconds
        while not happened():
            if not self.is_running():
                return False
            assert time.monotonic() < deadline, f"it did not happen in time:\n{self.output}"
            time.sleep(0.01)
        return self.is_running()

    def runs_for(self, seconds: float) -> bool:
        """Let it run; False when the command ended first."""
        end = time.monotonic() + seconds
        return self.runs_until(lambda: time.monotonic() >= end, seconds + 60)

    def ends(self, seconds: float = 240.0) -> int:
        return self._process.wait(seconds)

    def kill(self) -> None:
        """kill -9 to the command's group, and wait until all descendants are gone."""
        kill_group(self._process.pid)
        self._process.wait()
        self.wait_until_alone()

    def kill_everything(self) -> None:
        """kill -9 to all descendants at once, whatever group they are in."""
        for pid in self.descendants():
            kill_group(pid)
        self._process.wait()
        self.wait_until_alone()

    def wait_until_alone(self, seconds: float = 60.0) -> float:
        """Wait until no descendant is left; returns how long it took."""
        started = time.monotonic()
        while left := self.descendants():
            names = [read(f"/proc/{pid}/cmdline")[:200] for pid in left]
            assert time.monotonic() < started + seconds, f"orphans: {names}"
            time.sleep(0.05)
        return time.monotonic() - started

    def descendants(self) -> list[int]:
        """Processes with our mark that have not ended; one seen before counts until it ends."""
        mark = f"{MARK}={self.mark}".encode()
        self._seen |= {pid for pid in all_processes() if mark in read(f"/proc/{pid}/environ")}
        return [pid for pid in self._seen if alive(pid)]


def kill_group(pid: int) -> None:
    try:
        os.killpg(os.getpgid(pid), signal.SIGKILL)
    except ProcessLookupError:
        return


def all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def alive(pid: int) -> bool:
    """Whether any of its threads has not ended; until then it may hold its files and ports."""
    stats = [read(str(path)) for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return any(stat and stat.rpartition(b")")[2].split()[0] not in b"ZX" for stat in stats)


def read(path: str) -> bytes:
    """A file of /proc; empty when the process is gone, ending, or somebody else's."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def check_for_torn_files(home: Home) -> None:
    """Check what must hold after every kill: bundles, audit trail, cache, outcomes are whole."""
    registry = Registry(home.registry)
    for bundle_id in registry.list():
        registry.get(bundle_id)  # every checksum
    history = registry.history()
    assert [change.number for change in history] == list(range(1, len(history) + 1))
    assert registry.champion() == (history[-1] if history else None)
    assert not history or history[-1].bundle_id in registry.list()
    for path in (home.artifacts / ".cache").glob("[!.]*.json"):
        for output in read_json(path).values():
            if isinstance(output, dict) and output.get("uri"):
                check_artifact(Path(output["uri"]))
    for path in home.runs.glob("*/outcome.json"):
        read_json(path)
    for path in home.runs.glob("*/steps/[!.]*.json"):
        read_json(path)


def check_artifact(path: Path) -> None:
    """Check that an output that the cache names is there, and whole."""
    assert path.exists(), f"the cache names {path}, which is not there"
    names = [part.name for part in path.rglob("*")] if path.is_dir() else [path.name]
    assert not [name for name in names if name.endswith(".partial")], f"{path} is torn"
    manifests = {
        "dataset": "manifest.json",
        "features": "features.json",
        "model": "model.json",
        "index": "index.json",
        "evaluation": "verdict.json",
        "reference": "thresholds.json",
    }
    if path.name in manifests:
        read_json(path / manifests[path.name])
