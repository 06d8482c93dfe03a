"""Frame: rows of a table with the day of each, and functions that read whole columns at once.

A cell holds a number, a string, a list of values or a vector. A cell is missing when it is null,
NaN or "", and a vector is missing when it has another length than expected or is not finite.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from refit.errors import DataValidationError

Array = NDArray[Any]
Encoded = tuple[Array, NDArray[np.int64]]
"""Features of rows, the first axis being rows, and their positions within the frame.

They may be a SciPy sparse array, which ``to_dense`` makes a dense one.
"""


class Asked:
    """What is asked of an object that never changes is computed once."""

    def once[*A, T](self, compute: Callable[[Self, *A], T], *arguments: *A) -> T:
        """``compute(self, *arguments)``, computed when it is first asked for.

        Args:
            compute: A function of a module; nobody changes what it returns.
            arguments: What it depends on besides; they are hashable.
        """
        kept: dict[Any, T] = self.__dict__.setdefault("_answers", {})
        question = (compute, arguments)
        if question not in kept:
            kept[question] = compute(self, *arguments)
        return kept[question]


@dataclass(frozen=True, eq=False)
class Frame(Asked):
    """Rows of a table.

    Attributes:
        table: The columns.
        day: [n] days since 1970 of each row, with fractions; NaN where it is unknown.
        lacking: Columns that could not be built, with the reason.
    """

    table: pa.Table
    day: NDArray[np.float64]
    lacking: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.table.column_names)

    def column(self, name: str) -> pa.Array:
        """The column ``name``.

        Raises:
            DataValidationError: The frame does not have it.
        """
        if name in self.lacking:
            raise DataValidationError(self.lacking[name])
        if name not in self.names:
            have = ", ".join(sorted(self.names)) or "no columns"
            raise DataValidationError(f"column {name!r} is missing; there are: {have}")
        return self.once(_combine_column, name)

    def take(self, rows: NDArray[np.int64]) -> "Frame":
        """The rows at some positions."""
        return Frame(self.table.take(pa.array(rows)), self.day[rows], self.lacking)


def to_dense(features: Any) -> Array:
    """[m, p] features, whether they are sparse or not."""
    dense: Array = features.toarray() if hasattr(features, "toarray") else features
    return dense


def mean_features(features: Any) -> NDArray[np.float64]:
    """[p] the mean of features [m, p], summed in double precision."""
    if hasattr(features, "indices"):
        sums = np.bincount(features.indices, features.data, minlength=features.shape[1])
        return np.asarray(sums, dtype=np.float64) / features.shape[0]
    return np.asarray(features.mean(axis=0, dtype=np.float64))


def _combine_column(frame: Frame, name: str) -> pa.Array:
    return combine(frame.table[name])


def combine(cells: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece, dictionaries and long strings as plain strings."""
    if isinstance(cells, pa.ChunkedArray):
        if cells.num_chunks == 1:  # pyarrow would copy it
            cells = cells.chunk(0)
        else:
            cells = pa.concat_arrays(cells.chunks) if cells.chunks else pa.array([], cells.type)
    kind = cells.type
    if pa.types.is_dictionary(kind):
        cells = cells.dictionary_decode()
    if pa.types.is_large_string(cells.type) or pa.types.is_string_view(cells.type):
        cells = cells.cast(pa.string())
    return cells


def is_number(cells: pa.Array) -> bool:
    """Whether a column holds numbers."""
    kind = cells.type
    return bool(
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)
    )


def is_list(cells: pa.Array) -> bool:
    """Whether a column holds lists."""
    kind = cells.type
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_vector(cells: pa.Array) -> bool:
    """Whether a column holds lists of numbers."""
    return is_list(cells) and is_number(pa.array([], cells.type.value_type))


def find_missing(cells: pa.Array, length: int = 0) -> NDArray[np.bool_]:
    """[n] which cells are missing; with ``length`` the cells are vectors of that length."""
    if length:
        found = np.ones(len(cells), dtype=bool)
        found[read_vectors(cells, length)[1]] = False
        return found
    missing = pc.is_null(cells, nan_is_null=True)
    if pa.types.is_string(cells.type):
        missing = pc.or_(missing, pc.fill_null(pc.equal(cells, ""), False))
    return np.asarray(missing.to_numpy(zero_copy_only=False), dtype=bool)


def count_missing(frame: Frame, column: str) -> int:
    """How many cells of a column are missing."""
    return int(find_missing(frame.column(column)).sum())


