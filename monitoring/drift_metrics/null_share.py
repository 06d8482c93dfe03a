"""Difference of the shares of missing cells."""

from collections.abc import Mapping

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Encoded, Frame, find_missing, find_vector_length
from monitoring.settings import MeasureSettings

UNIT = "difference of the shares of missing cells"
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
    """The length of the vectors, 0 where the column holds none."""
    return {"length": np.array(find_vector_length(frame.column(column)))}


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[n] 1 for a missing cell, 0 for any other."""
    missing = find_missing(frame.column(column), int(parameters["length"]))
    return missing, np.arange(len(missing))


def list_shares(frame: Frame, column: str, parameters: Parameters) -> Mapping[str, float]:
    """The share of missing cells, as a value of its own; none without rows."""
    missing = encode(frame, column, parameters)[0]
    return {"(missing)": float(missing.mean())} if len(missing) else {}
