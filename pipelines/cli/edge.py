"""The outermost error handling: each exception becomes one line with advice, and an exit code."""

import os
import select
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from pipelines.cli.output import ERRORS
from pipelines.home import Home
from refit import __version__
from refit.errors import RefitError
from refit.failures import explain, summarize

DEBUG_VARIABLE = "REFIT_DEBUG"
HOME_KEY = "refit.home"
"""Key of the home that a command was given, in the context's ``meta``."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
READER_GONE = 141
"""Exit code when nobody reads standard output any more (``| head``), as shells have it."""


class Commands(TyperGroup):
    """The command tree's root, whose commands end with one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        with ending_in_one_line(ctx):
            return super().invoke(ctx)


@contextmanager
def ending_in_one_line(ctx: Any = None) -> Iterator[None]:
    """Turn every exception of the block into SystemExit, once the user has read what to do.

    ``typer.Exit`` and its usage errors pass.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, typer.TyperException):
        raise
    except KeyboardInterrupt:
        ERRORS.print("stopped")
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        gone = isinstance(error, BrokenPipeError) and _reader_is_gone()
        code = READER_GONE if gone else _report(error, ctx)
        _drop_output_that_cannot_be_written()
        raise SystemExit(code) from None


def _reader_is_gone() -> bool:
    """Whether standard output is a pipe that nobody reads."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(flags & select.POLLERR for _, flags in poll.poll(0))
    except (OSError, ValueError):
        return False


def _drop_output_that_cannot_be_written() -> None:
    """Keep Python from failing once more when it flushes standard output at the end."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def debugging() -> bool:
    """Whether tracebacks are shown."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def _home_of(ctx: Any) -> Path:
    """The home folder that the command was given, else the default one."""
    given = ctx.meta.get(HOME_KEY) if ctx is not None else None
    return Home.at(given).folder


def _report(error: Exception, ctx: Any) -> int:
    """Write what went wrong to standard error; returns the exit code."""
    if debugging():
        ERRORS.print("".join(traceback.format_exception(error)), markup=False, emoji=False)
    known = explain(error)
    if known is not None:
        _write_error(str(known))
        return known.exit_code
    kept = _keep_traceback(error, _home_of(ctx), getattr(ctx, "invoked_subcommand", None) or "")
    where = f"the full traceback is in {kept}" if kept else "REFIT_DEBUG=1 shows the full traceback"
    _write_error(f"unexpected error: {summarize(error)}; {where}, please report it")
    return RefitError.exit_code


def _write_error(text: str) -> None:
    ERRORS.print(f"error: {text}", style="bold red", markup=False, emoji=False)


def _keep_traceback(error: Exception, home: Path, command: str) -> Path | None:
    """Write the traceback to a file, in the home or, when that cannot be written, elsewhere.

    The command's options are left out: the file is made to be sent to others.
    """
    now = datetime.now(UTC)
    python = sys.version.split()[0]
    text = f"refit {__version__} {command}, Python {python}, {now:%Y-%m-%d %H:%M:%S} UTC\n\n"
    text += "".join(traceback.format_exception(error))
    for folder in (home / "logs", Path(tempfile.gettempdir())):
        path = folder / f"refit-error-{now:%Y%m%dT%H%M%S}-{os.getpid()}.log"
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return path
    return None
