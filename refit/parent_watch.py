"""End a process group when the process that started it ends, even if that is killed.

A watcher is a process of its own, so that it does not depend on what the watched group does: a
group whose workers end at SIGTERM may leave its main process waiting for ever. The parent writes
the group's id into a pipe and keeps the pipe open; when the parent ends, the kernel closes it.
"""

import os
import signal
import subprocess
import sys
import time
from typing import Self

GRACE_SECONDS = 5.0
POLL_SECONDS = 0.05


class ParentWatch:
    """A watcher that this process has started, for one process group."""

    def __init__(self) -> None:
        self._watcher = subprocess.Popen(
            # Neither site nor variables: it needs only the standard library, and starts at once.
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, group: int) -> None:
        """End this group when this process ends."""
        pipe = self._watcher.stdin
        assert pipe is not None  # it was asked for
        pipe.write(f"{group}\n".encode())
        pipe.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the watcher and leave the group alone; safe to repeat."""
        self._watcher.kill()
        self._watcher.wait()
        if self._watcher.stdin:
            self._watcher.stdin.close()


def signal_group(group: int, number: int) -> bool:
    """Signal a process group; return whether it still has a process."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _watch() -> None:
    """Read the id of a group, wait until the parent has ended, and end the group."""
    line = sys.stdin.buffer.readline()
    if not line:  # the parent ended before it started the group
        return
    group = int(line)
    sys.stdin.buffer.read()
    deadline = time.monotonic() + GRACE_SECONDS
    running = signal_group(group, signal.SIGTERM)
    while running and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        running = signal_group(group, 0)
    signal_group(group, signal.SIGKILL)


if __name__ == "__main__":
    _watch()