def read_numbers(frame: Frame, column: str) -> Encoded:
    """[m] the finite numbers of a column, and their positions.

    Raises:
        DataValidationError: The column is missing or does not hold numbers.
    """
    cells = frame.column(column)
    try:
        numbers = pc.cast(cells, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataValidationError(f"column {column!r} does not hold numbers") from None
    positions = np.flatnonzero(np.isfinite(numbers))
    return numbers[positions], positions


def read_vectors(cells: pa.Array, length: int) -> Encoded:
    """[m, length] float32 the vectors that are not missing, and their positions."""
    if not is_list(cells):
        return np.empty((0, length), dtype=np.float32), np.empty(0, dtype=np.int64)
    fits = pc.fill_null(pc.equal(pc.list_value_length(cells), length), False)
    positions = np.flatnonzero(fits.to_numpy(zero_copy_only=False))
    chosen = cells if len(positions) == len(cells) else cells.take(pa.array(positions))
    flat = pc.cast(pc.list_flatten(chosen), pa.float32(), safe=False)
    rows = flat.to_numpy(zero_copy_only=False).reshape(-1, length)
    finite = np.isfinite(rows).all(axis=1)
    return (rows, positions) if finite.all() else (rows[finite], positions[finite])


def find_vector_length(cells: pa.Array) -> int:
    """The most frequent length of the vectors in a column, 0 where it holds none."""
    if not is_vector(cells):
        return 0
    lengths = pc.value_counts(pc.drop_null(pc.list_value_length(cells))).to_pylist()
    return int(max(lengths, key=lambda each: each["counts"])["values"]) if lengths else 0


def require_vector_length(frame: Frame, column: str) -> int:
    """The most frequent length of the vectors in a column.

    Raises:
        DataValidationError: The column is missing or holds no vectors.
    """
    length = find_vector_length(frame.column(column))
    if not length:
        raise DataValidationError(f"column {column!r} does not hold vectors")
    return length


def list_values(cells: pa.Array) -> tuple[pa.Array, NDArray[np.int64]]:
    """The values of all cells as strings, without missing ones, and the row of each.

    A cell holds one value or a list of them.
    """
    if is_list(cells):
        rows = pc.list_parent_indices(cells).to_numpy(zero_copy_only=False)
        values = combine(pc.list_flatten(cells))
    else:
        rows, values = np.arange(len(cells)), cells
    there = np.flatnonzero(~find_missing(values))
    if len(there) < len(values):
        values, rows = values.take(pa.array(there)), rows[there]
    return values if pa.types.is_string(values.type) else pc.cast(values, pa.string()), rows


def count_values(cells: pa.Array) -> dict[str, int]:
    """How often each value occurs, as strings, the most frequent first."""
    counts = pc.value_counts(list_values(cells)[0])
    values, often = counts.field(0), counts.field(1)
    table = pa.table({"value": values, "often": often})
    order = pc.sort_indices(table, [("often", "descending"), ("value", "ascending")])
    return dict(zip(values.take(order).to_pylist(), often.take(order).to_pylist(), strict=True))


def count_column(frame: Frame, column: str) -> dict[str, int]:
    """How often each value of a column occurs, see ``count_values``."""
    return count_values(frame.column(column))


def share_values(cells: pa.Array) -> dict[str, float]:
    """The share of each value among all values."""
    counts = count_values(cells)
    total = sum(counts.values())
    return {value: count / total for value, count in counts.items()}


def find_frequent_values(cells: pa.Array, most: int) -> list[str]:
    """The ``most`` most frequent values, the most frequent first."""
    return list(count_values(cells))[:most]


def code_values(values: pa.Array, vocabulary: Array) -> NDArray[np.int64]:
    """[n] the position of each value in the vocabulary, -1 for those that are not in it."""
    codes = pc.index_in(values, value_set=pa.array(vocabulary.tolist(), pa.string()))
    return np.asarray(pc.fill_null(codes, -1).to_numpy(zero_copy_only=False), dtype=np.int64)


def split_into_windows(day: NDArray[np.float64], window_days: float, minimum_rows: float) -> Array:
    """[n] the number of each row's window, ascending in time from 0.

    Windows with too few rows are joined with the next, and the last one with the one before. Rows
    whose day is unknown count as older than all others.

    Args:
        day: [n] days since 1970, with fractions.
        window_days: Length of a window.
        minimum_rows: Rows that a window needs.
    """
    known = np.isfinite(day)
    block = np.floor(np.where(known, day, day[known].min(initial=0) - window_days) / window_days)
    _, inverse, counts = np.unique(block, return_inverse=True, return_counts=True)
    joined = np.zeros(len(counts), dtype=np.int64)
    total, current = 0, 0
    for position, count in enumerate(counts):
        if total >= minimum_rows:
            current, total = current + 1, 0
        joined[position] = current
        total += int(count)
    if total < minimum_rows and current:
        joined[joined == current] = current - 1
    windows: Array = joined[inverse]
    return windows
