"""Progress on a terminal: a live view of steps, bars, metrics and the last message.

In a pipe the same is plain lines, and with ``--json`` nothing.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from pipelines.cli.board import Board, BoardStep, BoardWork, StepState
from pipelines.cli.output import ERRORS, write_progress
from pipelines.reporter import SILENT, Reporter
from refit.progress import Event, events_are_wanted, listening, write_event

FRAMES_A_SECOND = 8
BAR_WIDTH = 30
LEAST_BAR = 6
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 20
MARKS = {
    StepState.PENDING: ("·", "dim"),
    StepState.RUNNING: ("▶", "bold cyan"),
    StepState.SUCCEEDED: ("✓", "green"),
    StepState.FAILED: ("✗", "bold red"),
    StepState.CACHED: ("✓", "dim green"),
    StepState.SKIPPED: ("-", "dim"),
}
NOTES = {StepState.CACHED: "from cache", StepState.SKIPPED: "skipped"}
PLAIN_MARKS = {"·": " ", "▶": ">", "✓": "+", "✗": "x", "━": "#", "─": "-", "›": ">"}
"""For terminals whose encoding has no such characters."""


def is_live(as_json: bool = False) -> bool:
    """Whether progress is a live view: on a terminal that can move its cursor, without --json."""
    return ERRORS.is_terminal and not ERRORS.is_dumb_terminal and not as_json


@contextmanager
def reporting(
    title: str, steps: Iterable[str] = (), as_json: bool = False, keeps_log: bool = False
) -> Iterator[Reporter]:
    """The reporter that fits standard error, for as long as the block runs.

    Args:
        title: Shown above the steps.
        steps: Names of its steps, in order.
        as_json: Whether the command prints JSON: then nothing is shown, unless the process that
            started this one asks for progress events.
        keeps_log: Whether this process's log lines stay on the screen above a live view.
    """
    if is_live(as_json):
        board = Board(title, steps)
        with showing(board, keeps_log):
            yield LiveReporter(board)
    elif as_json and not events_are_wanted():
        yield SILENT
    else:
        yield PlainReporter()


class PlainReporter:
    """Writes lines; hands events on when the process that started this one asks for them."""

    def __init__(self) -> None:
        self._hands_on = events_are_wanted()

    def message(self, text: str) -> None:
        """Write a line."""
        write_progress(text)

    def milestone(self, text: str) -> None:
        """Write a line."""
        write_progress(text)

    def event(self, event: Event) -> None:
        """Hand the event on, or drop it."""
        if self._hands_on:
            write_event(event)


class LiveReporter:
    """Shows everything on a board."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def message(self, text: str) -> None:
        """Show the line below the steps, in the place of the one before."""
        self._board.note(text)

    def milestone(self, text: str) -> None:
        """Write the line above the live view."""
        write_progress(text)

    def event(self, event: Event) -> None:
        """Change the board."""
        self._board.apply(event)


@contextmanager
def showing(board: Board, keeps_log: bool = False) -> Iterator[None]:
    """Show a board until the block ends; then it is gone from the screen.

    This process's own log lines and events go to the board meanwhile, or with ``keeps_log`` the
    lines above it.
    """
    with ExitStack() as stack:
        stack.enter_context(_showing_the_cursor_again())
        stack.enter_context(
            Live(
                BoardView(board),
                console=ERRORS,
                refresh_per_second=FRAMES_A_SECOND,
                transient=True,
                redirect_stdout=False,
            )
        )
        stack.enter_context(_logging_to(write_progress if keeps_log else board.note))
        stack.enter_context(listening(board.apply))
        yield


@contextmanager
def _logging_to(write: Callable[[str], None]) -> Iterator[None]:
    """Hand Refit's log lines to ``write`` inside the block."""
    log, handler = logging.getLogger("refit"), logging.Handler()
    handler.emit = lambda record: write(record.getMessage())  # type: ignore[method-assign]
    before, log.handlers = log.handlers, [handler]
    try:
        yield
    finally:
        log.handlers = before


@contextmanager
def _showing_the_cursor_again() -> Iterator[None]:
    """Show the cursor, which a live view hides, also when SIGTERM ends the process."""
    default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and ERRORS.is_terminal

    def end(*_: object) -> None:
        # Past the console: a signal that interrupts its own printing would only fill its buffer.
        os.write(ERRORS.file.fileno(), b"\x1b[?25h")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    if default:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if default:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


