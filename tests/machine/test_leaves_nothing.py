"""Start clusters, end them in several ways, and compare the state of the host before and after."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.machine.commands import run, wait_for
from tests.machine.host import cgroup_hierarchies
from tests.machine.kubernetes import start_cluster
from tests.machine.node import KERNEL_SETTINGS, Node
from tests.machine.settings import ROOT, NodeSettings

pytestmark = pytest.mark.cluster
SETTINGS = NodeSettings(number=9)
FOLDERS = ("/opt", "/run", "/var/lib", "/var/log", "/etc", "/run/netns", "/run/containerd")
START = """
import time
from tests.machine.kubernetes import start_cluster
from tests.machine.settings import NodeSettings
start_cluster(NodeSettings(number=9))
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def delete_after_failure() -> Iterator[None]:
    yield
    Node(SETTINGS).delete()


def host_state() -> dict[str, set[str]]:
    """The state of the host that a cluster could change, without that of other clusters."""
    names = (SETTINGS.name, SETTINGS.interface, str(SETTINGS.folder))
    settings = [Path("/proc/sys", name) for name in ("net/ipv4/ip_forward", *KERNEL_SETTINGS)]
    return {
        "processes": {line for line in _processes() if any(name in line for name in names)},
        "mounts": _mentioned(Path("/proc/self/mounts").read_text(), names),
        "interfaces": _mentioned(run(["ip", "-o", "link"]), names),
        "addresses": _mentioned(run(["ip", "-o", "address"]), (SETTINGS.host_ip,)),
        "routes": _mentioned(run(["ip", "route", "show", "table", "all"]), (SETTINGS.node_ip,)),
        "groups": {str(root / SETTINGS.name) for root in cgroup_hierarchies()} & _groups(),
        "firewall": set(run(["nft", "list", "ruleset"]).splitlines()),
        "kernel": {f"{path}={path.read_text()}" for path in settings},
        "folders": {str(entry) for folder in FOLDERS for entry in _entries(Path(folder))},
        "state": {str(SETTINGS.folder)} if SETTINGS.folder.exists() else set(),
    }


def test_nothing_remains_of_a_deleted_cluster() -> None:
    before = host_state()
    cluster = start_cluster(SETTINGS)
    during = host_state()
    for what in ("processes", "interfaces", "addresses", "routes", "groups", "state"):
        assert during[what] != before[what], f"the test does not detect {what}"
    cluster.delete()
    assert host_state() == before


def test_nothing_remains_after_the_owner_was_killed() -> None:
    before = host_state()
    with _owner() as owner:
        owner.kill()
    wait_for("the removal of the state", lambda: not SETTINGS.folder.exists(), 60)
    assert host_state() == before


def test_all_processes_end_with_a_killed_supervisor_and_deletion_removes_the_rest() -> None:
    before = host_state()
    with _owner() as owner:
        supervisor = int((SETTINGS.folder / "supervisor.pid").read_text())
        os.kill(supervisor, signal.SIGKILL)
        wait_for("the end of the node", lambda: not Node(SETTINGS).is_running(), 30)
        owner.kill()
    wait_for(
        "the end of all processes", lambda: host_state()["processes"] == before["processes"], 30
    )
    Node(SETTINGS).delete()
    assert host_state() == before


@contextmanager
def _owner() -> Iterator[subprocess.Popen[str]]:
    """A process that has started a cluster."""
    process = subprocess.Popen(
        [sys.executable, "-c", START], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        yield process
    finally:
        process.kill()
        process.wait()


def _mentioned(text: str, names: tuple[str, ...]) -> set[str]:
    return {line for line in text.splitlines() if any(name in line for name in names)}


def _processes() -> set[str]:
    """Id, command line and control groups of each process."""
    processes = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups = (process / "cgroup").read_text().replace("\n", " ")
        except OSError:
            continue
        processes.add(f"{process.name} {words} {groups}")
    return processes


def _groups() -> set[str]:
    return {str(group) for root in cgroup_hierarchies() for group in root.glob("refit-cluster-*")}


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
