"""First Wasserstein distance of two samples of numbers, in standard deviations."""

from typing import TYPE_CHECKING

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, read_numbers
from monitoring.pictures import draw_histograms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNIT = "standard deviations of the reference"
FLOOR = 0.1
RUNBOOK = {
    "scores": Advice(
        "The model's scores are higher or lower than on the reference.",
        "Run index_refresh first: scores fall when the stock no longer holds what users look "
        "for. If the next window drifts too and live quality falls, refit.",
    ),
    "*": Advice(
        "The numbers in this column are distributed differently than in the reference.",
        "Ask the owner of the feed whether a unit, a currency or an import changed. If so, fix "
        "the feed and do not refit. If a season or a campaign explains it, watch live quality and "
        "refit when it falls.",
    ),
}


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m] the finite numbers."""
    return read_numbers(frame, column)


def summarise(rows: Array) -> Array:
    """The numbers [n], ascending."""
    return np.sort(rows)


def compare(reference: Array, current: Array) -> float:
    """The distance over the reference's standard deviation, as Evidently computes it."""
    scale = max(float(np.std(reference)), 0.001)
    # Two sorted runs: a stable sort merges them.
    both = np.sort(np.concatenate([reference, current]), kind="stable")
    below, here = (
        np.searchsorted(side, both[:-1], side="right") / len(side) for side in (reference, current)
    )
    return float(np.abs(below - here) @ np.diff(both)) / scale


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw both distributions."""
    draw_histograms(axes, reference, current)
    return "Distribution of the numbers; each histogram sums to 1."
