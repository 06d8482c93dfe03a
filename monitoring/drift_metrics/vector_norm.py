"""Relative change of the length (Euclidean norm) of vectors, within their categories."""

from typing import TYPE_CHECKING

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, read_vectors, require_vector_length
from monitoring.groups import Groups
from monitoring.pictures import draw_histograms
from monitoring.settings import MeasureSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNIT = "relative change of the mean norm"
RUNBOOK = {
    "*": Advice(
        "The vectors have become longer or shorter: they are scaled or normalised differently.",
        "Compare the vector of one listing before and after the change. Fix the encoder's output, "
        "then run index_refresh. Do not refit before that.",
    ),
}
FAULTS = ("input:*",)


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """The categories, the mean norm of each [groups, 1], and the length of the vectors."""
    length = require_vector_length(frame, column)
    rows, positions = read_vectors(frame.column(column), length)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    groups = Groups.fit(frame, norms, positions)
    return {**groups.to_parameters(), "length": np.array(length)}


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m] the norm of each vector over the mean norm of its category, if that is known."""
    groups = Groups.of(parameters)
    rows, positions = read_vectors(frame.column(column), int(parameters["length"]))
    code = groups.find(frame, positions)
    known = code >= 0
    expected = np.maximum(groups.means[code[known], 0], 1e-12)
    return np.linalg.norm(rows[known], axis=1) / expected, positions[known]


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw both distributions of norms."""
    draw_histograms(axes, reference[:, 0], current[:, 0])
    return "Distribution of the vectors' norms over their mean; each histogram sums to 1."
