"""Difference of two mixes of values: Cohen's effect size w."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import (
    Array,
    Encoded,
    Frame,
    code_values,
    list_values,
    share_values,
)
from monitoring.pictures import draw_shares
from monitoring.settings import MeasureSettings
from refit.errors import DataValidationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNIT = "Cohen's w: .1 is a small, .3 a medium, .5 a large difference"
STANDARDISED = True
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
_RARE = 0.005
"""Values with a smaller share of the reference are pooled: their counts are too small to judge."""


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """The vocabulary: the values with a share that can be judged, the most frequent first."""
    shares = share_values(frame.column(column))
    common = [value for value, share in shares.items() if share >= _RARE]
    if not common:
        raise DataValidationError(f"no value of column {column!r} has a share of {_RARE:.1%}")
    return {"values": np.array(common)}


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m, K+1] sparse: the share of each value of the vocabulary in a row's cell, and of others.

    A cell holds one value or a list of them; rows without a value are left out.
    """
    vocabulary = parameters["values"]
    cells = frame.column(column)
    values, rows = list_values(cells)
    codes = code_values(values, vocabulary)
    codes = np.where(codes < 0, len(vocabulary), codes)
    counts = np.bincount(rows, minlength=len(cells))
    positions = np.flatnonzero(counts)
    shape = (len(cells), len(vocabulary) + 1)
    shares = csr_array(((1 / counts[rows]).astype(np.float32), (rows, codes)), shape=shape)
    return shares if len(positions) == len(cells) else shares[positions], positions


def list_shares(frame: Frame, column: str, parameters: Parameters) -> Mapping[str, float]:
    """The share of each value, also of those outside the vocabulary."""
    return share_values(frame.column(column))


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw the values whose share changed most."""
    names = [*map(str, parameters["values"]), OTHER]
    there, here = (
        dict(zip(names, rows.mean(axis=0).tolist(), strict=True)) for rows in (reference, current)
    )
    draw_shares(axes, there, here)
    return "Shares of the values that changed most."
