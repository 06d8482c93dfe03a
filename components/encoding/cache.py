"""The vectors that earlier runs made, by content: a run encodes only what is new.

Below a folder or URL that runs share, each version of an encoder has a folder with parts, Parquet
files that are written once, whole or not at all. A row is the key of a content, a hash, and its
vector, scaled to length 1, in 16 bits. Runs may write at the same time; two of them may have
encoded the same content, which does no harm. Everything here can be made again, so a part that
cannot be read is as good as none, and the folder may be deleted at any time.
"""

import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.progress import log_message
from refit.remote import open_store, put_whole, remove_files

KEY_BYTES = 16
PART_ROWS = 65_536
SMALL_PARTS = 64
"""So many parts of less than half the rows are merged."""
_PREFIX, _SUFFIX = "vectors-", ".parquet"

Keys = NDArray[np.bytes_]
"""[N] of ``KEY_BYTES`` bytes each, sorted and distinct where they are looked up."""


class VectorCache:
    """The vectors of one version of an encoder.

    Args:
        place: Folder or URL of all caches; empty keeps nothing.
        name: Name of the encoder's own folder in it.
    """

    def __init__(self, place: str, name: str) -> None:
        self._place = place
        self._sizes: dict[str, int] = {}
        if place:
            with self._translated():
                self._store, root = open_store(place)
            self._root = f"{root.rstrip('/')}/{name}"

    def fill(self, keys: Keys, vectors: NDArray[np.float16], found: NDArray[np.bool_]) -> None:
        """Fill in the vectors that are known, and mark them as found.

        Args:
            keys: [N] keys, sorted and distinct.
            vectors: [N, V] the vectors to fill in.
            found: [N] which are found; those that are already are left.

        Raises:
            ServiceUnreachable: The store does not answer.
        """
        if not self._place or not len(keys):
            return
        seen: set[str] = set()
        # A part may be merged away between being listed and being read; its rows are in another.
        for _ in range(2):
            fresh = [path for path in self._list() if path not in seen]
            for path in fresh:
                seen.add(path)
                self._fill_from(path, keys, vectors, found)

    def add(self, keys: Keys, vectors: NDArray[np.float16]) -> None:
        """Keep the vectors of new contents, as one part.

        Args:
            keys: [N] keys, distinct.
            vectors: [N, V].

        Raises:
            ServiceUnreachable: The store cannot be written.
        """
        if not self._place or not len(keys):
            return
        path = f"{self._root}/{_PREFIX}{uuid.uuid4().hex}{_SUFFIX}"
        with self._translated():
            put_whole(self._store, _to_parquet(keys, vectors), path)
        self._sizes[path] = len(keys)

    def merge(self) -> None:
        """Merge small parts, if there are many.

        Raises:
            ServiceUnreachable: The store does not answer.
        """
        small = sorted(path for path, rows in self._sizes.items() if rows < PART_ROWS // 2)
        if not self._place or len(small) < SMALL_PARTS:
            return
        merged: list[str] = []
        waiting: list[tuple[Keys, NDArray[np.float16]]] = []
        with self._translated():
            for path in small:
                if (part := self._read(path)) is not None:
                    waiting.append(part)
                    merged.append(path)
                if sum(len(keys) for keys, _ in waiting) >= PART_ROWS:
                    self._merge(waiting, merged)
                    waiting, merged = [], []
            self._merge(waiting, merged)

    def _merge(self, parts: list[tuple[Keys, NDArray[np.float16]]], paths: list[str]) -> None:
        if len(parts) < 2:
            return
        keys = np.concatenate([one for one, _ in parts])
        vectors = np.concatenate([one for _, one in parts])
        keys, first = np.unique(keys, return_index=True)
        self.add(keys, vectors[first])
        remove_files(self._store, paths)
        for path in paths:
            del self._sizes[path]

    def _list(self) -> list[str]:
        with self._translated():
            if not self._store.exists(self._root):
                return []
            names = self._store.ls(self._root, detail=False)
        found = (str(name) for name in names)
        return sorted(
            name
            for name in found
            if name.rpartition("/")[2].startswith(_PREFIX) and name.endswith(_SUFFIX)
        )

    def _fill_from(
        self, path: str, keys: Keys, vectors: NDArray[np.float16], found: NDArray[np.bool_]
    ) -> None:
        with self._translated():
            part = self._read(path, keys, found)
        if part is None:
            return
        theirs, values = part
        place = np.minimum(np.searchsorted(keys, theirs), len(keys) - 1)
        if not len(theirs):
            return
        if values.shape[1] != vectors.shape[1]:
            log_message(f"{path} holds vectors of another length; they are made again")
            return
        vectors[place] = values
        found[place] = True

    def _read(
        self, path: str, wanted: Keys | None = None, found: NDArray[np.bool_] | None = None
    ) -> tuple[Keys, NDArray[np.float16]] | None:
        """The keys and vectors of a part; only those that are wanted and not found yet."""
        try:
            with self._store.open(path, "rb") as file, pq.ParquetFile(file) as part:
                self._sizes[path] = part.metadata.num_rows
                keys = _bytes_of(part.read(["key"])["key"], f"S{KEY_BYTES}")
                chosen = np.ones(len(keys), dtype=np.bool_)
                if wanted is not None and found is not None:
                    place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
                    chosen = (wanted[place] == keys) & ~found[place]
                if not chosen.any():
                    return keys[:0], np.empty((0, 0), np.float16)
                values = part.read(["vector"])["vector"]
                rows = _bytes_of(values, np.float16).reshape(len(keys), -1)
                return keys[chosen], rows[chosen]
        except FileNotFoundError:
            self._sizes.pop(path, None)
            return None
        except (pa.ArrowException, KeyError, ValueError) as error:
            self._sizes.pop(path, None)
            log_message(f"{path} cannot be read, its vectors are made again: {error}")
            return None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except RefitError:
            raise
        except (ValueError, ImportError) as error:
            raise UsageError(f"the store of vectors {self._place}: {error}") from error
        except Exception as error:  # clients of stores have errors of their own
            raise ServiceUnreachable(
                f"the store of vectors {self._place} cannot be used: {error}"
            ) from error


def _to_parquet(keys: Keys, vectors: NDArray[np.float16]) -> bytes:
    width = vectors.shape[1] * vectors.itemsize
    columns = {
        "key": _fixed(keys.astype(f"S{KEY_BYTES}").tobytes(), KEY_BYTES),
        "vector": _fixed(np.ascontiguousarray(vectors).tobytes(), width),
    }
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(columns),
        buffer,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        row_group_size=PART_ROWS,
    )
    return buffer.getvalue()


def _fixed(content: bytes, width: int) -> pa.Array:
    rows = len(content) // width
    return pa.Array.from_buffers(pa.binary(width), rows, [None, pa.py_buffer(content)])


def _bytes_of(column: pa.ChunkedArray, dtype: Any) -> NDArray[Any]:
    """The values of a column of fixed width, without a copy where it has one chunk."""
    parts = []
    for chunk in column.chunks:
        width = chunk.type.byte_width
        content = chunk.buffers()[1][chunk.offset * width : (chunk.offset + len(chunk)) * width]
        parts.append(np.frombuffer(content, dtype=dtype))
    return np.concatenate(parts) if len(parts) != 1 else parts[0]
