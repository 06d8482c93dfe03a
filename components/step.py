"""What every pipeline step does around its work: log, record the outcome, report errors."""

import fcntl
import gc
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refit.failures import explain, summarize
from refit.files import write_json
from refit.progress import StepChange, log_message, send_event, set_up_logging

RUN_FOLDER_VARIABLE = "REFIT_RUN_FOLDER"
"""Names the folder in which a local run keeps its step records; unset on a cluster."""
RUN_LOCK = ".lock"
"""A file in that folder, locked for as long as the runner lives."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""


@contextmanager
def running(step: str) -> Iterator[dict[str, Any]]:
    """Run a step's work; yields a dict whose entries are kept in the step's record.

    A RefitError ends the process with its exit code and its message as the last log line. So does
    an exception that ``refit.failures`` explains, such as a full disk; its traceback is logged
    before. Any other exception is a mistake in the code and keeps its traceback.
    """
    set_up_logging()
    _end_with_runner()
    # A step imports much that stays, and ends soon. To look for garbage as often as Python does
    # takes a tenth of its time, in TensorFlow's imports and graphs above all.
    gc.set_threshold(20_000)
    log_message(f"[{step}] started")
    send_event(StepChange(step, "running"))
    started = time.monotonic()
    metadata: dict[str, Any] = {}
    try:
        yield metadata
        _record(step, started, metadata)
    except KeyboardInterrupt:
        _record_failure(step, started, metadata, "interrupted", INTERRUPTED)
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        known = explain(error)
        if known is None:
            _record_failure(step, started, metadata, summarize(error), 1)
            raise
        if known is not error:
            traceback.print_exc()
        _record_failure(step, started, metadata, str(known), known.exit_code)
        log_message(f"[{step}] error: {known}")
        raise SystemExit(known.exit_code) from None
    log_message(f"[{step}] done in {time.monotonic() - started:.1f} s")
    # The end of a process goes through all objects once more: a second with TensorFlow.
    gc.freeze()


def _end_with_runner() -> None:
    """End this process when a local runner is killed.

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


def _record_failure(
    step: str, started: float, metadata: dict[str, Any], error: str, exit_code: int
) -> None:
    """Keep a failed step's outcome; a full disk, which may be why it failed, hides no error."""
    try:
        _record(step, started, metadata, error, exit_code)
    except OSError as fault:
        log_message(f"[{step}] the step's record is not written: {fault}")


def _record(
    step: str,
    started: float,
    metadata: dict[str, Any],
    error: str | None = None,
    exit_code: int = 0,
) -> None:
    """Keep a step's outcome in the run's folder, and report its end."""
    seconds = round(time.monotonic() - started, 3)
    if folder := os.environ.get(RUN_FOLDER_VARIABLE):
        write_json(
            Path(folder) / "steps" / f"{step}.json",
            {
                "step": step,
                "seconds": seconds,
                "exit_code": exit_code,
                "error": error,
                "metadata": metadata,
            },
        )
    send_event(StepChange(step, "failed" if exit_code else "succeeded", seconds))
