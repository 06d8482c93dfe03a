"""What each kill showed, as a line of a file, so that a run that was cut off goes on there."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from refit.progress import log_message
from tests.benchmarks.live.served import Seen, Tally

AFTERWARDS = ""
"""In the place of a process: what was seen after the last kill of a run."""


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        process: What was killed.
        took: Seconds until all of it was back.
        seen: What askers saw since the kill before.
    """

    process: str
    took: float
    seen: Seen


class KillRecord:
    """The kills of one part, of this run and of those before it.

    Args:
        part: Names the part.
        folder: Where the kills are noted, and read from at the start; None keeps none.
        wanted: How many of each process there will be.
    """

    def __init__(self, part: str, folder: Path | None, wanted: int) -> None:
        self._part, self._wanted = part, wanted
        self._file = folder / f"{part}.jsonl" if folder else None
        self.kills = list(_read(self._file)) if self._file and self._file.exists() else []

    def count(self, process: str) -> int:
        """How often a process was killed."""
        return sum(kill.process == process for kill in self.kills)

    def took(self, process: str) -> list[float]:
        """The seconds of each of its kills."""
        return [kill.took for kill in self.kills if kill.process == process]

    @property
    def seen(self) -> Seen:
        """What askers saw in all runs."""
        return Seen.join([kill.seen for kill in self.kills])

    def add(self, process: str, took: float, tally: Tally) -> None:
        """Note one kill, and report it."""
        self._write(Kill(process, took, tally.take()))
        seen = self.seen
        log_message(
            f"{self._part}: {process} {self.count(process)} of {self._wanted}, back after "
            f"{took:.1f} s; {seen.answers:,} answers, {len(seen.failed):,} failed"
        )

    def end(self, tally: Tally) -> None:
        """Note what was seen after the last kill."""
        self._write(Kill(AFTERWARDS, 0.0, tally.take()))

    def _write(self, kill: Kill) -> None:
        self.kills.append(kill)
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a+b") as file:
                file.write(_end_of_line(file) + json.dumps(asdict(kill)).encode() + b"\n")


def _end_of_line(file: BinaryIO) -> bytes:
    """What the last line lacks, if a kill cut it off."""
    if not file.tell():
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read() == b"\n" else b"\n"


def _read(file: Path) -> Iterator[Kill]:
    for line in file.read_text("utf-8").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue  # cut off while it was written
        yield Kill(found["process"], found["took"], Seen(**found["seen"]))
