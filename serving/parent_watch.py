"""End child processes with their parent, even if the parent is killed.

The parent holds the write end of a pipe. When it ends, the kernel closes the pipe, and every child
that reads the other end sees the end of the file.
"""

import os
import signal
import threading
import time

VARIABLE = "REFIT_PARENT_WATCH"
"""File descriptor of the pipe's read end; not set without a parent that watches."""
GRACE_SECONDS = 5.0


def follow_parent() -> None:
    """End this process group when the parent ends; no effect if ``VARIABLE`` is not set."""
    descriptor = os.environ.get(VARIABLE)
    if descriptor:
        threading.Thread(
            target=_wait, args=(int(descriptor),), name="parent_watch", daemon=True
        ).start()


def _wait(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)
