"""Relative change of the mean length (Euclidean norm) of vectors."""

from typing import TYPE_CHECKING

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, read_vectors, require_vector_length
from monitoring.pictures import draw_histograms
from monitoring.settings import MeasureSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNIT = "relative change of the mean norm"
FLOOR = 0.2
RUNBOOK = {
    "*": Advice(
        "The vectors have become longer or shorter: they are scaled or normalised differently.",
        "Compare the vector of one listing before and after the change. Fix the encoder's output, "
        "then run index_refresh. Do not refit before that.",
    ),
}
FAULTS = ("input:*",)


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """The length of the vectors."""
    return (require_vector_length(frame, column),)


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m] the norms of the vectors that are not missing."""
    rows, positions = read_vectors(frame.column(column), int(parameters[0]))
    return np.linalg.norm(rows, axis=1), positions


def summarise(rows: Array) -> float:
    """The mean norm."""
    return float(rows.mean())


def compare(reference: float, current: float) -> float:
    """The absolute relative change of a mean."""
    return abs(current / max(reference, 1e-12) - 1)


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw both distributions of norms."""
    draw_histograms(axes, reference, current)
    return "Distribution of the vectors' norms; each histogram sums to 1."
