"""Hashes of rows, to find equal ones among millions."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.frame import combine

Hashes = NDArray[np.uint64]
_FACTORS = np.random.default_rng(0).integers(1, 2**63, 4096, dtype=np.uint64) * np.uint64(2) + 1
_NULL = np.uint64(0x9E3779B97F4A7C15)


def hash_rows(columns: list[pa.ChunkedArray | pa.Array], n: int) -> Hashes:
    """[n] one number for each row; equal rows have equal numbers."""
    total = np.zeros(n, dtype=np.uint64)
    for cells in columns:
        total = mix(total * _FACTORS[0] + hash_cells(combine(cells)))
    return total


def hash_cells(cells: pa.Array) -> Hashes:
    """[n] one number for each string, number or time."""
    if pa.types.is_string(cells.type):
        hashed = _hash_strings(cells)
    else:
        numbers = pc.cast(cells, pa.int64()) if pa.types.is_temporal(cells.type) else cells
        filled = pc.fill_null(pc.cast(numbers, pa.float64(), safe=False), np.nan)
        hashed = mix(filled.to_numpy(zero_copy_only=False).view(np.uint64))
    if cells.null_count:
        hashed[pc.is_null(cells).to_numpy(zero_copy_only=False)] = _NULL
    return hashed


def _hash_strings(cells: pa.Array) -> Hashes:
    """Sum of the bytes, each times a factor of its place (multilinear hashing)."""
    n = len(cells)
    offsets = np.frombuffer(cells.buffers()[1], dtype=np.int32)[cells.offset : cells.offset + n + 1]
    data = cells.buffers()[2]
    if not n or data is None or offsets[-1] == offsets[0]:
        return np.zeros(n, dtype=np.uint64)
    text = np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]]
    starts = (offsets - offsets[0]).astype(np.int64)
    place = np.arange(len(text)) - np.repeat(starts[:-1], np.diff(starts))
    parts = (text.astype(np.uint64) + np.uint64(1)) * _FACTORS[place % len(_FACTORS)]
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(parts, dtype=np.uint64)])
    return mix(sums[starts[1:]] - sums[starts[:-1]])


def mix(numbers: Hashes) -> Hashes:
    """The last step of SplitMix64 (Steele et al., 2014): near numbers come far apart."""
    with np.errstate(over="ignore"):
        x = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
