"""Item columns as filters and eligibility rules read them: text as codes, numbers as float64."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from refit.texts import Texts

Flags = NDArray[np.bool_]
Longs = NDArray[np.int64]
Codes = NDArray[np.integer[Any]]

FEW_CODES = 16
"""Up to this many codes, one comparison per code is faster than a lookup table."""
FEW_ROWS = 32
"""Where at most one of so many rows matches, marking these is faster than comparing all."""
_NO_ROWS = np.empty(0, dtype=np.int64)


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
class RowsByCode:
    """The C rows of a column sorted by their codes.

    Attributes:
        order: [C] rows.
        bounds: [T + 1] where the rows of each of the T codes begin in that order.
    """

    order: NDArray[np.integer[Any]]
    bounds: Longs

    @classmethod
    def of(cls, codes: Codes, n_codes: int) -> Self:
        """Sort the rows of a column; codes below 0 or from T on are nobody's."""
        order = np.argsort(codes, kind="stable").astype(np.int32)
        starts = np.arange(n_codes + 1, dtype=np.int64)
        return cls(order, np.searchsorted(codes[order], starts).astype(np.int64))

    def of_range(self, first: int, end: int) -> NDArray[np.integer[Any]]:
        """Rows whose code is at least ``first`` and less than ``end``."""
        return self.order[self.bounds[first] : self.bounds[end]]


@dataclass(frozen=True)
class Labels:
    """A text column of C rows.

    Attributes:
        codes: [C] code of each row's text, -1 where missing.
        code_of: Code of each text.
        by_code: The rows sorted by code, where they are known.
    """

    codes: Codes
    code_of: Mapping[str, int]
    by_code: RowsByCode | None = None

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray) -> Self:
        """Encode an Arrow column; values of other types are cast to text."""
        codes, texts = encode_texts(column)
        return cls(codes, {value: i for i, value in enumerate(texts.to_pylist())})

    @cached_property
    def texts(self) -> Sequence[str]:
        """The text of each code."""
        return self.code_of.texts if isinstance(self.code_of, Texts) else tuple(self.code_of)

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
        found = {self.code_of.get(value) for value in values}  # type: ignore[arg-type]
        codes = {code for code in found if code is not None}
        return _mark(self.codes, codes, len(self.code_of), self.by_code)

    def find(self, texts: Sequence[str | None]) -> Cells:
        """Find the cells (query, row) in which a row equals the text of a query.

        Args:
            texts: [B] one text per query; None never matches.
        """
        codes = [-1 if text is None else self.code_of.get(text, -1) for text in texts]
        if len(codes) == 1:  # the server's case, which must be fast
            rows = self._rows_of(codes[0])
            return Cells(np.zeros(len(rows), dtype=np.int64), rows)
        order, bounds = self._sorted.order, self._sorted.bounds
        slots = np.asarray(codes, dtype=np.int64)
        starts, stops = bounds[slots], bounds[slots + 1]
        query, entry = expand(np.where(slots < 0, stops, starts), stops)
        return Cells(query, order[entry].astype(np.int64, copy=False))

    def _rows_of(self, code: int) -> Longs:
        if code < 0:
            return _NO_ROWS
        if self.by_code is None:  # sorting costs more than one comparison
            return np.flatnonzero(self.codes == code)
        return self.by_code.of_range(code, code + 1).astype(np.int64)

    @cached_property
    def _sorted(self) -> RowsByCode:
        return self.by_code or RowsByCode.of(self.codes, len(self.code_of))


class Numbers:
    """A numeric column of C rows.

    Args:
        values: [C] float64, unrounded values of the table; NaN where missing.
    """

    def __init__(self, values: NDArray[np.float64]) -> None:
        self._values = values

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray) -> "Numbers":
        """Read an Arrow column of numbers."""
        return Numbers(read_numbers(column))

    @property
    def values(self) -> NDArray[np.float64]:
        """[C] the values; NaN where missing."""
        return self._values

    def value(self, row: int) -> float:
        """The value of one row; NaN where it is missing."""
        return float(self._values[row])

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


