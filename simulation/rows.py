"""Tables as arrays: rows that can be concatenated and selected, and labels of codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit.errors import UsageError


@dataclass
class Rows:
    """A table whose fields are arrays of the same length along their first axis."""

    @property
    def _names(self) -> list[str]:
        return list(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(getattr(self, self._names[0]))

    def joined_with(self, *others: Self) -> Self:
        """Return these rows followed by the rows of ``others``."""
        tables = (self, *others)
        return type(self)(*(np.concatenate([getattr(t, n) for t in tables]) for n in self._names))

    def take(self, rows: NDArray[Any] | slice) -> Self:
        """Return the rows at some indices, where a mask is true, or in a slice."""
        return type(self)(*(getattr(self, name)[rows] for name in self._names))


def labels(names: Sequence[str], codes: NDArray[Any]) -> pa.Array:
    """[N] ``names`` at the indices ``codes`` [N]; -1 is null."""
    return pa.array(names, pa.string()).take(pa.array(codes, pa.int64(), mask=codes < 0))


def row_of(name: str, prefix: str) -> int:
    """Parse the row number from an id.

    Raises:
        UsageError: It is not an id with this prefix.
    """
    number = name.removeprefix(prefix)
    if number == name or not (number.isascii() and number.isdigit()):
        raise UsageError(f"{name!r} is not a simulated id; those start with {prefix!r}")
    return int(number)
