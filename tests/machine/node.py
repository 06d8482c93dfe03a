"""The cluster's node: Linux namespaces on this host, and the programs that run in them."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from refit.errors import ServiceUnreachable, UsageError
from tests.machine import supervisor
from tests.machine.commands import run, wait_for
from tests.machine.host import CONTROLLERS, cgroup_hierarchies, is_cgroup_v2
from tests.machine.settings import ROOT, NodeSettings

KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""Kernel settings that the kubelet would otherwise change on the whole host."""


class Node:
    """Mount, network and process namespaces, and the programs that run in them.

    All processes in them end when the namespaces' first process ends; see ``supervisor``.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.folder = settings.folder

    @property
    def init_pid(self) -> int:
        """Process id, on the host, of the namespaces' first process.

        Raises:
            ServiceUnreachable: The node is not running.
        """
        file = self.folder / supervisor.INIT_PID_FILE
        pid = int(file.read_text()) if file.exists() else 0
        if not supervisor.is_pause(pid):
            raise ServiceUnreachable(f"{self.settings.name} is not running")
        return pid

    def is_running(self) -> bool:
        """Whether the node is running."""
        try:
            return self.init_pid > 0
        except ServiceUnreachable:
            return False

    def create(self, pause: Path, owner: int | None) -> None:
        """Create the namespaces, their mounts and the network link to them.

        Args:
            pause: The program that holds the namespaces open.
            owner: Id of the process with which the node ends; None for no such process.

        Raises:
            UsageError: A node with this number is running.
            ServiceUnreachable: The namespaces could not be created.
        """
        if self.is_running():
            raise UsageError(
                f"{self.settings.name} is already running: stop it with "
                "'python -m tests.machine down', or choose another number"
            )
        supervisor.clean_up(self.settings)
        for name in ("run", "logs", "etc/cni", "var/upper", "var/work"):
            (self.folder / name).mkdir(parents=True)
        self._start_supervisor(pause, owner)
        self._create_mounts()
        self._create_link()
        self._create_cgroups()

    def delete(self, seconds: float = 60.0) -> None:
        """Stop every process, and wait until everything is removed.

        Raises:
            ServiceUnreachable: The timeout expired.
        """
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid = int((self.folder / supervisor.PID_FILE).read_text())
            os.kill(pid, signal.SIGTERM)
            what = f"the end of {self.settings.name}"
            wait_for(what, lambda: _has_ended(pid), seconds, pause=0.05)
        # The supervisor cleans up itself, unless it was killed before.
        supervisor.clean_up(self.settings)

    def enter(self, command: Sequence[str | Path]) -> list[str]:
        """The host command that runs ``command`` in the node's namespaces."""
        return ["nsenter", "-t", str(self.init_pid), "-m", "-n", "-p", "--", *map(str, command)]

    def run(self, *command: str | Path, text: str | None = None) -> str:
        """Run a program on the node and return its output.

        Raises:
            CommandError: It exited with an error.
        """
        return run(self.enter(command), text=text)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a program on the node; it runs until it is stopped or the node ends.

        Args:
            name: Identifies the program for ``stop`` and its log.
            command: The program and its arguments.
            environment: Variables added to those of this process.
        """
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                self.enter(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self._pid_file(name).write_text(str(process.pid))
        _started[process.pid] = process

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM, seconds: float = 30.0) -> None:
        """Stop a program that was started with ``start``, and wait until it has ended.

        Raises:
            ServiceUnreachable: The timeout expired.
        """
        pid = self._pid(name)
        signalled: set[int] = set()

        def has_ended() -> bool:
            # Just after its start nsenter has no child yet.
            for child in set(supervisor.children(pid)) - signalled:
                os.kill(child, how)
                signalled.add(child)
            return _has_ended(pid)

        wait_for(f"the end of {name}", has_ended, seconds, pause=0.05)

    def log(self, name: str) -> Path:
        """The file that a program's output is written to."""
        return self.folder / "logs" / f"{name}.log"

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The end of a program's log."""
        log = self.log(name)
        return (
            "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
        )

    def save_logs(self, folder: Path) -> None:
        """Copy the programs' logs into a folder."""
        shutil.copytree(self.folder / "logs", folder, dirs_exist_ok=True)

    def _pid_file(self, name: str) -> Path:
        return self.folder / "run" / f"{name}.pid"

    def _pid(self, name: str) -> int:
        try:
            return int(self._pid_file(name).read_text())
        except FileNotFoundError:
            raise UsageError(f"{name} was not started on {self.settings.name}") from None

    def _start_supervisor(self, pause: Path, owner: int | None) -> None:
        settings = self.settings
        command = [sys.executable, "-m", "tests.machine.supervisor", str(settings.number)]
        command += [str(settings.parent), str(pause), *([str(owner)] if owner else [])]
        with self.log("supervisor").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        (self.folder / supervisor.PID_FILE).write_text(str(process.pid))
        _started[process.pid] = process
        wait_for("the node's namespaces", self.is_running, 10, pause=0.02)

    def _create_mounts(self) -> None:
        """Give the node its own folders where programs use fixed paths."""
        upper, work = self.folder / "var/upper", self.folder / "var/work"
        self.run("mount", "--make-rshared", "/")
        self.run("mount", "-t", "tmpfs", "tmpfs", "/run")
        layers = f"lowerdir=/var,upperdir={upper},workdir={work}"
        self.run("mount", "-t", "overlay", "overlay", "-o", layers, "/var")
        for name, value in KERNEL_SETTINGS.items():
            # The kubelet reads the value that it expects, and does not change the host's.
            file = self.folder / "etc" / name.replace("/", "-")
            file.write_text(f"{value}\n")
            self.run("mount", "--bind", file, f"/proc/sys/{name}")

    def _create_link(self) -> None:
        settings, pid = self.settings, str(self.init_pid)
        outside, inside = settings.interface, "uplink"
        run(["ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", pid])
        run(["ip", "address", "add", f"{settings.host_ip}/24", "dev", outside])
        run(["ip", "link", "set", outside, "up"])
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{settings.node_ip}/24", "dev", inside)
        self.run("ip", "link", "set", inside, "up")
        # No interface has a Service's address; without this route packets never reach kube-proxy.
        self.run("ip", "route", "add", settings.service_range, "dev", inside)
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        for addresses in (settings.service_range, settings.pod_range):
            run(["ip", "route", "replace", addresses, "via", settings.node_ip])

    def _create_cgroups(self) -> None:
        for root in cgroup_hierarchies():
            group = root / self.settings.name
            group.mkdir(exist_ok=True)
            if is_cgroup_v2():
                for parent in (root, group):
                    enabled = " ".join(f"+{name}" for name in CONTROLLERS)
                    (parent / "cgroup.subtree_control").write_text(enabled)
            for name in ("cpuset.cpus", "cpuset.mems"):  # while empty, no process may join
                if not is_cgroup_v2() and (root / name).exists():
                    (group / name).write_text((root / name).read_text())


_started: dict[int, subprocess.Popen[bytes]] = {}
"""Child processes of this process, so that they are reaped."""


def _has_ended(pid: int) -> bool:
    if process := _started.get(pid):
        return process.poll() is not None
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True
