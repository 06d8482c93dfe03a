"""Difference of the shares of missing cells."""

from collections.abc import Mapping

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, find_vector_length, is_missing
from monitoring.settings import MeasureSettings

UNIT = "difference of the shares of missing cells"
FLOOR = 0.05
RUNBOOK = {
    "*": Advice(
        "More, or fewer, cells of this column are missing than in the reference.",
        "Ask the owner of the feed what was released on the day it began. Do not refit: the "
        "model would learn that the column is empty. When the feed is fixed, run index_refresh, "
        "so that the listings of the meantime get correct vectors.",
    ),
}
FAULTS = ("input:items.*",)
"""Events are left out: a null in an event's context is no fault, since users may leave it open."""


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """The length of the vectors, where the column holds vectors."""
    length = find_vector_length(frame.column(column))
    return (length,) if length else ()


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[n] 1 for a missing cell, 0 for any other."""
    length = int(parameters[0]) if parameters else None
    missing = is_missing(frame.column(column), length).astype(np.float64)
    return missing, np.arange(len(missing))


def summarise(rows: Array) -> float:
    """The share of missing cells."""
    return float(rows.mean())


def compare(reference: float, current: float) -> float:
    """The absolute difference of two shares."""
    return abs(current - reference)


def list_shares(frame: Frame, column: str, parameters: Parameters) -> Mapping[str, float]:
    """The share of missing cells, as a value of its own."""
    return {"(missing)": summarise(encode(frame, column, parameters)[0])}
