"""How concentrated recommendations are on few values, such as sellers."""

import math
from typing import TYPE_CHECKING

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, list_values, pad_rows
from monitoring.pictures import REFERENCE, REFERENCE_COLOUR, WINDOW, WINDOW_COLOUR
from monitoring.settings import MeasureSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNIT = "logarithm of the ratio"
FLOOR = 0.2
RUNBOOK = {
    "mix:*": Advice(
        "Recommendations concentrate on fewer sellers than before, or spread over more.",
        "Check whether one seller has flooded the stock with listings. If so, have the listings "
        "reviewed. If not, look at the verdict of the bundle that serves: a model that shows too "
        "few sellers is a reason to roll back or refit.",
    ),
    "*": Advice(
        "Rows concentrate on fewer values of this column than before, or spread over more.",
        "Look for one value that has become frequent, and ask the owner of the feed about it.",
    ),
}


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """How many values of a row count."""
    return (settings.depth,)


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m, depth] codes of the values that a row lists, padded with -1."""
    codes: dict[str, int] = {}
    rows = [
        [codes.setdefault(str(value), len(codes)) for value in list_values(cell)]
        for cell in frame.column(column)
    ]
    return pad_rows(rows, int(parameters[0]))


def summarise(rows: Array) -> float:
    """The probability that two slots of two different rows hold the same value.

    Unlike a Gini coefficient it does not depend on the number of rows. Source: Simpson, 1949,
    taken between rows.
    """
    listed = rows >= 0
    counts = np.bincount(rows[listed].astype(np.int64)).astype(np.float64)
    same = (rows[:, :, None] == rows[:, None, :]) & listed[:, :, None]
    pairs = np.square(counts.sum()) - np.square(listed.sum(axis=1)).sum()
    alike = np.square(counts).sum() - same.sum()
    # Half a pair keeps the logarithm finite where no value came twice.
    return float(max(alike, 0.5) / max(pairs, 1.0))


def compare(reference: float, current: float) -> float:
    """How many times more, or less, probable an equal pair is; logarithm."""
    return abs(math.log(current / reference))


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw the cumulative share of slots by rank of the value."""
    for rows, colour, label in (
        (reference, REFERENCE_COLOUR, REFERENCE),
        (current, WINDOW_COLOUR, WINDOW),
    ):
        counts = np.sort(np.bincount(rows[rows >= 0].astype(np.int64)))[::-1]
        rank = np.arange(1, len(counts) + 1) / len(counts)
        axes.plot(rank, np.cumsum(counts) / counts.sum(), color=colour, label=label)
    axes.set_xlabel("share of values, most frequent first")
    axes.set_ylabel("share of slots")
    return "Share of all recommended slots that the most frequent values take."
