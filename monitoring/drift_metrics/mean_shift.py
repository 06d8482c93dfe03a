"""How far the mean of vectors moved, in standard deviations of the reference's vectors."""

from typing import TYPE_CHECKING

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, read_vectors, require_vector_length
from monitoring.pictures import draw_points
from monitoring.settings import MeasureSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

import numpy as np

UNIT = "standard deviations"
STANDARDISED = True
RUNBOOK = {
    "query-embedding": Advice(
        "Queries differ from those that the model was trained on.",
        "Look at the queries below. If users send them, start a refit unless one is running. If "
        "one client or a crawler sends them, block it and do not refit.",
    ),
    "listing-embedding": Advice(
        "New listings differ from the stock that the model was trained on.",
        "Look at the listings below. If sellers did list them, run index_refresh now and let the "
        "next refit learn them. If a broken import created them, fix the import first.",
    ),
    "*": Advice(
        "The vectors of this column differ from the reference's.",
        "Ask the owner of the feed whether the encoder changed. If it did not, watch live "
        "quality and refit when it falls.",
    ),
}


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """The length of the vectors."""
    return {"length": np.array(require_vector_length(frame, column))}


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m, length] the vectors that are not missing."""
    return read_vectors(frame.column(column), int(parameters["length"]))


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw both samples in the plane of the move."""
    draw_points(axes, reference, current)
    return "A sample of the vectors; the mean moved from left to right."
