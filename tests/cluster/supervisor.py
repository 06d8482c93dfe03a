"""Holds a node's namespaces open while its owner lives, and clears away all of it afterwards.

A process of its own, so that a cluster ends with its owner however that ends. Should the supervisor
itself be killed, the kernel still ends every process of the cluster: the namespaces' first process
is told of its parent's death. What then stays, empty folders, the next supervisor removes.

    python -m tests.cluster.supervisor NUMBER PARENT PAUSE [OWNER]
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

from tests.cluster.machine import hierarchies
from tests.cluster.settings import NodeSettings

FIRST = "first.pid"
KEEPER = "supervisor.pid"


def main(number: str, parent: str, pause: str, owner: str = "") -> None:
    """Hold the namespaces until the owner ends, the first process ends, or a signal comes."""
    settings = NodeSettings(number=int(number), parent=Path(parent))
    stop, stopped = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(stopped, b"."))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watched = [stop]
    try:
        if owner:
            watched.append(os.pidfd_open(int(owner)))
        holder = hold(settings, pause)
        watched.append(os.pidfd_open(holder.pid))
        select.select(watched, [], [])
        holder.kill()
        holder.wait()
    except ProcessLookupError:  # the owner ended before it could be watched
        pass
    finally:
        clear_away(settings)


def hold(settings: NodeSettings, pause: str) -> subprocess.Popen[bytes]:
    """Make the namespaces, and write the first process's id once they are there."""
    holder = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("--propagation", "private", pause),
        ]
    )
    # The mounts are its own only once the first process has become the pause program.
    while not any(is_pause(first := child) for child in children(holder.pid)):
        if holder.poll() is not None:
            raise SystemExit("the namespaces could not be made")
        time.sleep(0.01)
    fresh = settings.folder / f".{FIRST}"
    fresh.write_text(str(first))
    fresh.rename(settings.folder / FIRST)
    return holder


def is_pause(pid: int) -> bool:
    """Whether a process is a node's first one; ids are given again to others."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name == "pause"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def clear_away(settings: NodeSettings, seconds: float = 20.0) -> None:
    """Remove control groups and state. The link and its routes went with the namespaces."""
    end = time.monotonic() + seconds
    while groups := [root / settings.name for root in hierarchies()]:
        for group in groups:
            _remove_group(group)
        if not any(group.exists() for group in groups) or time.monotonic() > end:
            break
        time.sleep(0.1)  # processes leave a moment after they were killed
    shutil.rmtree(settings.folder, ignore_errors=True)


def _remove_group(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


if __name__ == "__main__":
    main(*sys.argv[1:])
