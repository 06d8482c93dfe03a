"""Frame: sampled rows as named columns, and functions that read the cells of a column.

A cell holds a number, a string, a list of values or a vector. A cell is missing when it is null,
NaN or "", and a vector is missing when it has another length than expected or is not finite.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit.errors import DataValidationError

Array = NDArray[Any]
Encoded = tuple[Array, NDArray[np.int64]]
"""Encoded rows, the first axis being rows, and their positions within the frame."""


@dataclass(frozen=True)
class Frame:
    """Columns of equal length.

    Attributes:
        columns: Arrays [n] by name; strings, lists and vectors are object arrays.
        day: [n] the day number of each row, -1 where it is unknown.
        lacking: Columns that could not be built, with the reason.
    """

    columns: Mapping[str, Array]
    day: NDArray[np.int64]
    lacking: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.day)

    def column(self, name: str) -> Array:
        """The column ``name``.

        Raises:
            DataValidationError: The frame does not have it.
        """
        if name in self.lacking:
            raise DataValidationError(self.lacking[name])
        if name not in self.columns:
            have = ", ".join(sorted(self.columns)) or "no columns"
            raise DataValidationError(f"column {name!r} is missing; there are: {have}")
        return self.columns[name]


def is_missing(cells: Array, length: int | None = None) -> NDArray[np.bool_]:
    """[n] which cells are missing; with ``length`` the cells are vectors."""
    if cells.dtype != object:
        return np.isnan(cells) if cells.dtype.kind == "f" else np.zeros(len(cells), dtype=bool)
    return np.fromiter((_is_missing(cell, length) for cell in cells), bool, len(cells))


def _is_missing(value: Any, length: int | None = None) -> bool:
    if length is not None:
        return value is None or len(value) != length or not np.isfinite(value).all()
    return value is None or (isinstance(value, float) and value != value) or value == ""


def read_numbers(frame: Frame, column: str) -> Encoded:
    """[m] the finite numbers of a column, and their positions.

    Raises:
        DataValidationError: The column is missing or does not hold numbers.
    """
    try:
        numbers = np.asarray(frame.column(column), dtype=np.float64)
    except (TypeError, ValueError):
        raise DataValidationError(f"column {column!r} does not hold numbers") from None
    positions = np.flatnonzero(np.isfinite(numbers))
    return numbers[positions], positions


def read_vectors(cells: Array, length: int) -> Encoded:
    """[m, length] the vectors that are not missing, and their positions."""
    positions = np.flatnonzero(~is_missing(cells, length))
    if not len(positions):
        return np.empty((0, length)), positions
    return np.stack(list(cells[positions])).astype(np.float64), positions


def list_values(cell: Any) -> list[Any]:
    """The values of a cell that holds one or a list of them, without missing ones."""
    cells = cell if isinstance(cell, list | tuple | np.ndarray) else (cell,)
    return [value for value in cells if not _is_missing(value)]


def count_values(cells: Array) -> Counter[str]:
    """How often each value occurs, as strings."""
    counts: Counter[str] = Counter()
    for cell in cells:
        counts.update(str(value) for value in list_values(cell))
    return counts


def share_values(cells: Array) -> dict[str, float]:
    """The share of each value among all values."""
    counts = count_values(cells)
    total = counts.total()
    return {value: count / total for value, count in counts.items()}


def find_frequent_values(cells: Array, most: int) -> tuple[str, ...]:
    """The ``most`` most frequent values, the most frequent first."""
    return tuple(value for value, _ in count_values(cells).most_common(most))


def find_vector_length(cells: Array) -> int:
    """The most frequent length of the vectors in a column, 0 where it holds none."""
    lengths = Counter(len(cell) for cell in cells if isinstance(cell, np.ndarray))
    return lengths.most_common(1)[0][0] if lengths else 0


def require_vector_length(frame: Frame, column: str) -> int:
    """The most frequent length of the vectors in a column.

    Raises:
        DataValidationError: The column is missing or holds no vectors.
    """
    length = find_vector_length(frame.column(column))
    if not length:
        raise DataValidationError(f"column {column!r} does not hold vectors")
    return length


def pad_rows(rows: Sequence[Sequence[int]], width: int) -> Encoded:
    """[m, width] the rows that are not empty, padded with -1, and their positions."""
    codes = np.full((len(rows), width), -1, dtype=np.int64)
    for position, row in enumerate(rows):
        codes[position, : len(row)] = row[:width]
    positions = np.flatnonzero((codes >= 0).any(axis=1))
    return codes[positions], positions
