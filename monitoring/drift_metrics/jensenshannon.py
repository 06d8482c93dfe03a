"""Jensen-Shannon distance of two mixes of values."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import rel_entr

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import (
    Array,
    Encoded,
    Frame,
    find_frequent_values,
    list_values,
    pad_rows,
    share_values,
)
from monitoring.pictures import draw_shares
from monitoring.settings import MeasureSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNIT = "distance, 0 to 0.83"
FLOOR = 0.1
RUNBOOK = {
    "mix:*": Advice(
        "The recommended items are of other kinds than before.",
        "Compare with the stock: look for the same column under input:items. If the stock changed "
        "in the same way, do nothing. If it did not, refit when live quality falls too.",
    ),
    "*": Advice(
        "The values of this column occur in other shares than in the reference.",
        "Look at the shares below, and ask the owner of the feed whether an import or a campaign "
        "explains them. Watch live quality and refit when it falls.",
    ),
}
OTHER = "(other)"
"""Name of all values outside the vocabulary."""


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """The vocabulary: the most frequent values of the reference."""
    return find_frequent_values(frame.column(column), settings.largest_vocabulary)


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m, k] codes of the values in a row, one code for all outside the vocabulary.

    Rows with fewer than k values are padded with -1.
    """
    codes = {value: code for code, value in enumerate(parameters)}
    rows = [
        [codes.get(str(value), len(codes)) for value in list_values(cell)]
        for cell in frame.column(column)
    ]
    return pad_rows(rows, max(map(len, rows), default=0))


def summarise(rows: Array) -> Array:
    """[K] how often each code occurs, from -1 on."""
    return np.bincount(rows.astype(np.int64).ravel() + 1, minlength=1)


def compare(reference: Array, current: Array) -> float:
    """The distance of two counts, with the natural logarithm, as Evidently computes it."""
    counts = np.zeros((2, max(len(reference), len(current))))
    counts[0, : len(reference)], counts[1, : len(current)] = reference, current
    one, other = (side[1:] / side[1:].sum() for side in counts)
    middle = (one + other) / 2
    divergence = float(rel_entr(one, middle).sum() + rel_entr(other, middle).sum()) / 2
    return math.sqrt(max(0.0, divergence))


def list_shares(frame: Frame, column: str, parameters: Parameters) -> Mapping[str, float]:
    """The share of each value, also of those outside the vocabulary."""
    return share_values(frame.column(column))


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw the values whose share changed most."""
    draw_shares(axes, _share_codes(reference, parameters), _share_codes(current, parameters))
    return "Shares of the values that changed most."


def _share_codes(rows: Array, parameters: Parameters) -> dict[str, float]:
    counts = summarise(rows)[1:]
    names = (*map(str, parameters), OTHER)
    return {names[code]: float(count / counts.sum()) for code, count in enumerate(counts) if count}
