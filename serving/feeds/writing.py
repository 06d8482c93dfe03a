"""Writing lines to a feed: when a call returns, its lines are safe."""

import os
import threading
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from refit.errors import ServiceUnreachable


class FeedWriter(Protocol):
    """Appends lines to a feed; threads may share it."""

    def append(self, lines: Sequence[tuple[str, bytes]]) -> None:
        """Append lines, each with the key whose lines stay in order, and wait until they are safe.

        Raises:
            ServiceUnreachable: They are not; some may be there, so append all of them again.
        """
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...


class FolderWriter:
    """Writes to a file of its own in a feed's folder, a new one each day.

    Nobody else writes to the file, so that no line is ever appended to half of another one.

    Args:
        folder: The folder; it is made when the first line comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._day = ""
        self._lock = threading.Lock()

    def append(self, lines: Sequence[tuple[str, bytes]]) -> None:
        """Append lines and wait until the disk has them; see ``FeedWriter``."""
        text = b"".join(content + b"\n" for _, content in lines)
        with self._lock:
            try:
                file = self._open()
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                self._drop()  # it may end with half a line
                raise ServiceUnreachable(f"{self._folder} cannot be written: {error}") from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._drop()

    def _open(self) -> BinaryIO:
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        if self._file is None or day != self._day:
            self._drop()
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{day}-{uuid.uuid4().hex[:8]}.jsonl"
            self._file, self._day = path.open("ab", buffering=0), day
        return self._file

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
