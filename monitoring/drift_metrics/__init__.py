"""Drift metrics: each is one module here, or an extension of an installed package.

A drift metric compares a column of the reference with the same column of a window. All that Refit
knows about it stands in its module:

=====================  ===========================================================================
``UNIT``               what its value means, for readers of the review page
``FLOOR``              the smallest value worth an alert, at least 0; no threshold lies below it
``RUNBOOK``            by subject pattern an ``Advice``: what drift means and what to do about it
``encode``             ``(frame, column, parameters)`` -> the usable rows as an array, and their
                       positions in the frame
``compare``            ``(reference, current)`` -> a finite number of at least 0; larger means a
                       larger difference
``fit``                optional; ``(frame, column, settings)`` -> parameters of ``encode`` learned
                       from the reference, such as a vocabulary or the edges of bins
``summarise``          optional; encoded rows -> what ``compare`` takes; the rows by default
``draw``               optional; ``(axes, reference, current, parameters)`` draws encoded rows on
                       Matplotlib axes and returns the caption
``FAULTS``             optional; patterns of subjects whose drift signals a broken feed: no refit
                       starts while one drifts
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

from monitoring.frame import Array, Encoded, Frame
from refit.errors import UsageError
from refit.extensions import ExtensionKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from monitoring.settings import MeasureSettings

METRICS = ExtensionKind(
    "drift metric",
    "refit.drift_metrics",
    "monitoring.drift_metrics",
    ("UNIT", "FLOOR", "RUNBOOK", "encode", "compare"),
)
Parameters = tuple[str | int | float, ...]
"""What ``fit`` learned; kept in the reference as JSON."""


class Advice(NamedTuple):
    """What drift means, and what a person on call does about it."""

    meaning: str
    action: str


NO_ADVICE = Advice(
    "The metric's runbook has no entry for this subject.",
    "Look at the pictures and examples on this page, and ask the metric's author for an entry.",
)


def _fit_nothing(frame: Frame, column: str, settings: "MeasureSettings") -> Parameters:
    return ()


def _keep_rows(rows: Array) -> Any:
    return rows


@dataclass(frozen=True)
class DriftMetric:
    """A drift metric with the defaults of what its module leaves out; see the table above."""

    name: str
    unit: str
    floor: float
    runbook: Mapping[str, Advice]
    encode: Callable[[Frame, str, Parameters], Encoded]
    compare: Callable[[Any, Any], float]
    fit: Callable[[Frame, str, "MeasureSettings"], Parameters]
    summarise: Callable[[Array], Any]
    draw: "Callable[[Axes, Array, Array, Parameters], str] | None"
    faults: tuple[str, ...]
    list_shares: Callable[[Frame, str, Parameters], Mapping[str, float]] | None

    def measure(self, reference: Array, current: Array) -> float:
        """The metric's value for two samples of encoded rows.

        Raises:
            ValueError: The value is not a finite number.
        """
        return self.check(self.compare(self.summarise(reference), self.summarise(current)))

    def check(self, value: float) -> float:
        """``value``, when it is a finite number; ValueError otherwise."""
        if not math.isfinite(value):
            raise ValueError(f"drift metric {self.name!r} returned {value}")
        return float(value)

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
    floor, runbook, faults = found.FLOOR, found.RUNBOOK, getattr(found, "FAULTS", ())
    if not isinstance(floor, int | float) or not 0 <= floor < math.inf:
        raise UsageError(f"drift metric {name!r}: FLOOR must be a number of at least 0")
    if not isinstance(runbook, Mapping) or any(len(advice) != 2 for advice in runbook.values()):
        raise UsageError(f"drift metric {name!r}: RUNBOOK must map subject patterns to Advice")
    if isinstance(faults, str):
        raise UsageError(f"drift metric {name!r}: FAULTS must be a tuple of subject patterns")
    return DriftMetric(
        name=name,
        unit=str(found.UNIT),
        floor=float(floor),
        runbook=runbook,
        encode=found.encode,
        compare=found.compare,
        fit=getattr(found, "fit", _fit_nothing),
        summarise=getattr(found, "summarise", _keep_rows),
        draw=getattr(found, "draw", None),
        faults=tuple(faults),
        list_shares=getattr(found, "list_shares", None),
    )
