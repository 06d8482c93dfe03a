"""Run programs, wait for things, tell the reader."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from refit.errors import RefitError, ServiceUnreachable

TOLD = "cluster: "
"""How a line begins that tells the reader something."""


class CommandFailed(RefitError):  # noqa: N818 - an outcome, named as people say it
    """A program ended with an error; the message holds its last words."""


def run(
    command: Sequence[str | Path],
    *,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Run a program to its end and return what it wrote to its output.

    Args:
        command: the program and its arguments.
        text: handed to its input.
        environment: added to this process's.
        folder: where it runs.

    Raises:
        CommandFailed: It ended with an error.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        last_words = (done.stderr or done.stdout).strip()[-2000:]
        raise CommandFailed(f"{' '.join(words)[:200]} ended with {done.returncode}:\n{last_words}")
    return done.stdout


def confined(command: Sequence[str | Path]) -> list[str]:
    """Give a command mounts and processes of its own, which all end with this process."""
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *map(str, command),
    ]


def wait_for[T](what: str, look: Callable[[], T], seconds: float, pause: float = 0.4) -> T:
    """Look until there is something, and return it.

    Args:
        what: named when it does not come.
        look: returns something true once it is there; a ``CommandFailed`` of it counts as not yet.
        seconds: how long to look.
        pause: seconds between two looks.

    Raises:
        ServiceUnreachable: It did not come in time; the last failure is quoted.
    """
    end, last = time.monotonic() + seconds, ""
    while True:
        try:
            if found := look():
                return found
        except CommandFailed as error:
            last = str(error)
        if time.monotonic() > end:
            raise ServiceUnreachable(f"{what}: not there after {seconds:.0f} s. {last}")
        time.sleep(pause)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Tell how long something took."""
    started = time.monotonic()
    yield
    tell(f"{what} ({time.monotonic() - started:.1f} s)")


def tell(message: str) -> None:
    """Tell the reader one thing, also where pytest holds back what tests write."""
    stream = sys.__stderr__ or sys.stderr
    stream.write(f"{TOLD}{message}\n")
    stream.flush()
