"""Child processes that do not outlive the process that started them, even when it is killed.

The parent keeps the write end of a pipe; when it dies, however it dies, the kernel closes it and
every child that reads the other end sees the end of the file.
"""

import os
import signal
import threading
import time

VARIABLE = "REFIT_PARENT_WATCH"
"""Names the file descriptor of the pipe's read end; unset where nobody launched us."""
GRACE_SECONDS = 5.0


def follow_parent() -> None:
    """End this process's whole group when the parent is gone; nothing without a parent_watch."""
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
