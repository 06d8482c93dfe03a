"""How far the mean vectors of groups moved, as a share of the reference's variance.

More listings of one category change the mix but no category's own mean; another encoder moves
every one of them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import (
    Array,
    Encoded,
    Frame,
    find_frequent_values,
    read_vectors,
    require_vector_length,
)
from monitoring.pictures import draw_points
from monitoring.settings import MeasureSettings
from refit.errors import DataValidationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNIT = "share of the reference's variance"
FLOOR = 0.1
RUNBOOK = {
    "*": Advice(
        "The vectors of every category moved at once: another encoder, or another version of it, "
        "writes this column.",
        "Find out which encoder writes the column now. Roll it back, or encode the whole stock "
        "with the new one and train on that. Never mix vectors of both.",
    ),
}
FAULTS = ("input:*",)
GROUP_COLUMN = "category_1"
_MOST_GROUPS = 50


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """The length of the vectors, the column that groups them ("" for none), and its groups."""
    length = require_vector_length(frame, column)
    groups = find_frequent_values(frame.columns.get(GROUP_COLUMN, np.empty(0)), _MOST_GROUPS)
    return (length, GROUP_COLUMN, *groups) if groups else (length, "", "")


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m, 1+length] the code of a row's group, -1 where it is unknown, then its vector."""
    length, by, *groups = parameters
    rows, positions = read_vectors(frame.column(column), int(length))
    codes = {group: code for code, group in enumerate(groups)}
    names = frame.column(str(by))[positions] if by else np.full(len(rows), "", dtype=object)
    codes_of_rows = np.array([codes.get(str(name), -1) for name in names], dtype=np.float64)
    return np.column_stack([codes_of_rows, rows]), positions


@dataclass(frozen=True)
class Centroids:
    """Groups of vectors: codes [g] ascending, sizes [g], means [g, d], and the total variance."""

    codes: Array
    sizes: Array
    means: Array
    spread: float


def summarise(rows: Array) -> Centroids:
    """Centroids of rows [n, 1+d], whose first column is the code of the group."""
    codes, group, sizes = np.unique(rows[:, 0], return_inverse=True, return_counts=True)
    member = csr_array((np.ones(len(rows)), (group, np.arange(len(rows)))))
    means = (member @ rows[:, 1:]) / sizes[:, None]
    return Centroids(codes, sizes, means, max(float(rows[:, 1:].var(axis=0).sum()), 1e-12))


def compare(reference: Centroids, current: Centroids) -> float:
    """The mean squared move of the groups' centroids, weighted by current sizes.

    Raises:
        DataValidationError: The two samples have no group in common.
    """
    _, there, here = np.intersect1d(
        reference.codes, current.codes, assume_unique=True, return_indices=True
    )
    if not len(there):
        raise DataValidationError("no group of the reference occurs in the window")
    distance = np.square(reference.means[there] - current.means[here]).sum(axis=1)
    sizes = current.sizes[here]
    # The distance that two samples of the same vectors have by chance is subtracted, so that
    # small groups do not seem to have moved.
    chance = reference.spread * (1 / reference.sizes[there] + 1 / sizes)
    return float(sizes @ np.clip(distance - chance, 0, None) / sizes.sum() / reference.spread)


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw both samples in the plane of the move."""
    draw_points(axes, reference[:, 1:], current[:, 1:])
    return "A sample of the vectors; the mean moved from left to right."
