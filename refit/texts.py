"""Texts and their numbers in plain arrays, which may be mapped into memory from a file.

A dictionary of two million ids takes several hundred MB in every process. These arrays take about
40 bytes for each text, once for all processes that map the file, and nothing has to be built when
it is opened.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Slots = NDArray[np.int32]


class TextList(Sequence[str]):
    """T texts.

    Args:
        array: [T] Arrow strings, none of them null.
    """

    def __init__(self, array: pa.StringArray) -> None:
        _, offsets, data = array.buffers()
        self.array = array  # owns the memory that the views below point at
        views = memoryview(offsets if offsets is not None else bytes(4)).cast("B").cast("i")
        self._offsets = views[array.offset : array.offset + len(array) + 1]
        self._data = memoryview(data if data is not None else b"").cast("B")
        self._size = len(array)

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, number: int) -> str: ...

    @overload
    def __getitem__(self, number: slice) -> list[str]: ...

    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return list(self.array[number].to_pylist())
        if not 0 <= number < self._size:
            raise IndexError(number)
        return str(self._data[self._offsets[number] : self._offsets[number + 1]], "utf-8")

    def __iter__(self) -> Iterator[str]:
        return iter(self.array.to_pylist())

    def is_equal(self, number: int, text: bytes) -> bool:
        """Whether the text of a number is this one, in UTF-8."""
        start, stop = self._offsets[number], self._offsets[number + 1]
        return stop - start == len(text) and self._data[start:stop] == text


class Texts(Mapping[str, int]):
    """The number of each of T distinct texts; they are numbered in their order.

    Args:
        array: Arrow strings, none of them null; the first ``size`` of them are the texts.
        slots: What ``hash_texts`` returned for the whole array.
        size: T; None for all.
    """

    def __init__(self, array: pa.StringArray, slots: Slots, size: int | None = None) -> None:
        self._all, self._hashed = TextList(array), slots
        self._slots = memoryview(slots)
        self._mask = len(slots) - 1
        self._size = len(array) if size is None else size
        self.texts = self._all if size is None else TextList(array.slice(0, size))

    def first(self, size: int) -> "Texts":
        """The same for the first texts alone."""
        return Texts(self._all.array, self._hashed, size)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __getitem__(self, text: str) -> int:
        number = self.find(text)
        if number is None:
            raise KeyError(text)
        return number

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self.find(text) is not None

    def get(self, text: str, default: Any = None) -> Any:
        """The number of a text; ``default`` where it is none of them."""
        number = self.find(text)
        return default if number is None else number

    def find(self, text: str) -> int | None:
        """The number of a text; None where it is none of them."""
        # Half of a surrogate pair, which JSON may contain, is encoded too; no stored text has one.
        wanted = text.encode("utf-8", "surrogatepass")
        slot = zlib.crc32(wanted) & self._mask
        while (number := self._slots[slot]) >= 0:
            if self._all.is_equal(number, wanted):
                return number if number < self._size else None
            slot = (slot + 1) & self._mask
        return None


def hash_texts(texts: pa.Array) -> Slots:
    """[S] a hash table with linear probing: numbers of texts by the checksum of their UTF-8.

    S is a power of two, and at least a third of the slots are empty (-1).
    """
    n = len(texts)
    size = 1 << (n + n // 2).bit_length()
    hashes = np.fromiter(map(zlib.crc32, texts.cast(pa.binary()).to_pylist()), np.int64, n)
    slots = np.full(size, -1, dtype=np.int32)
    waiting, place = np.arange(n, dtype=np.int32), hashes & (size - 1)
    while len(waiting):
        free = slots[place] < 0
        # Of several that want a place, the first is written last and stays.
        slots[place[free][::-1]] = waiting[free][::-1]
        placed = slots[place] == waiting
        waiting, place = waiting[~placed], (place[~placed] + 1) & (size - 1)
    return slots
