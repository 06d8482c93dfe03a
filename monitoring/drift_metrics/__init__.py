"""Drift metrics: each is one module here, or an extension of an installed package.

A drift metric says what of a column is compared: it turns each row into **features**, and Refit
compares the features' mean in a window with what earlier days lead to expect
(``monitoring.expectation``). All that Refit knows about it stands in its module:

=====================  ===========================================================================
``UNIT``               what its value means, for readers of the review page
``RUNBOOK``            by subject pattern an ``Advice``: what drift means and what to do about it
``encode``             ``(frame, column, parameters)`` -> features [m] or [m, p] of the usable
                       rows, an array or a sparse one, and the rows' positions in the frame
``fit``                optional; ``(frame, column, settings)`` -> parameters of ``encode`` learned
                       from the reference, such as a vocabulary or the edges of bins: arrays by
                       name
``STANDARDISED``       optional; True compares in standard deviations of the reference's rows, so
                       that features of any unit count alike; False in the features' own unit
``FLOOR``              optional; the smallest value that does harm; nothing below it is drift.
                       Chance needs no floor: what days differ by anyway is estimated
``FAULTS``             optional; patterns of subjects whose drift signals a broken feed: no refit
                       starts while one drifts
``draw``               optional; ``(axes, reference, current, parameters)`` draws features on
                       Matplotlib axes and returns the caption
``list_shares``        optional; ``(frame, column, parameters)`` -> shares by value, from which
                       the review page lists those that changed most
=====================  ===========================================================================

``fit`` and ``encode`` raise DataValidationError where the column cannot be measured. The name of a
metric is the name of its module or entry point, or a dotted name.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refit.errors import UsageError
from refit.extensions import ExtensionKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from monitoring.frame import Encoded, Frame
    from monitoring.settings import MeasureSettings

METRICS = ExtensionKind(
    "drift metric",
    "refit.drift_metrics",
    "monitoring.drift_metrics",
    ("UNIT", "RUNBOOK", "encode"),
)
Array = NDArray[Any]
Parameters = Mapping[str, Array]
"""What ``fit`` learned: arrays of numbers or strings; kept in the reference."""


class Advice(NamedTuple):
    """What drift means, and what a person on call does about it."""

    meaning: str
    action: str


NO_ADVICE = Advice(
    "The metric's runbook has no entry for this subject.",
    "Look at the pictures and examples on this page, and ask the metric's author for an entry.",
)


def _fit_nothing(frame: "Frame", column: str, settings: "MeasureSettings") -> Parameters:
    return {}


@dataclass(frozen=True)
class DriftMetric:
    """A drift metric with the defaults of what its module leaves out; see the table above."""

    name: str
    unit: str
    runbook: Mapping[str, Advice]
    encode_rows: "Callable[[Frame, str, Parameters], Encoded]"
    fit: "Callable[[Frame, str, MeasureSettings], Parameters]"
    standardised: bool
    floor: float
    faults: tuple[str, ...]
    draw: "Callable[[Axes, Array, Array, Parameters], str] | None"
    list_shares: "Callable[[Frame, str, Parameters], Mapping[str, float]] | None"

    def encode(self, frame: "Frame", column: str, parameters: Parameters) -> "Encoded":
        """[m, p] float32 features of the usable rows, dense or sparse, and their positions.

        Raises:
            DataValidationError: The column cannot be measured.
            ValueError: A feature is not a finite number.
        """
        features, positions = self.encode_rows(frame, column, parameters)
        if hasattr(features, "tocsr"):
            rows = features.tocsr()
            numbers = rows.data
        else:
            rows = np.asarray(features, dtype=np.float32).reshape(len(features), -1)
            numbers = rows
        if not np.isfinite(numbers).all():
            raise ValueError(f"drift metric {self.name!r} returned a feature that is not finite")
        return rows, np.asarray(positions, dtype=np.int64)

    def advise(self, subject: str) -> Advice:
        """The runbook's first entry whose pattern matches the subject."""
        found = (a for pattern, a in self.runbook.items() if fnmatchcase(subject, pattern))
        return Advice(*next(found, NO_ADVICE))

    def signals_fault(self, subject: str) -> bool:
        """Whether drift of this subject signals a broken feed."""
        return any(fnmatchcase(subject, pattern) for pattern in self.faults)


def require_known(names: Iterable[str]) -> None:
    """Check that drift metrics exist, without importing them.

    Raises:
        ValueError: One of them does not exist; the message lists those that do.
    """
    for name in names:
        if not METRICS.is_known(name):
            raise ValueError(METRICS.explain_unknown(name))


def load_metric(name: str) -> DriftMetric:
    """Load a drift metric by name.

    Raises:
        UsageError: There is none of this name, it cannot be imported, or an attribute is missing
            or has another type than it must have.
    """
    found = METRICS.load(name)
    floor, runbook, faults = (
        getattr(found, "FLOOR", 0.0),
        found.RUNBOOK,
        getattr(found, "FAULTS", ()),
    )
    if not isinstance(floor, int | float) or not 0 <= floor < math.inf:
        raise UsageError(f"drift metric {name!r}: FLOOR must be a number of at least 0")
    if not isinstance(runbook, Mapping) or any(len(advice) != 2 for advice in runbook.values()):
        raise UsageError(f"drift metric {name!r}: RUNBOOK must map subject patterns to Advice")
    if isinstance(faults, str):
        raise UsageError(f"drift metric {name!r}: FAULTS must be a tuple of subject patterns")
    return DriftMetric(
        name=name,
        unit=str(found.UNIT),
        runbook=runbook,
        encode_rows=found.encode,
        fit=getattr(found, "fit", _fit_nothing),
        standardised=bool(getattr(found, "STANDARDISED", False)),
        floor=float(floor),
        faults=tuple(faults),
        draw=getattr(found, "draw", None),
        list_shares=getattr(found, "list_shares", None),
    )