class BoardView:
    """Draws a board for a console of any size: lines are cut, steps that are over are summed up."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(options.max_width - 1, 1)
        height = max(console.height - 1, 1)
        with self._board.lock:
            lines = self._draw(width, height)
        for line in lines:
            if not _is_unicode(console):
                line = _without_symbols(line)
            line.truncate(width, overflow="ellipsis" if _is_unicode(console) else "crop")
            line.no_wrap = True
            yield line

    def _draw(self, width: int, height: int) -> list[Text]:
        board = self._board
        below = [*self._draw_work(width), *self._draw_message()]
        title = Text(f"{board.title} ", style="bold").append(
            format_seconds(board.elapsed()), style="not bold dim"
        )
        steps = self._draw_steps(height - 1 - len(below))
        return [title, *steps, *below][:height]

    def _draw_steps(self, room: int) -> list[Text]:
        """One line a step; when there is no room for all, those that are over are one line."""
        steps = self._board.steps
        inner = self._draw_inner()
        if len(steps) + len(inner) <= room:
            lines = [self._draw_step(step) for step in steps]
        else:
            over = [s for s in steps if s.state not in (StepState.PENDING, StepState.RUNNING)]
            current = [s for s in steps if s.state is StepState.RUNNING]
            lines = [self._draw_step(step) for step in current]
            if over:
                lines.insert(0, Text(f" ✓ {len(over)} of {len(steps)} steps", style="green"))
        running = [i for i, s in enumerate(steps) if s.state is StepState.RUNNING]
        if inner and running and len(lines) == len(steps):
            return [*lines[: running[-1] + 1], *inner, *lines[running[-1] + 1 :]]
        return [*lines, *inner]

    def _draw_step(self, step: BoardStep) -> Text:
        mark, style = MARKS[step.state]
        names = max((len(s.name) for s in self._board.steps), default=0)
        line = Text(f" {mark} ", style=style).append(
            step.name.ljust(names), style="dim" if step.state is StepState.PENDING else "default"
        )
        if note := NOTES.get(step.state):
            return line.append(f"  {note:>8}", style="dim")
        if step.state is not StepState.PENDING:
            line.append(f"  {format_seconds(self._board.seconds(step)):>8}", style="default")
        return line

    def _draw_inner(self) -> list[Text]:
        names = list(self._board.inner)
        if not names:
            return []
        seconds = format_seconds(self._board.inner_seconds(names[-1]))
        return [Text(f"     {' › '.join(names)}  {seconds}", style="cyan")]

    def _draw_work(self, width: int) -> Iterator[Text]:
        for work in self._board.work.values():
            if not work.progress.finished:
                yield self._draw_bar(work, width)
            if work.metrics:
                yield self._draw_metrics(work)

    def _draw_bar(self, work: BoardWork, width: int) -> Text:
        progress = work.progress
        share = min(progress.done / progress.total, 1.0) if progress.total else 0.0
        left = self._board.seconds_left(work)
        amount = f"{progress.done:,.0f}/{progress.total:,.0f} {progress.unit}"
        bound = "at most " if progress.at_most else ""
        time_left = "" if left is None else f" · {bound}{format_seconds(left)} left"
        name, percent = f" {progress.task} ", f" {share:4.0%}"
        room = width - len(name) - len(percent) - len(time_left)
        bar = min(BAR_WIDTH, room)
        line = Text(name)
        if bar >= LEAST_BAR:
            full = round(share * bar)
            line.append("━" * full, style="cyan").append("─" * (bar - full), style="dim")
        line.append(percent).append(time_left)
        if len(line) + len(amount) + 3 <= width:
            line.append(f" · {amount}", style="dim")
        return line

    def _draw_metrics(self, work: BoardWork) -> Text:
        task = work.progress.task
        line = Text(f" {task if work.progress.finished else ' ' * len(task)}")
        for name, values in work.metrics.items():
            line.append(f"  {name} ", style="dim").append(f"{values[-1]:.4g} ", style="bold")
            line.append(sparkline(values), style="magenta")
        return line

    def _draw_message(self) -> list[Text]:
        return [Text(f" {self._board.message}", style="dim")] if self._board.message else []


def sparkline(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """The latest values as a row of bars, from their least to their greatest."""
    known = [value for value in values if value == value][-width:]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    spread = (high - low) or 1.0
    return "".join(SPARKS[round((value - low) / spread * (len(SPARKS) - 1))] for value in known)


def format_seconds(seconds: float) -> str:
    """``4.2 s`` below a minute, then ``1:05``, then ``1:02:05``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _is_unicode(console: Console) -> bool:
    return not console.options.ascii_only


def _without_symbols(line: Text) -> Text:
    plain = "".join(PLAIN_MARKS.get(c, c) for c in line.plain if c not in SPARKS)
    return Text(plain.encode("ascii", "replace").decode(), style=line.style)
