"""Vectors for lines of the stock feed, by the encoders of a bundle.

A server reads a listing that is newer than its bundle from the stock feed, and does not encode it
itself: models and pictures have no place in the processes that answer requests. Whoever writes the
feed encodes the listing, in this way.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.encoding.contents import contents_of
from components.encoding.encoder import (
    Encoder,
    FoundEncoder,
    cut_vectors,
    encode_checked,
    finding,
    to_unit,
)
from components.encoding.pictures import PictureReader, Unread
from components.encoding.plan import encoders_of
from components.encoding.settings import EncodingSettings
from refit.encoding import ENCODER_VERSION, ItemEncoding
from refit.errors import UsageError
from refit.progress import log_message

Line = Mapping[str, Any]


class LineEncoder:
    """Adds vectors to lines; a context manager, which holds the encoders' files.

    Args:
        encoding: The encoding of the bundle that will read the lines.
        settings: Where the encoders are now, and bounds.

    Raises:
        UsageError: An encoder cannot be loaded, or is not the bundle's.
        ServiceUnreachable: The URL of one cannot be read.
    """

    def __init__(self, encoding: ItemEncoding, settings: EncodingSettings) -> None:
        self._encoding = encoding
        self._settings = encoders_of(encoding, settings)
        self._stack = ExitStack()
        self._open: list[tuple[FoundEncoder, Encoder, int]] = []

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            parts = [part for part in self._encoding.parts if part.reads != "vector"]
            for each, part in zip(self._settings.encoders, parts, strict=True):
                found = opening.enter_context(finding(each))
                encoder = found.open(self._settings)
                if found.describe(encoder.size).version != part.version:
                    raise UsageError(
                        f"{found.name} gives other vectors than those of the bundle: its code has"
                        " another version; use the state of Refit that built the bundle"
                    )
                self._open.append((found, encoder, part.size))
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def encode(self, lines: Sequence[Line]) -> list[dict[str, Any]]:
        """Add a vector to each line that has everything the encoders read.

        Those are the ``listed`` lines, and of others those that name all columns that are read: an
        edit of one text says nothing of the others. A listing with nothing to encode gets none, and
        the server will refuse it.
        """
        wanted = [number for number, line in enumerate(lines) if self._has_all(line)]
        done = [dict(line) for line in lines]
        if not wanted:
            return done
        vectors = self._encode([lines[number] for number in wanted])
        for number, vector in zip(wanted, vectors, strict=True):
            for name in self._settings.keep:
                done[number].pop(name, None)
            if vector.any():
                done[number][self._encoding.column] = vector.tolist()
                done[number][ENCODER_VERSION] = self._encoding.encoder_version
        return done

    def _has_all(self, line: Line) -> bool:
        read = {name for each in self._settings.encoders for name in each.read_columns}
        return line.get("change") == "listed" or {*read, *self._settings.keep} <= line.keys()

    def _encode(self, lines: Sequence[Line]) -> NDArray[np.float32]:
        parts = []
        for found, encoder, size in self._open:
            columns = {
                name: pa.array([_text(line.get(name)) for line in lines], pa.string())
                for name in found.settings.read_columns
            }
            contents = contents_of(found.settings, pa.RecordBatch.from_pydict(columns))
            values = [None if content is None else content.value for content in contents]
            if found.kind.READS == "picture":
                values = self._read_pictures(found, values)
            parts.append(_encode_there(found, encoder, values, size))
        kept = [part for part in self._encoding.parts if part.reads == "vector"]
        parts += [_kept_vectors(lines, part.encoder, part.size) for part in kept]
        return np.concatenate(parts, axis=1)

    def _read_pictures(self, found: FoundEncoder, places: Sequence[str | None]) -> list[Any]:
        reader = PictureReader(found.settings.picture_roots, self._settings)
        pictures = []
        for place in places:
            picture = None if place is None else reader.read(place)
            if isinstance(picture, Unread):
                log_message(f"{place} is not read: {picture.reason}")
                picture = None
            pictures.append(picture)
        return pictures


def _encode_there(
    found: FoundEncoder, encoder: Encoder, values: Sequence[Any], size: int
) -> NDArray[np.float32]:
    """[B, size] vectors; zeros where there is no value."""
    vectors = np.zeros((len(values), encoder.size), dtype=np.float32)
    there = [number for number, value in enumerate(values) if value is not None]
    step = found.settings.batch_size
    for start in range(0, len(there), step):
        rows = there[start : start + step]
        vectors[rows] = encode_checked(encoder, found.name, [values[row] for row in rows])
    return cut_vectors(vectors, size)


def _kept_vectors(lines: Sequence[Line], name: str, size: int) -> NDArray[np.float32]:
    vectors = np.zeros((len(lines), size), dtype=np.float32)
    for number, line in enumerate(lines):
        if (value := line.get(name)) is not None:
            if not isinstance(value, list) or len(value) != size:
                raise UsageError(
                    f"{line.get('item_id')}: {name} must be a vector of {size} numbers"
                )
            vectors[number] = value
    return to_unit(vectors)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
