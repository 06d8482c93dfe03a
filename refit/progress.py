"""Log lines and progress events of a step.

A log line is written for readers: ``HH:MM:SS message`` on standard error. A progress event is
written for a live view: which step runs, and how much of its work is done. A step in a child
process writes each event to standard error as ``EVENT_MARK`` and one line of JSON, but only if the
parent has set ``EVENTS_VARIABLE``; the parent removes these lines from the output. The logs of a
run, on one machine or on a cluster, therefore contain log lines only.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Literal, Self

EVENTS_VARIABLE = "REFIT_PROGRESS_EVENTS"
"""Set to 1 in the environment of a child process to enable its progress events."""
EVENT_MARK = "refit-progress "
"""Prefix of a line with a progress event."""
EVENT_SECONDS = 0.2
"""Minimum time between two events of one task."""
LOG_SECONDS = 5.0
"""Time between two log lines about one task."""

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
    """Write one log line."""
    _LOG.info(message)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Log the duration of the block."""
    start = time.monotonic()
    yield
    log_message(f"{what}: {time.monotonic() - start:.1f} s")


@dataclass(frozen=True)
class StepChange:
    """A step started or ended.

    Attributes:
        step: Name of the step.
        state: Its new state.
        seconds: Its duration; 0 while it is running.
    """

    step: str
    state: Literal["running", "succeeded", "failed"]
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """The progress of a task.

    Attributes:
        task: Name of the task.
        done: Completed amount of work.
        total: Total amount of work.
        unit: Unit of both amounts, such as ``examples``.
        seconds_left: Remaining time at the pace so far; None while the pace is unknown.
        at_most: Whether the task may end before ``total``.
        metrics: Current values, such as the loss of an epoch.
        finished: Whether the task has ended.
    """

    task: str
    done: float
    total: float
    unit: str
    seconds_left: float | None = None
    at_most: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    finished: bool = False


Event = StepChange | Progress
_KINDS: dict[str, type[Event]] = {"step": StepChange, "work": Progress}
_listener: Callable[[Event], None] | None = None


def send_event(event: Event) -> None:
    """Pass an event to the listener of this process, or else to the parent if it reads events."""
    if _listener is not None:
        _listener(event)
    elif events_are_wanted():
        write_event(event)


def events_are_wanted() -> bool:
    """Whether the parent process reads progress events."""
    return os.environ.get(EVENTS_VARIABLE) == "1"


def write_event(event: Event) -> None:
    """Write an event to standard error, as one line for the parent process."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(event, cls))
    # A single write, so that lines of other threads and processes cannot split it.
    sys.stderr.write(f"{EVENT_MARK}{json.dumps({kind: asdict(event)})}\n")
    sys.stderr.flush()


def parse_event(line: str) -> Event | None:
    """Parse a line with an event; None for any other line."""
    text = line.strip()
    if not text.startswith(EVENT_MARK):
        return None
    try:
        ((kind, values),) = json.loads(text.removeprefix(EVENT_MARK)).items()
        return _KINDS[kind](**values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


@contextmanager
def listening(listener: Callable[[Event], None]) -> Iterator[None]:
    """Pass the events of this process to ``listener`` inside the block."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


class Meter:
    """Reports the progress of a task; threads may share it.

    As a context manager it reports the end of the task on exit.

    Args:
        task: Name of the task.
        total: Total amount of work.
        unit: Unit of the amounts, such as ``examples``.
        done: Amount that an earlier, killed process completed.
        at_most: Whether the task may end before ``total``.
        logs: Whether to also write a log line every ``LOG_SECONDS``.
    """

    def __init__(
        self,
        task: str,
        total: float,
        unit: str,
        *,
        done: float = 0.0,
        at_most: bool = False,
        logs: bool = False,
    ) -> None:
        self._task, self._total, self._unit = task, total, unit
        self._first = self._done = done
        self._at_most, self._logs = at_most, logs
        self._started = self._logged = time.monotonic()
        self._sent = float("-inf")
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._send()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def advance(self, amount: float = 1.0) -> None:
        """Add ``amount`` to the completed work."""
        with self._lock:
            self._done += amount
            now = time.monotonic()
            sends, logs = now - self._sent >= EVENT_SECONDS, now - self._logged >= LOG_SECONDS
            self._sent = now if sends else self._sent
            self._logged = now if logs else self._logged
        if sends:
            self._send()
        if logs and self._logs:
            self._log()

    def measure(self, **metrics: float) -> None:
        """Report current metrics, such as the loss of the latest epoch."""
        self._send(metrics=metrics)

    def finish(self) -> None:
        """Report that the task has ended."""
        self._send(finished=True)

    def _pace(self) -> float:
        """Amount of work per second; 0 before any is completed."""
        return (self._done - self._first) / max(time.monotonic() - self._started, 1e-9)

    def _seconds_left(self) -> float | None:
        pace = self._pace()
        return max(self._total - self._done, 0.0) / pace if pace > 0 else None

    def _send(self, metrics: Mapping[str, float] | None = None, finished: bool = False) -> None:
        send_event(
            Progress(
                task=self._task,
                done=self._done,
                total=self._total,
                unit=self._unit,
                seconds_left=self._seconds_left(),
                at_most=self._at_most,
                metrics=metrics or {},
                finished=finished,
            )
        )

    def _log(self) -> None:
        bound = "at most" if self._at_most else "about"
        log_message(
            f"{self._task}: {self._pace():,.0f} {self._unit}/s, {bound} "
            f"{self._seconds_left() or 0.0:.0f} s left"
        )
