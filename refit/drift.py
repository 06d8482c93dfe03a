"""The DriftResult: one drift measurement and its state."""

from datetime import datetime
from enum import StrEnum

from refit.settings import Settings


class DriftState(StrEnum):
    """The state of a drift measurement; it is never ok if there is too little data.

    What is not checked needs a column or a table that this installation has never had: it raises no
    alert, and nothing can be concluded from it.
    """

    OK = "ok"
    DRIFT = "drift"
    INSUFFICIENT_DATA = "insufficient data"
    NOT_CHECKED = "not checked"


class Window(Settings):
    """A half-open period of time, [start, end), in UTC."""

    start: datetime
    end: datetime


class DriftResult(Settings):
    """One drift measurement over one window.

    Attributes:
        subject: What was measured, e.g. ``query-embedding`` or ``scores``.
        statistic: Name of the drift metric, e.g. ``mean_shift``.
        value: The metric's value; None when there was insufficient data, or nothing was checked.
        threshold: Larger values are drift; None if ``value`` is.
        n_reference, n_current: Number of usable rows of the reference and of the window.
        window: The period that was measured.
        state: ok, drift, insufficient data or not checked.
        embedding_version: The towers whose vectors and scores were measured.
        why: The reason for insufficient data, or why nothing was checked, for the person on call.
        level: The measured rate itself, if the value is a change of a rate.
        interval: 95% confidence interval of the level.
        p_value: Probability of at least this value where nothing drifts; None if unknown.
        detail: Further information, e.g. how many rows were left out.
        pooled_windows: How many windows up to this one the rows come from; such results of
            neighbouring windows share rows.
    """

    subject: str
    statistic: str
    value: float | None
    threshold: float | None
    n_reference: int
    n_current: int
    window: Window
    state: DriftState
    embedding_version: str = ""
    why: str = ""
    level: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    detail: str = ""
    pooled_windows: int = 1

    @property
    def name(self) -> str:
        """``subject/statistic``, as the policy's patterns match it."""
        return f"{self.subject}/{self.statistic}"
