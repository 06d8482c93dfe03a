"""Hold a node's namespaces open while its owner process lives, then remove everything.

The supervisor is a separate process, so that a cluster ends with its owner even if the owner is
killed. If the supervisor itself is killed, the kernel still ends every process of the cluster: the
namespaces' first process gets a signal when its parent dies. Empty folders remain in that case;
the next supervisor removes them.

    python -m tests.machine.supervisor NUMBER PARENT PAUSE [OWNER]
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.machine.host import cgroup_hierarchies
from tests.machine.settings import NodeSettings

INIT_PID_FILE = "init.pid"
PID_FILE = "supervisor.pid"


def main(number: str, parent: str, pause: str, owner: str = "") -> None:
    """Hold the namespaces until the owner ends, the first process ends, or SIGTERM arrives."""
    settings = NodeSettings(number=int(number), parent=Path(parent))
    stop, stopped = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(stopped, b"."))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watched = [stop]
    try:
        if owner:
            watched.append(os.pidfd_open(int(owner)))
        holder = create_namespaces(settings, pause)
        watched.append(os.pidfd_open(holder.pid))
        select.select(watched, [], [])
        holder.kill()
        holder.wait()
    except ProcessLookupError:  # the owner ended before it could be watched
        pass
    finally:
        clean_up(settings)


def create_namespaces(settings: NodeSettings, pause: str) -> subprocess.Popen[bytes]:
    """Create the namespaces, then write the id of their first process to a file."""
    holder = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("--propagation", "private", pause),
        ]
    )
    # The mount namespace is complete when the first process has become the pause program.
    while not any(is_pause(init := child) for child in children(holder.pid)):
        if holder.poll() is not None:
            raise SystemExit("the namespaces could not be created")
        time.sleep(0.01)
    staging = settings.folder / f".{INIT_PID_FILE}"
    staging.write_text(str(init))
    staging.rename(settings.folder / INIT_PID_FILE)
    return holder


def is_pause(pid: int) -> bool:
    """Whether a process is a node's first process; process ids are reused."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name == "pause"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Ids of the direct child processes."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def clean_up(settings: NodeSettings, seconds: float = 20.0) -> None:
    """Remove control groups and state. The kernel removed the link and its routes before."""
    end = time.monotonic() + seconds
    while groups := [root / settings.name for root in cgroup_hierarchies()]:
        for group in groups:
            _remove_group(group)
        if not any(group.exists() for group in groups) or time.monotonic() > end:
            break
        time.sleep(0.1)  # a killed process leaves its group with a delay
    shutil.rmtree(settings.folder, ignore_errors=True)


def _remove_group(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


if __name__ == "__main__":
    main(*sys.argv[1:])
