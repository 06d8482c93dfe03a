"""A shell that types a page's commands one after the other, and sees what a person would see."""

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_SECONDS = 400.0
SERVER_SECONDS = 120.0
_END = re.compile(r"\x01(\d+)\x02\r?\n")
_FRAMES = re.compile(r"[\u2500-\u257f]+")  # lines and corners of tables
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Shell:
    """Bash in a folder; its commands write to a plain terminal, 160 columns wide."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._terminal, child = pty.openpty()
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env={**environment, "TERM": "dumb", "COLUMNS": "160", "LINES": "50"},
            stdin=subprocess.PIPE,
            stdout=child,
            stderr=child,
            start_new_session=True,
        )
        os.close(child)
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.run("kill %% 2>/dev/null; wait")
        finally:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(timeout=30)
            os.close(self._terminal)

    def run(self, command: str) -> tuple[int, str]:
        """Type a command; its exit code and what it wrote."""
        self._type(f"{command}\nprintf '\\001%d\\002\\n' $?\n")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (end := _END.search(self._said)):
            self._read(deadline)
        said, self._said = self._said[: end.start()], self._said[end.end() :]
        return int(end[1]), said

    def start(self, command: str, expected: str) -> None:
        """Type a command that ends in ``&``, and wait until it has written what is expected."""
        self._type(f"{command}\n")
        deadline = time.monotonic() + SERVER_SECONDS
        while not fits(expected, self._said):
            self._read(deadline)
        self._said = ""

    def _type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def _read(self, deadline: float) -> None:
        ready, _, _ = select.select([self._terminal], [], [], 1.0)
        if ready:
            self._said += os.read(self._terminal, 1 << 16).decode(errors="replace")
        elif time.monotonic() > deadline:
            raise TimeoutError(f"nothing more came after: {self._said[-2000:]}")


def fits(expected: str, said: str) -> bool:
    """Whether output is what a page shows.

    ``...`` stands for anything, also for several lines. How tables are drawn and how wide their
    columns are does not count.
    """
    parts = (re.escape(_words(part).strip()) for part in expected.split("..."))
    return re.fullmatch(r"\s*" + ".*?".join(parts) + r"\s*", _words(said), re.DOTALL) is not None


def _words(text: str) -> str:
    return re.sub(r"\s+", " ", _FRAMES.sub(" ", _CONTROL.sub("", text)))
