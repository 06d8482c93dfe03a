"""What a live view shows, as data: steps with their times, work with its time left, metrics."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from refit.progress import Event, Progress, StepChange


class StepState(StrEnum):
    """How far a step is; ``CACHED`` steps took their outputs from an earlier run."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CACHED = "cached"
    SKIPPED = "skipped"


@dataclass
class BoardStep:
    """A step of a board.

    Attributes:
        name: Its name.
        state: How far it is.
        seconds: Time that it has taken, but for the current turn; a step may run several times.
        started: When its current turn started, by the board's clock; None when it does not run.
    """

    name: str
    state: StepState = StepState.PENDING
    seconds: float = 0.0
    started: float | None = None


@dataclass
class BoardWork:
    """A piece of work with a known amount, and the metrics that it has reported.

    Attributes:
        progress: The latest report.
        first, latest: When the first and the latest report came, by the board's clock.
        metrics: By name, every value reported, in order.
    """

    progress: Progress
    first: float
    latest: float
    metrics: dict[str, list[float]] = field(default_factory=dict)


class Board:
    """The state that a live view shows; threads may share it.

    Steps that are not among ``steps`` belong to a run that the current step started. Only the
    running ones are kept.

    Args:
        title: Shown above the steps.
        steps: Names of the board's steps, in order.
        clock: Gives seconds that never go back.
    """

    def __init__(
        self, title: str, steps: Iterable[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.title, self._clock = title, clock
        self.steps = [BoardStep(name) for name in steps]
        self.inner: dict[str, float] = {}
        """When each running step of an inner run started."""
        self.work: dict[str, BoardWork] = {}
        self.message = ""
        self.started = clock()
        self.lock = threading.RLock()

    def note(self, message: str) -> None:
        """Put a message in the place of the one before."""
        with self.lock:
            self.message = message

    def apply(self, event: Event) -> None:
        """Take in an event."""
        with self.lock:
            if isinstance(event, Progress):
                self._note_progress(event)
            elif step := next((s for s in self.steps if s.name == event.step), None):
                self._change_step(step, event)
            else:
                self._change_inner(event)

    def show_steps(self, steps: Iterable[BoardStep]) -> None:
        """Replace all steps, for a run that is looked at from outside."""
        with self.lock:
            self.steps = list(steps)

    def elapsed(self) -> float:
        """Time since the board was made."""
        return self._clock() - self.started

    def seconds(self, step: BoardStep) -> float:
        """Time that a step has taken so far."""
        return step.seconds + (0.0 if step.started is None else self._clock() - step.started)

    def inner_seconds(self, name: str) -> float:
        """Time that a step of an inner run has taken so far."""
        return self._clock() - self.inner[name]

    def seconds_left(self, work: BoardWork) -> float | None:
        """Time that a piece of work still takes; None while it is not known, or was too short."""
        left = work.progress.seconds_left
        if left is None:
            return None
        left -= self._clock() - work.latest
        return left if left > 0 else None

    def _change_step(self, step: BoardStep, event: StepChange) -> None:
        if event.state == "running":
            for earlier in self.steps[: self.steps.index(step)]:
                if earlier.state is StepState.PENDING:
                    earlier.state = StepState.CACHED
            step.state, step.started = StepState.RUNNING, self._clock()
            return
        begun = self._clock() - event.seconds if step.started is None else step.started
        step.seconds += self._clock() - begun
        step.state, step.started = StepState(event.state), None
        self.inner.clear()
        self._forget_work_since(begun)

    def _change_inner(self, event: StepChange) -> None:
        if event.state == "running":
            self.inner[event.step] = self._clock()
        elif (begun := self.inner.pop(event.step, None)) is not None:
            self._forget_work_since(begun)

    def _forget_work_since(self, begun: float) -> None:
        self.work = {task: work for task, work in self.work.items() if work.first < begun}

    def _note_progress(self, event: Progress) -> None:
        now = self._clock()
        work = self.work.setdefault(event.task, BoardWork(event, now, now))
        work.progress, work.latest = event, now
        for name, value in event.metrics.items():
            work.metrics.setdefault(name, []).append(value)
