"""Groups: the categories of a table's rows, within which vectors are compared."""

from typing import Self

import numpy as np
import pyarrow as pa

from monitoring.drift_metrics import Parameters
from monitoring.frame import Array, Frame, code_values, combine, find_frequent_values
from refit.errors import DataValidationError

COLUMNS = ("category_2", "category_1")
"""The first of them that a table has groups its rows."""
_MOST_GROUPS = 100
_FEWEST = 20
"""Rows of a group in the reference, below which its mean is not known."""


class Groups:
    """The groups of the reference, and the mean of something within each.

    Args:
        by: The grouping column; empty puts all rows into one group.
        names: [G] values of the column.
        means: [G, d] means.
    """

    def __init__(self, by: str, names: Array, means: Array) -> None:
        self.by, self.names, self.means = by, names, means

    @classmethod
    def fit(cls, frame: Frame, rows: Array, positions: Array) -> Self:
        """The groups of rows [m, d], which are at some positions of a frame.

        Raises:
            DataValidationError: No group has enough rows.
        """
        by = next((name for name in COLUMNS if name in frame.names), "")
        names = np.array(find_frequent_values(frame.column(by), _MOST_GROUPS) if by else [""])
        code = cls(by, names, np.empty(0)).find(frame, positions)
        inside = code >= 0
        sizes = np.bincount(code[inside], minlength=len(names))
        known = sizes >= _FEWEST
        if not known.any():
            raise DataValidationError(f"no value of {by} has {_FEWEST} rows with a vector")
        means = np.zeros((len(names), rows.shape[1]))
        np.add.at(means, code[inside], rows[inside])
        means /= np.maximum(sizes, 1)[:, None]
        return cls(by, names[known], means[known].astype(np.float32))

    @classmethod
    def of(cls, parameters: Parameters) -> Self:
        """The groups that ``parameters`` of a drift metric keep."""
        return cls(str(parameters["by"]), parameters["groups"], parameters["means"])

    def to_parameters(self) -> Parameters:
        """Arrays to be kept."""
        return {"by": np.array(self.by), "groups": self.names, "means": self.means}

    def find(self, frame: Frame, positions: Array) -> Array:
        """[m] the group of the rows at some positions, -1 for those of no known group."""
        if not self.by:
            return np.zeros(len(positions), dtype=np.int64)
        cells = frame.column(self.by).take(pa.array(positions))
        return code_values(combine(cells), self.names)
