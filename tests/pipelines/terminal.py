"""A terminal for a command under test: a pty, and the screen that it would show."""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from typing import Self

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+|\x1b.")


def take_interrupts() -> None:
    """Let SIGINT interrupt this process, also if the shell that runs the tests ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _take_terminal() -> None:
    take_interrupts()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class TerminalCommand:
    """``python -m pipelines.cli <arguments>`` on a terminal of its own; end it as a context.

    Args:
        arguments: Of the command.
        size: Columns and rows.
        variables: Environment variables beside those of this process.
        code: Python code to run instead of the command.
    """

    def __init__(
        self,
        *arguments: object,
        size: tuple[int, int] = (80, 24),
        variables: Mapping[str, str] | None = None,
        code: str = "",
    ) -> None:
        words = ["-c", code] if code else ["-m", "pipelines.cli", *map(str, arguments)]
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        environment = {
            **{name: value for name, value in os.environ.items() if name != "COLUMNS"},
            "TERM": "xterm-256color",
            **(variables or {}),
        }
        self.columns, self.output = size[0], ""
        self._terminal = ours
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._process = subprocess.Popen(
            [sys.executable, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._terminal)

    def press(self, keys: str) -> None:
        """Type on the terminal; ``\\x03`` is Ctrl-C."""
        os.write(self._terminal, keys.encode())

    def signal(self, number: int) -> None:
        """Signal the command alone."""
        self._process.send_signal(number)

    def wait_for(self, happened: Callable[[str], object], seconds: float = 120.0) -> str:
        """Read until the screen is as ``happened`` wants it; returns the screen."""
        deadline = time.monotonic() + seconds
        while not happened(self.screen):
            assert self._read(), f"the command has ended:\n{self.screen}"
            assert time.monotonic() < deadline, f"it did not happen in time:\n{self.screen}"
        return self.screen

    def wait(self, seconds: float = 240.0) -> int:
        """Read until the command ends; returns its exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, f"it did not end in time:\n{self.screen}"
        return self._process.wait()

    def _read(self) -> bool:
        """Read what is there; False at the end."""
        readable, _, _ = select.select([self._terminal], [], [], 0.2)
        if not readable:
            return True
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # Linux's end of file on a terminal
            return False
        self.output += self._decoder.decode(data)
        return bool(data)

    @property
    def screen(self) -> str:
        """The lines that the terminal shows, those that have scrolled away included."""
        return "\n".join(line.rstrip() for line in render(self.output)).rstrip()


def render(output: str) -> list[str]:
    """Play a terminal's control sequences, as far as rich uses them."""
    lines, row, column = [""], 0, 0
    for token in _CONTROL.findall(output):
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif token.startswith("\x1b["):
            count, kind = int(re.sub(r"\D", "", token) or 1), token[-1]
            if kind == "A":
                row = max(row - count, 0)
            elif kind == "K":
                lines[row] = ""
        elif not token.startswith("\x1b"):
            end = column + len(token)
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][end:]
            column = end
    return lines
