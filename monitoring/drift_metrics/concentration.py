"""How concentrated rows are on few values: logarithm of a change of Simpson's index."""

from typing import TYPE_CHECKING

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, list_values
from monitoring.pictures import draw_histograms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m] each row's share in the logarithm of the index; their mean is the logarithm itself.

    The index is the probability that two slots of two different rows hold the same value; unlike
    a Gini coefficient it does not depend on the number of rows. Sources: Simpson, 1949, taken
    between rows; the rows' shares are its influence function, Hampel, 1974.
    """
    cells = frame.column(column)
    values, rows = list_values(cells)
    codes = values.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    slots = np.bincount(rows, minlength=len(cells))
    positions = np.flatnonzero(slots)
    if not len(positions):
        return np.empty(0), positions
    frequency = np.bincount(codes)
    pair, occurrences = np.unique(
        rows.astype(np.int64) * len(frequency) + codes, return_counts=True
    )
    row, code = np.divmod(pair, len(frequency))
    others = frequency[code] - occurrences
    alike = np.bincount(row, occurrences * others, minlength=len(cells))[positions]
    pairs = (slots * (slots.sum() - slots))[positions]
    # Half a pair keeps the logarithm finite where no value came twice.
    index = max(alike.sum(), 0.5) / max(pairs.sum(), 1)
    influence = 2 * (alike - index * pairs) / (index * max(pairs.mean(), 1e-12))
    return np.log(index) + influence, positions


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw how alike each row is to the others."""
    draw_histograms(axes, reference[:, 0], current[:, 0])
    return "How much each answer's values are shared by the other answers."
