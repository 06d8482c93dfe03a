"""Difference of two distributions of numbers over the reference's quantiles: Cohen's w."""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, read_numbers
from monitoring.pictures import draw_shares
from monitoring.settings import MeasureSettings
from refit.errors import DataValidationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNIT = "Cohen's w: .1 is a small, .3 a medium, .5 a large difference"
STANDARDISED = True
RUNBOOK = {
    "scores": Advice(
        "The model's scores are higher or lower than expected of an index of this age.",
        "Run index_refresh first: scores fall when the stock no longer holds what users look "
        "for. If the next window drifts too and live quality falls, refit.",
    ),
    "*": Advice(
        "The numbers in this column are distributed differently than expected.",
        "Ask the owner of the feed whether a unit, a currency or an import changed. If so, fix "
        "the feed and do not refit. If a season or a campaign explains it, watch live quality and "
        "refit when it falls.",
    ),
}
BINS = 16


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """The bounds between bins that hold a sixteenth of the reference each, and its extremes."""
    numbers, _ = read_numbers(frame, column)
    if not len(numbers):
        raise DataValidationError(f"column {column!r} is empty")
    levels = [0.005, *(np.arange(1, BINS) / BINS), 0.995]
    return {"bounds": np.unique(np.quantile(numbers, levels))}


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m, bins] 1 in the bin of the number, 0 in the others."""
    numbers, positions = read_numbers(frame, column)
    bounds = parameters["bounds"]
    bins = np.searchsorted(bounds, numbers, side="left")
    return np.eye(len(bounds) + 1, dtype=np.float32)[bins], positions


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw the bins whose share changed most."""
    bounds = [f"{bound:.3g}" for bound in parameters["bounds"]]
    names = [
        f"up to {bounds[0]}",
        *(f"{a} to {b}" for a, b in pairwise(bounds)),
        f"over {bounds[-1]}",
    ]
    there, here = (
        dict(zip(names, rows.mean(axis=0).tolist(), strict=True)) for rows in (reference, current)
    )
    draw_shares(axes, there, here)
    return "Shares of the ranges that changed most."
