"""Log lines and progress events of a step.

A log line is for people: ``HH:MM:SS message`` on standard error, everywhere. A progress event is
for a live view: which step runs, how much of its work is done. A step that runs in a process of its
own writes each event as one line of JSON behind ``EVENT_MARK`` on standard error, and only when the
process that started it asks for them with ``EVENTS_VARIABLE``; that process takes them out again.
The logs of a run, on one machine or on a cluster, therefore hold log lines only.
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
"""Set to 1 in the environment of a process whose standard error is read for progress events."""
EVENT_MARK = "refit-progress "
"""What a line with a progress event begins with."""
EVENT_SECONDS = 0.2
"""Least time between two events of one piece of work."""
LOG_SECONDS = 5.0
"""Time between two log lines about one piece of work."""

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
    """Log how long the block took."""
    start = time.monotonic()
    yield
    log_message(f"{what}: {time.monotonic() - start:.1f} s")


@dataclass(frozen=True)
class StepChange:
    """A step started or ended.

    Attributes:
        step: Name of the step.
        state: What it is now.
        seconds: How long it took, once it has ended.
    """

    step: str
    state: Literal["running", "succeeded", "failed"]
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """How much of a piece of work is done.

    Attributes:
        task: Name of the work.
        done: Amount that is done.
        total: Amount in all.
        unit: What is counted, such as ``examples``.
        seconds_left: Time that the rest takes at the pace so far; None before there is a pace.
        at_most: Whether the work may end before ``total``.
        metrics: Values measured just now, such as the loss of an epoch.
        finished: Whether the work has ended.
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
    """Hand an event to this process's listener, else to the process that asked for events."""
    if _listener is not None:
        _listener(event)
    elif events_are_wanted():
        write_event(event)


def events_are_wanted() -> bool:
    """Whether the process that started this one reads progress events."""
    return os.environ.get(EVENTS_VARIABLE) == "1"


def write_event(event: Event) -> None:
    """Write an event to standard error, as a line for the process that started this one."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(event, cls))
    # One write: the lines of other threads and processes must not fall into it.
    sys.stderr.write(f"{EVENT_MARK}{json.dumps({kind: asdict(event)})}\n")
    sys.stderr.flush()


def parse_event(line: str) -> Event | None:
    """The event that a line holds; None for any other line."""
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
    """Hand the events of this process to ``listener`` inside the block."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


class Meter:
    """Reports how much of a piece of work is done; threads may share it.

    As a context it finishes itself.

    Args:
        task: Name of the work.
        total: Amount in all.
        unit: What is counted, such as ``examples``.
        done: Amount that was done before, by a process that was killed.
        at_most: The work may end before ``total``.
        logs: Also write a log line every few seconds.
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
        """Count ``amount`` as done."""
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
        """Report metrics as they are now, such as the loss of the epoch that has just ended."""
        self._send(metrics=metrics)

    def finish(self) -> None:
        """Report that the work has ended."""
        self._send(finished=True)

    def _pace(self) -> float:
        """Amount in a second; 0 before anything was done."""
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
