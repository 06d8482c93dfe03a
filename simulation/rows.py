"""Tables as plain arrays: rows that can be joined and taken, and labels for codes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit.errors import UsageError


@dataclass
class Rows:
    """A table whose fields are arrays of one length along their first axis."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def joined_with(self, *others: Self) -> Self:
        """These rows, then the rows of ``others``."""
        tables = (self, *others)
        return type(self)(
            *(np.concatenate([getattr(t, f.name) for t in tables]) for f in fields(self))
        )

    def take(self, rows: NDArray[Any]) -> Self:
        """The rows at some indices, or where a mask holds."""
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))


def labels(names: Sequence[str], codes: NDArray[Any]) -> pa.Array:
    """The strings that codes stand for; -1 is null."""
    return pa.array(names, pa.string()).take(pa.array(codes, pa.int64(), mask=codes < 0))


def row_of(name: str, prefix: str) -> int:
    """The row that an id stands for.

    Raises:
        UsageError: It is not an id of that kind.
    """
    number = name.removeprefix(prefix)
    if number == name or not (number.isascii() and number.isdigit()):
        raise UsageError(f"{name!r} is not a simulated id; those start with {prefix!r}")
    return int(number)
