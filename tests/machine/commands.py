"""Run programs, wait for conditions, report progress."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from refit.errors import RefitError, ServiceUnreachable

LOG_PREFIX = "cluster: "
"""Prefix of every progress line."""


class CommandError(RefitError):
    """A program exited with an error; the message contains the end of its output."""


def run(
    command: Sequence[str | Path],
    *,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Run a program and return its standard output.

    Args:
        command: The program and its arguments.
        text: Standard input.
        environment: Variables added to those of this process.
        folder: Working directory.

    Raises:
        CommandError: It exited with an error.
    """
    arguments = [str(argument) for argument in command]
    done = subprocess.run(
        arguments,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        output = (done.stderr or done.stdout).strip()[-2000:]
        raise CommandError(f"{' '.join(arguments)[:200]} exited with {done.returncode}:\n{output}")
    return done.stdout


def isolated(command: Sequence[str | Path]) -> list[str]:
    """Run a command in new mount and process namespaces, which end with this process."""
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *map(str, command),
    ]


def wait_for[T](what: str, probe: Callable[[], T], seconds: float, pause: float = 0.4) -> T:
    """Call ``probe`` until it returns a true value, and return that value.

    Args:
        what: Names the awaited condition in the error message.
        probe: May raise ``CommandError``, which counts as a false value.
        seconds: Timeout.
        pause: Seconds between two calls.

    Raises:
        ServiceUnreachable: The timeout expired; the message contains the last ``CommandError``.
    """
    deadline, last_error = time.monotonic() + seconds, ""
    while True:
        try:
            if value := probe():
                return value
        except CommandError as error:
            last_error = str(error)
        if time.monotonic() > deadline:
            raise ServiceUnreachable(f"timed out after {seconds:.0f} s: {what}. {last_error}")
        time.sleep(pause)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Report how long the block took."""
    started = time.monotonic()
    yield
    report(f"{what} ({time.monotonic() - started:.1f} s)")


def report(message: str) -> None:
    """Write a progress line, even while pytest captures output."""
    stream = sys.__stderr__ or sys.stderr
    stream.write(f"{LOG_PREFIX}{message}\n")
    stream.flush()
