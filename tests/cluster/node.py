"""One machine of the cluster, made of namespaces on this one."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from refit.errors import ServiceUnreachable, UsageError
from tests.cluster import supervisor
from tests.cluster.commands import run, wait_for
from tests.cluster.machine import CONTROLLERS, hierarchies, is_unified
from tests.cluster.settings import ROOT, NodeSettings

KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What the kubelet would set on the whole machine."""


class Node:
    """Namespaces for mounts, network and processes, and the programs that run in them.

    Everything in them ends when their first process does; see ``supervisor``.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.folder = settings.folder

    @property
    def first(self) -> int:
        """The first process's id, as this machine knows it.

        Raises:
            ServiceUnreachable: The node does not run.
        """
        file = self.folder / supervisor.FIRST
        pid = int(file.read_text()) if file.exists() else 0
        if not supervisor.is_pause(pid):
            raise ServiceUnreachable(f"{self.settings.name} does not run")
        return pid

    def is_up(self) -> bool:
        """Whether the node runs."""
        try:
            return self.first > 0
        except ServiceUnreachable:
            return False

    def raise_up(self, pause: Path, owner: int | None) -> None:
        """Make the namespaces, their mounts and the link to them.

        Args:
            pause: the program that holds them open.
            owner: the process with which the node ends; None for no such process.

        Raises:
            UsageError: One of that number runs already.
            ServiceUnreachable: They could not be made.
        """
        if self.is_up():
            raise UsageError(
                f"{self.settings.name} runs already: end it with 'python -m tests.cluster down', "
                "or choose another number"
            )
        supervisor.clear_away(self.settings)
        for name in ("run", "logs", "etc/cni", "var/above", "var/work"):
            (self.folder / name).mkdir(parents=True)
        self._start_keeper(pause, owner)
        self._make_mounts()
        self._make_link()
        self._make_groups()

    def end(self, seconds: float = 60.0) -> None:
        """End every process, and wait until everything is cleared away.

        Raises:
            ServiceUnreachable: It was not cleared away in time.
        """
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid = int((self.folder / supervisor.KEEPER).read_text())
            os.kill(pid, signal.SIGTERM)
            what = f"the end of {self.settings.name}"
            wait_for(what, lambda: _has_ended(pid), seconds, pause=0.05)
        supervisor.clear_away(
            self.settings
        )  # finds nothing, unless the supervisor was killed before

    def inside(self, command: Sequence[str | Path]) -> list[str]:
        """The command that runs ``command`` on the node."""
        return ["nsenter", "-t", str(self.first), "-m", "-n", "-p", "--", *map(str, command)]

    def run(self, *command: str | Path, text: str | None = None) -> str:
        """Run a program on the node to its end and return its output.

        Raises:
            CommandFailed: It ended with an error.
        """
        return run(self.inside(command), text=text)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a program on the node that runs until it is stopped or the node ends.

        Args:
            name: what its log and ``stop`` call it.
            command: the program and its arguments.
            environment: added to this process's.
        """
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                self.inside(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self._pid_file(name).write_text(str(process.pid))
        _started[process.pid] = process

    def is_running(self, name: str) -> bool:
        """Whether a program that was started still runs."""
        return not _has_ended(self._pid(name))

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM, seconds: float = 30.0) -> None:
        """End a program that was started, and wait for its end.

        Raises:
            ServiceUnreachable: It did not end.
        """
        pid = self._pid(name)
        told: set[int] = set()

        def has_ended() -> bool:
            for child in set(supervisor.children(pid)) - told:  # none yet, just after its start
                os.kill(child, how)
                told.add(child)
            return _has_ended(pid)

        wait_for(f"the end of {name}", has_ended, seconds, pause=0.05)

    def log(self, name: str) -> Path:
        """Where a program's output goes."""
        return self.folder / "logs" / f"{name}.log"

    def last_words(self, name: str, lines: int = 15) -> str:
        """The end of a program's log."""
        log = self.log(name)
        return (
            "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
        )

    def save_logs(self, folder: Path) -> None:
        """Keep the programs' logs."""
        shutil.copytree(self.folder / "logs", folder, dirs_exist_ok=True)

    def _pid_file(self, name: str) -> Path:
        return self.folder / "run" / f"{name}.pid"

    def _pid(self, name: str) -> int:
        try:
            return int(self._pid_file(name).read_text())
        except FileNotFoundError:
            raise UsageError(f"{name} was not started on {self.settings.name}") from None

    def _start_keeper(self, pause: Path, owner: int | None) -> None:
        settings = self.settings
        command = [sys.executable, "-m", "tests.cluster.supervisor", str(settings.number)]
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
        (self.folder / supervisor.KEEPER).write_text(str(process.pid))
        _started[process.pid] = process
        wait_for("the node's namespaces", self.is_up, 10, pause=0.02)

    def _make_mounts(self) -> None:
        """Give the node folders of its own where programs insist on fixed ones."""
        above, work = self.folder / "var/above", self.folder / "var/work"
        self.run("mount", "--make-rshared", "/")
        self.run("mount", "-t", "tmpfs", "tmpfs", "/run")
        layers = f"lowerdir=/var,upperdir={above},workdir={work}"
        self.run("mount", "-t", "overlay", "overlay", "-o", layers, "/var")
        for name, value in KERNEL_SETTINGS.items():
            # The kubelet finds the value that it wants, and leaves the machine's alone.
            shown = self.folder / "etc" / name.replace("/", "-")
            shown.write_text(f"{value}\n")
            self.run("mount", "--bind", shown, f"/proc/sys/{name}")

    def _make_link(self) -> None:
        settings, first = self.settings, str(self.first)
        ours, theirs = settings.interface, "uplink"
        run(["ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", first])
        run(["ip", "address", "add", f"{settings.machine_ip}/24", "dev", ours])
        run(["ip", "link", "set", ours, "up"])
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{settings.node_ip}/24", "dev", theirs)
        self.run("ip", "link", "set", theirs, "up")
        # Services have no address on any interface; without a route nothing gets to kube-proxy.
        self.run("ip", "route", "add", settings.service_range, "dev", theirs)
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        for addresses in (settings.service_range, settings.pod_range):
            run(["ip", "route", "replace", addresses, "via", settings.node_ip])

    def _make_groups(self) -> None:
        for root in hierarchies():
            group = root / self.settings.name
            group.mkdir(exist_ok=True)
            if is_unified():
                for enabled in (root, group):
                    wanted = " ".join(f"+{name}" for name in CONTROLLERS)
                    (enabled / "cgroup.subtree_control").write_text(wanted)
            for name in ("cpuset.cpus", "cpuset.mems"):  # empty, and refusing processes, until set
                if not is_unified() and (root / name).exists():
                    (group / name).write_text((root / name).read_text())


_started: dict[int, subprocess.Popen[bytes]] = {}
"""Processes of ours, so that ended ones are reaped."""


def _has_ended(pid: int) -> bool:
    if process := _started.get(pid):
        return process.poll() is not None
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True
