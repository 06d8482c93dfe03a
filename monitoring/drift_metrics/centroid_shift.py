"""How far the mean vectors of categories moved together, in standard deviations.

More listings of one category change the mix but no category's own mean; another encoder moves
every one of them.
"""

from typing import TYPE_CHECKING

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, read_vectors, require_vector_length
from monitoring.groups import Groups
from monitoring.pictures import draw_points
from monitoring.settings import MeasureSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNIT = "standard deviations within a category"
STANDARDISED = True
RUNBOOK = {
    "*": Advice(
        "The vectors of every category moved at once: another encoder, or another version of it, "
        "writes this column.",
        "Find out which encoder writes the column now. Roll it back, or encode the whole stock "
        "with the new one and train on that. Never mix vectors of both.",
    ),
}
FAULTS = ("input:*",)


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """The categories, and the mean vector of each [groups, length]."""
    rows, positions = read_vectors(frame.column(column), require_vector_length(frame, column))
    return Groups.fit(frame, rows, positions).to_parameters()


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m, length] each vector less the mean of its category, if that is known."""
    groups = Groups.of(parameters)
    rows, positions = read_vectors(frame.column(column), groups.means.shape[1])
    code = groups.find(frame, positions)
    known = code >= 0
    return rows[known] - groups.means[code[known]], positions[known]


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw both samples in the plane of the move."""
    draw_points(axes, reference, current)
    return "A sample of the vectors less their category's mean; the mean moved from left to right."
