"""Item columns as filters and eligibility rules read them: text as codes, numbers as float64."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Flags = NDArray[np.bool_]
Longs = NDArray[np.int64]

FEW_CODES = 16
"""Up to this many codes, one comparison per code is faster than a lookup table."""


class Range(BaseModel):
    """Inclusive bounds of a number; None means no bound."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a range needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")
        return self


Wanted = Sequence[str | float] | Range
"""Accepted values of a column: a list of values, or a range of numbers."""


@dataclass(frozen=True)
class Cells:
    """P cells of a [B, C] table of queries and candidates.

    Attributes:
        query: [P] row of each cell.
        position: [P] column of each cell.
    """

    query: Longs
    position: Longs

    def __len__(self) -> int:
        return len(self.query)


@dataclass(frozen=True)
class Labels:
    """A text column of C rows.

    Attributes:
        codes: [C] code of each row's text, -1 where missing.
        code_of: Code of each text.
    """

    codes: NDArray[np.int32]
    code_of: Mapping[str, int]

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray) -> Self:
        """Encode an Arrow column; values of other types are cast to text."""
        text = column.cast(pa.string())
        text = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
        encoded = text.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return cls(codes, {value: i for i, value in enumerate(encoded.dictionary.to_pylist())})

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The text of each code."""
        return tuple(self.code_of)

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> "Labels":
        """The column with only the given rows."""
        return Labels(self.codes[rows], self.code_of)

    def find_fault(self, wanted: Wanted) -> str:
        """The reason why this column cannot be compared with ``wanted``; "" if it can."""
        if isinstance(wanted, Range) or not all(isinstance(value, str) for value in wanted):
            return "must be a list of texts"
        return ""

    def matches(self, wanted: Wanted) -> Flags:
        """[C] whether each row is one of the wanted texts; a missing text never matches."""
        values = () if isinstance(wanted, Range) else wanted
        codes = {self.code_of[value] for value in values if value in self.code_of}  # type: ignore[index]
        if len(codes) <= FEW_CODES:
            flags = np.zeros(len(self.codes), dtype=np.bool_)
            for code in codes:
                flags |= self.codes == code
            return flags
        matching = np.zeros(len(self.code_of) + 1, dtype=np.bool_)  # the last one is for -1
        matching[list(codes)] = True
        return matching[self.codes]

    def find(self, texts: Sequence[str | None]) -> Cells:
        """Find the cells (query, row) in which a row equals the text of a query.

        Args:
            texts: [B] one text per query; None never matches.
        """
        order, bounds = self._by_code
        codes = [-1 if text is None else self.code_of.get(text, -1) for text in texts]
        slots = np.asarray(codes, dtype=np.int64)
        starts, stops = bounds[slots], bounds[slots + 1]
        query, entry = expand(np.where(slots < 0, stops, starts), stops)
        return Cells(query, order[entry])

    @cached_property
    def _by_code(self) -> tuple[Longs, Longs]:
        """Rows sorted by code, and the bounds of each code's rows in that order."""
        order = np.argsort(self.codes, kind="stable")
        return order, np.searchsorted(self.codes[order], np.arange(len(self.code_of) + 1))


@dataclass(frozen=True)
class Numbers:
    """A numeric column of C rows.

    Attributes:
        values: [C] float64, unrounded values of the table; NaN where missing.
    """

    values: NDArray[np.float64]

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray) -> Self:
        """Read an Arrow column of numbers."""
        filled = column.cast(pa.float64()).fill_null(float("nan"))
        return cls(np.asarray(filled.to_numpy(), dtype=np.float64))

    def take(self, rows: NDArray[np.integer[Any]]) -> "Numbers":
        """The column with only the given rows."""
        return Numbers(self.values[rows])

    def find_fault(self, wanted: Wanted) -> str:
        """The reason why this column cannot be compared with ``wanted``; "" if it can."""
        if not isinstance(wanted, Range) and any(isinstance(value, str) for value in wanted):
            return "must be a range or a list of numbers"
        return ""

    def matches(self, wanted: Wanted) -> Flags:
        """[C] whether each row is in the range, or equal to a value; NaN never matches."""
        if not isinstance(wanted, Range):
            return np.isin(self.values, np.array(wanted, dtype=np.float64))
        flags = np.asarray(self.values >= (-np.inf if wanted.min is None else wanted.min))
        if wanted.max is not None:
            flags &= self.values <= wanted.max
        return flags


Column = Labels | Numbers


def read_column(column: pa.Array | pa.ChunkedArray) -> Column:
    """Read an Arrow column: as numbers if its type is numeric, else as text."""
    is_number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    return Numbers.of(column) if is_number else Labels.of(column)


def expand(starts: Longs, stops: Longs) -> tuple[Longs, Longs]:
    """Expand B ranges into their entries.

    Args:
        starts: [B] first entry of each range.
        stops: [B] end of each range, exclusive.

    Returns:
        [P] number of the range of each entry, and [P] the entries.
    """
    if len(starts) == 1:  # the server's case, which must be fast
        entries = np.arange(starts[0], stops[0])
        return np.zeros(len(entries), dtype=np.int64), entries
    sizes = stops - starts
    number = np.repeat(np.arange(len(sizes)), sizes)
    skipped = np.cumsum(sizes) - sizes
    return number, np.arange(len(number)) + np.repeat(starts - skipped, sizes)
