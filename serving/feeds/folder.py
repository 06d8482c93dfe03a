"""A feed as a folder of append-only JSON lines files, ``*.jsonl``.

Files are known by what they are, not by their names: one that is renamed or removed is read to its
end first, and one that is written anew under its old name, even if it has grown beyond the old
length, is read from its start.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from refit.progress import log_message
from serving.feeds.feed import MAX_LINE_BYTES, Line, Position

HEAD_BYTES = 256
"""So many first bytes tell whether a file was written anew."""
KEEP_SECONDS = 60.0
"""So long a file that was renamed or removed is still read, since its writer may go on."""

_FileId = tuple[int, int]


@dataclass
class _OpenFile:
    """A file that is read, and how far.

    Attributes:
        skips: Whether the line at ``offset`` is the rest of one that is too long.
        gone_at: When its name was first missing.
        seen: How much of it was there at the last look, with a last line without its end.
    """

    path: Path
    file: BinaryIO
    offset: int = 0
    head: bytes = b""
    skips: bool = False
    gone_at: float | None = None
    seen: int = 0

    @property
    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def read_head(self) -> bytes:
        """The first bytes, as far as the file was read."""
        self.file.seek(0)
        return self.file.read(min(HEAD_BYTES, self.offset))


@dataclass
class FolderFeed:
    """A feed in a folder; see ``serving.feeds.feed.LiveFeed``.

    Args:
        folder: The folder; it need not exist yet.
    """

    folder: str | Path
    gaps: int = 0
    _files: dict[_FileId, _OpenFile] = field(default_factory=dict)
    _resumed: dict[str, Any] = field(default_factory=dict)
    _told: dict[Path, str] = field(default_factory=dict)

    def read(self) -> Iterator[Line]:
        """The lines since the last call, file by file in the order of their names.

        A last line without its end is still being written and is left for the next call. A file
        that cannot be read is skipped, and tried again at the next call.
        """
        self._find_files()
        for one in sorted(self._files.values(), key=lambda one: one.path):
            try:
                yield from self._read(one)
            except OSError as error:
                self._tell(one.path, error)
        self._forget_removed()

    @property
    def behind(self) -> int:
        """Bytes that came since the last look; a line without its end is looked at."""
        files = self._files.values()
        return sum(max(one.size - max(one.offset, one.seen), 0) for one in files)

    @property
    def positions(self) -> dict[str, Any]:
        """Offset of each file and a checksum of its first bytes, which may name people."""
        return {
            one.path.name: {"offset": one.offset, "head": len(one.head), "sha256": _hash(one.head)}
            for one in self._files.values()
        }

    def resume(self, positions: Mapping[str, Any]) -> None:
        """Go on from earlier positions; a file that begins otherwise is read from its start."""
        self._resumed.update(positions)

    def close(self) -> None:
        """Close the files."""
        for one in self._files.values():
            one.file.close()
        self._files.clear()

    def _find_files(self) -> None:
        there: set[_FileId] = set()
        for path in Path(self.folder).glob("*.jsonl"):
            try:
                state = path.stat()
                name = (state.st_dev, state.st_ino)
                if name not in self._files:
                    self._files[name] = self._open(path)
            except OSError as error:
                self._tell(path, error)
                continue
            self._files[name].path, self._files[name].gone_at = path, None
            there.add(name)
        for name in self._files.keys() - there:
            self._files[name].gone_at = self._files[name].gone_at or time.monotonic()

    def _open(self, path: Path) -> _OpenFile:
        one, known = _OpenFile(path, path.open("rb")), self._resumed.pop(path.name, None)
        if known is not None and one.size >= known["offset"]:
            one.offset = known["offset"]
            head = one.read_head()[: known["head"]]
            if _hash(head) == known["sha256"]:
                one.head = head
            else:
                one.offset = 0
        return one

    def _tell(self, path: Path, error: OSError) -> None:
        """Log an error once, not at every read."""
        if self._told.get(path) != str(error):
            self._told[path] = str(error)
            log_message(f"feed: {path} cannot be read: {error}")

    def _forget_removed(self) -> None:
        for name, one in list(self._files.items()):
            if one.gone_at is not None and time.monotonic() > one.gone_at + KEEP_SECONDS:
                one.file.close()
                del self._files[name]

    def _read(self, one: _OpenFile) -> Iterator[Line]:
        if one.size == max(one.offset, one.seen):
            return
        if one.size < one.offset or not one.read_head().startswith(one.head):
            log_message(f"feed: {one.path} was written anew; it is read from its start")
            self.gaps += 1
            one.offset, one.seen, one.head, one.skips = 0, 0, b"", False
        while True:
            one.file.seek(one.offset)
            line = one.file.readline(MAX_LINE_BYTES)
            is_whole = line.endswith(b"\n")
            if not is_whole and len(line) < MAX_LINE_BYTES:
                one.seen = one.offset + len(line)
                break
            if line.strip() and not one.skips:
                fault = "" if is_whole else f"longer than {MAX_LINE_BYTES} bytes"
                yield Line(line.rstrip(b"\r\n"), Position(one.path.name, one.offset), fault)
            one.skips = not is_whole
            one.offset += len(line)
        one.head = one.read_head()


def _hash(head: bytes) -> str:
    return hashlib.sha256(head).hexdigest()
