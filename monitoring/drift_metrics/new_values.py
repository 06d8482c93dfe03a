"""Share of rows whose value does not occur in the reference."""

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Encoded, Frame, code_values, count_values, list_values
from monitoring.settings import MeasureSettings

UNIT = "share of rows"
RUNBOOK = {
    "*": Advice(
        "This column holds values that the model has never seen.",
        "Look at the values whose share grew from 0, below. If known values were renamed, have "
        "the feed fixed and do not refit. If they are a new category or brand, refit.",
    ),
}


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """The vocabulary: the values that the reference holds twice, at most ``largest_vocabulary``.

    The share of values that it holds once is how often a value is new anyway. Source: Good, 1953.
    """
    counts = count_values(frame.column(column))
    twice = [value for value, count in counts.items() if count > 1]
    return {"values": np.array(twice[: settings.largest_vocabulary])}


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m] 1 for a value outside the vocabulary, 0 for any other; missing cells are left out."""
    values, positions = list_values(frame.column(column))
    return code_values(values, parameters["values"]) < 0, positions
