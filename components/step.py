"""What every pipeline step does around its work: log, time it, and say its own error last."""

import fcntl
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refit.errors import RefitError
from refit.files import write_json
from refit.progress import log_message, set_up_logging

RUN_FOLDER_VARIABLE = "REFIT_RUN_FOLDER"
"""Names the folder that a local run keeps its step records in; unset on a cluster."""
RUN_LOCK = ".lock"
"""A file in that folder, locked for as long as the runner lives."""


@contextmanager
def running(step: str) -> Iterator[dict[str, Any]]:
    """Run a step's work; yields a dict whose entries are kept in the step's record.

    A RefitError ends the process with its exit code and its message as the last line, without a
    traceback. Any other exception keeps its traceback, since it is a fault of ours.
    """
    set_up_logging()
    _end_with_runner()
    log_message(f"[{step}] started")
    started = time.monotonic()
    metadata: dict[str, Any] = {}
    try:
        yield metadata
    except RefitError as error:
        _record(step, started, metadata, error, error.exit_code)
        log_message(f"[{step}] error: {error}")
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        _record(step, started, metadata, error, 1)
        raise
    _record(step, started, metadata, None, 0)
    log_message(f"[{step}] done in {time.monotonic() - started:.1f} s")
    if "tensorflow" in sys.modules:
        # The end of a process goes through all objects once more, which takes it a second.
        gc.freeze()


def _end_with_runner() -> None:
    """See to it that this process does not outlive a local runner that is killed.

    A step left alone would go on writing where the next run writes, checkpoints above all.
    """
    lock = Path(os.environ.get(RUN_FOLDER_VARIABLE, "")) / RUN_LOCK
    if RUN_FOLDER_VARIABLE not in os.environ or not lock.exists():
        return

    def wait() -> None:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="end with the runner", daemon=True).start()


def _record(
    step: str, started: float, metadata: dict[str, Any], error: Exception | None, exit_code: int
) -> None:
    folder = os.environ.get(RUN_FOLDER_VARIABLE)
    if not folder:
        return
    message = None
    if error is not None:
        message = (
            str(error) if isinstance(error, RefitError) else f"{type(error).__name__}: {error}"
        )
    write_json(
        Path(folder) / "steps" / f"{step}.json",
        {
            "step": step,
            "seconds": round(time.monotonic() - started, 3),
            "exit_code": exit_code,
            "error": message,
            "metadata": metadata,
        },
    )
