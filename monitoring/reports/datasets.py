"""Frames as Evidently data sets, with their columns and embeddings declared, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from evidently import DataDefinition, Dataset

from monitoring.frame import (
    Array,
    Frame,
    find_vector_length,
    is_list,
    is_number,
    read_vectors,
)
from monitoring.subjects import IDENTIFIERS

_DAY = "_day"
_MOST_CATEGORIES = 1000
"""Strings with more different values are declared as text."""


def to_dataset(frame: Frame, describe: bool = True) -> Dataset:
    """A frame as a data set.

    A vector becomes one column for each of its numbers, which are declared as an embedding of the
    vector's name; a missing vector becomes NaN. Lists and identifiers stay undeclared, and so do
    all other columns unless they are to be described: of those Evidently computes statistics.
    """
    columns: dict[str, Any] = {_DAY: frame.day}
    declared: dict[str, list[str]] = {kind: [] for kind in ("number", "category", "text", "time")}
    embeddings: dict[str, list[str]] = {}
    for name in frame.names:
        cells = frame.column(name)
        if length := find_vector_length(cells):
            embeddings[name] = [f"{name}_{i}" for i in range(length)]
            columns |= dict(zip(embeddings[name], _spread(cells, length), strict=True))
            continue
        columns[name] = _to_series(cells)
        if describe and (kind := _find_type(cells, name)):
            declared[kind].append(name)
    known = {name for names in (*declared.values(), *embeddings.values()) for name in names}
    definition = DataDefinition(
        numerical_columns=declared["number"],
        categorical_columns=declared["category"],
        text_columns=declared["text"],
        datetime_columns=declared["time"],
        embeddings=embeddings,
        unknown_columns=[name for name in columns if name not in known],
        list_columns=[],  # otherwise Evidently looks at the cells of every column
    )
    return Dataset.from_pandas(pd.DataFrame(columns), data_definition=definition)


def to_frame(dataset: Dataset, lacking: Mapping[str, str]) -> Frame:
    """The frame that a data set was made from; numbers as floats.

    Args:
        dataset: The data set.
        lacking: Columns that could not be built, with the reason.
    """
    rows = dataset.as_dataframe()
    embeddings = dataset.data_definition.embeddings or {}
    parts = {column for columns in embeddings.values() for column in columns}
    columns = {
        name: pa.array(rows[name], from_pandas=True)
        for name in rows.columns
        if name not in parts and name != _DAY
    }
    for name, of_vector in embeddings.items():
        vectors = np.ascontiguousarray(rows[of_vector].to_numpy(dtype=np.float32))
        offsets = pa.array(np.arange(len(vectors) + 1) * len(of_vector), pa.int32())
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel()))
    return Frame(pa.table(columns), rows[_DAY].to_numpy(), lacking)


def _spread(cells: pa.Array, length: int) -> Array:
    """[length, n] the numbers of vectors, NaN where a vector is missing."""
    vectors, positions = read_vectors(cells, length)
    if len(positions) < len(cells):
        whole = np.full((len(cells), length), np.nan, dtype=np.float32)
        whole[positions] = vectors
        vectors = whole
    columns: Array = np.ascontiguousarray(vectors.T)
    return columns


def _to_series(cells: pa.Array) -> pd.Series:
    if is_number(cells):
        return pd.Series(cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    if pa.types.is_timestamp(cells.type):
        return cells.to_pandas()
    return pd.Series(cells, dtype=pd.ArrowDtype(cells.type))


def _find_type(cells: pa.Array, name: str) -> str:
    if name in IDENTIFIERS or is_list(cells):
        return ""
    if is_number(cells):
        return "number"
    if pa.types.is_timestamp(cells.type):
        return "time"
    if not pa.types.is_string(cells.type):
        return ""
    return "category" if pc.count_distinct(cells).as_py() <= _MOST_CATEGORIES else "text"
