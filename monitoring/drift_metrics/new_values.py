"""Share of rows whose value does not occur in the reference."""

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, find_frequent_values, is_missing
from monitoring.settings import MeasureSettings

UNIT = "share of rows"
FLOOR = 0.05
RUNBOOK = {
    "*": Advice(
        "This column holds values that the model has never seen.",
        "Look at the values whose share grew from 0, below. If known values were renamed, have "
        "the feed fixed and do not refit. If they are a new category or brand, refit.",
    ),
}


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """The vocabulary: the values of the reference, at most ``largest_vocabulary``."""
    return find_frequent_values(frame.column(column), settings.largest_vocabulary)


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m] codes of the values, -1 for those outside the vocabulary."""
    cells = frame.column(column)
    codes = {value: code for code, value in enumerate(parameters)}
    positions = np.flatnonzero(~is_missing(cells))
    rows = (codes.get(str(value), -1) for value in cells[positions])
    return np.fromiter(rows, np.int64, len(positions)), positions


def summarise(rows: Array) -> Array:
    """[K] how often each code occurs, from -1 on."""
    return np.bincount(rows.astype(np.int64) + 1, minlength=1)


def compare(reference: Array, current: Array) -> float:
    """Share of current rows whose value the reference does not hold, of two counts."""
    there = np.zeros(max(len(reference), len(current)))
    there[: len(reference)] = reference
    new = there[: len(current)] == 0
    # A value outside the vocabulary is new, even if the reference holds others outside it.
    new[0] = True
    return float(current[new].sum() / current.sum())
