"""Raises clusters of its own, ends them in two ways, and compares the machine with before."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.commands import run, wait_for
from tests.cluster.kubernetes import raise_cluster
from tests.cluster.machine import hierarchies
from tests.cluster.node import KERNEL_SETTINGS, Node
from tests.cluster.settings import ROOT, NodeSettings

pytestmark = pytest.mark.cluster
SETTINGS = NodeSettings(number=9)
TOUCHED = ("/opt", "/run", "/var/lib", "/var/log", "/etc", "/run/netns", "/run/containerd")
RAISE = """
import time
from tests.cluster.kubernetes import raise_cluster
from tests.cluster.settings import NodeSettings
raise_cluster(NodeSettings(number=9))
print("raised", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def end_what_failed() -> Iterator[None]:
    yield
    Node(SETTINGS).end()


def traces() -> dict[str, set[str]]:
    """Whatever a cluster could leave on this machine, as far as it can be told from others'."""
    names = (SETTINGS.name, SETTINGS.interface, str(SETTINGS.folder))
    settings = [Path("/proc/sys", name) for name in ("net/ipv4/ip_forward", *KERNEL_SETTINGS)]
    return {
        "processes": {line for line in _processes() if any(name in line for name in names)},
        "mounts": _mentioned(Path("/proc/self/mounts").read_text(), names),
        "interfaces": _mentioned(run(["ip", "-o", "link"]), names),
        "addresses": _mentioned(run(["ip", "-o", "address"]), (SETTINGS.machine_ip,)),
        "routes": _mentioned(run(["ip", "route", "show", "table", "all"]), (SETTINGS.node_ip,)),
        "groups": {str(root / SETTINGS.name) for root in hierarchies()} & _groups(),
        "firewall": set(run(["nft", "list", "ruleset"]).splitlines()),
        "kernel": {f"{path}={path.read_text()}" for path in settings},
        "folders": {str(one) for place in TOUCHED for one in _entries(Path(place))},
        "state": {str(SETTINGS.folder)} if SETTINGS.folder.exists() else set(),
    }


def test_nothing_is_left_after_its_end() -> None:
    before = traces()
    cluster = raise_cluster(SETTINGS)
    during = traces()
    for what in ("processes", "interfaces", "addresses", "routes", "groups", "state"):
        assert during[what] != before[what], f"{what} would not be noticed"
    cluster.end()
    assert traces() == before


def test_nothing_is_left_after_its_owner_was_killed() -> None:
    before = traces()
    with _owner() as owner:
        owner.kill()
    wait_for("the end", lambda: not SETTINGS.folder.exists(), 60)
    assert traces() == before


def test_every_process_ends_with_a_killed_keeper_and_the_next_cluster_clears_up() -> None:
    before = traces()
    with _owner() as owner:
        supervisor = int((SETTINGS.folder / "supervisor.pid").read_text())
        os.kill(supervisor, signal.SIGKILL)
        wait_for("the end of all processes", lambda: not Node(SETTINGS).is_up(), 30)
        owner.kill()
    wait_for("no process", lambda: traces()["processes"] == before["processes"], 30)
    Node(SETTINGS).end()
    assert traces() == before


class _owner:  # noqa: N801 - used as a function
    """A process that has raised a cluster."""

    def __enter__(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-c", RAISE], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "raised\n"
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _mentioned(text: str, names: tuple[str, ...]) -> set[str]:
    return {line for line in text.splitlines() if any(name in line for name in names)}


def _processes() -> set[str]:
    """Processes' ids, command lines and namespaces; those of this test's own cluster stand out."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups = (process / "cgroup").read_text().replace("\n", " ")
        except OSError:
            continue
        found.add(f"{process.name} {words} {groups}")
    return found


def _groups() -> set[str]:
    return {str(group) for root in hierarchies() for group in root.glob("refit-cluster-*")}


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
