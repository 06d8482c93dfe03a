"""How a step tells what it is doing: one line a message, on standard error, seen by the runner."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_LOG = logging.getLogger("refit")


def set_up_logging(level: int = logging.INFO) -> None:
    """Send Refit's log lines to standard error, each as ``HH:MM:SS message``; safe to repeat."""
    if not _LOG.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        _LOG.addHandler(handler)
        _LOG.propagate = False
    _LOG.setLevel(level)


def log_message(message: str) -> None:
    """Tell the reader one thing."""
    _LOG.info(message)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long a piece of work took."""
    start = time.monotonic()
    yield
    log_message(f"{what}: {time.monotonic() - start:.1f} s")