class RankedNumbers(Numbers):
    """A numeric column of C rows, as the ranks of its values: a range is a range of ranks.

    Args:
        ranks: [C] unsigned rank of each row's value among the distinct ones; V where missing.
        distinct: [V] distinct values, ascending.
        by_rank: The rows sorted by rank.
    """

    def __init__(self, ranks: Codes, distinct: NDArray[np.float64], by_rank: RowsByCode) -> None:
        self._ranks, self._distinct, self._by_rank = ranks, distinct, by_rank

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """[C] the values; NaN where missing. Made when a rule first asks for them."""
        return np.append(self._distinct, np.nan)[self._ranks]

    def value(self, row: int) -> float:
        """The value of one row; NaN where it is missing."""
        rank = int(self._ranks[row])
        return float(self._distinct[rank]) if rank < len(self._distinct) else float("nan")

    def matches(self, wanted: Wanted) -> Flags:
        """[C] whether each row is in the range, or equal to a value; NaN never matches."""
        n = len(self._distinct)
        if not isinstance(wanted, Range):
            values = np.array(wanted, dtype=np.float64)
            ranks = np.searchsorted(self._distinct, values)
            known = ranks < n
            known[known] = self._distinct[ranks[known]] == values[known]
            return _mark(self._ranks, set(ranks[known].tolist()), n, self._by_rank)
        low, high = 0, n
        if wanted.min is not None:
            low = int(self._distinct.searchsorted(wanted.min))
        if wanted.max is not None:
            high = int(self._distinct.searchsorted(wanted.max, "right"))
        return _mark_range(self._ranks, low, max(low, high), self._by_rank)


Column = Labels | Numbers


def read_column(column: pa.Array | pa.ChunkedArray) -> Column:
    """Read an Arrow column: as numbers if its type is numeric, else as text."""
    is_number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    return Numbers.of(column) if is_number else Labels.of(column)


def read_numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """[C] an Arrow column of numbers; NaN where missing."""
    filled = column.cast(pa.float64()).fill_null(float("nan"))
    return np.asarray(filled.to_numpy(), dtype=np.float64)


def encode_texts(column: pa.Array | pa.ChunkedArray) -> tuple[Codes, pa.Array]:
    """[C] codes of a column's texts, -1 where missing, and the text of each code."""
    text = column.cast(pa.string())
    text = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
    encoded = text.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes.astype(np.int32), encoded.dictionary


def _mark(codes: Codes, wanted: Collection[int], n_codes: int, by_code: RowsByCode | None) -> Flags:
    """[C] whether each row has one of the wanted codes."""
    if by_code is not None:
        bounds = by_code.bounds
        found = sum(int(bounds[code + 1] - bounds[code]) for code in wanted)
        if found * FEW_ROWS <= len(codes) or len(wanted) > FEW_CODES:
            flags = np.zeros(len(codes), dtype=np.bool_)
            for code in wanted:
                flags[by_code.of_range(code, code + 1)] = True
            return flags
    if len(wanted) <= FEW_CODES:
        each = [codes == code for code in wanted]
        flags = each[0] if each else np.zeros(len(codes), dtype=np.bool_)
        for other in each[1:]:
            np.logical_or(flags, other, out=flags)
        return flags
    matching = np.zeros(n_codes + 1, dtype=np.bool_)  # the last one is for -1
    matching[list(wanted)] = True
    return matching[codes]


def _mark_range(codes: Codes, low: int, high: int, by_code: RowsByCode) -> Flags:
    """[C] whether each row has an unsigned code that is at least ``low`` and less than ``high``."""
    rows = by_code.of_range(low, high)
    if len(rows) * FEW_ROWS <= len(codes):
        flags = np.zeros(len(codes), dtype=np.bool_)
        flags[rows] = True
        return flags
    kind = codes.dtype.type
    # Below ``low`` the difference wraps around to a large number.
    return np.asarray((codes - kind(low) if low else codes) < kind(high - low))


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
