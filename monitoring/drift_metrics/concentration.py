"""How concentrated rows are on few values: logarithm of a change of Simpson's index."""

from typing import TYPE_CHECKING

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, list_values, split_into_windows
from monitoring.pictures import draw_histograms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from monitoring.settings import MeasureSettings

UNIT = "logarithm of the ratio"
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


def fit(frame: Frame, column: str, settings: "MeasureSettings") -> Parameters:
    """How long a window is, and how many rows it needs."""
    return {
        "window_days": np.array(settings.window_days),
        "minimum_rows": np.array(settings.minimum_rows),
    }


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m] each row's share in the logarithm of its window's index; a window's mean is the index.

    The index is the probability that two slots of two different rows of a window hold the same
    value; unlike a Gini coefficient it does not depend on the number of rows. Rows of different
    windows are not compared: they are less alike, because one-of-a-kind items are sold meanwhile.
    Sources: Simpson, 1949, taken between rows; the rows' shares are its influence function,
    Hampel, 1974.
    """
    cells = frame.column(column)
    values, rows = list_values(cells)
    codes = values.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    slots = np.bincount(rows, minlength=len(cells))
    positions = np.flatnonzero(slots)
    if not len(positions):
        return np.empty(0), positions
    window = np.zeros(len(cells), dtype=np.int64)
    if parameters:  # references of earlier versions have none
        days, least = (float(parameters[name]) for name in ("window_days", "minimum_rows"))
        window[positions] = split_into_windows(frame.day[positions], days, least)
    _, held = np.unique(window[rows] * (int(codes.max()) + 1) + codes, return_inverse=True)
    frequency = np.bincount(held)
    pair, occurrences = np.unique(rows.astype(np.int64) * len(frequency) + held, return_counts=True)
    row, value = np.divmod(pair, len(frequency))
    others = frequency[value] - occurrences
    alike = np.bincount(row, occurrences * others, minlength=len(cells))[positions]
    window, slots = window[positions], slots[positions]
    pairs = slots * (np.bincount(window, slots)[window] - slots)
    all_alike, all_pairs = np.bincount(window, alike), np.bincount(window, pairs)
    # Half a pair keeps the logarithm finite where no value came twice.
    index = np.maximum(all_alike, 0.5) / np.maximum(all_pairs, 1)
    mean = np.maximum(all_pairs / np.bincount(window), 1e-12)
    influence = 2 * (alike - index[window] * pairs) / (index * mean)[window]
    return np.log(index)[window] + influence, positions


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw how alike each row is to the others."""
    draw_histograms(axes, reference[:, 0], current[:, 0])
    return "How much each answer's values are shared by the other answers."
