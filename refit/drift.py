"""The DriftResult: one drift measurement, and the three things it can say."""

from datetime import datetime
from enum import StrEnum

from refit.settings import Settings


class DriftState(StrEnum):
    """What a result says; too little data is insufficient data, never ok."""

    OK = "ok"
    DRIFT = "drift"
    INSUFFICIENT_DATA = "insufficient data"


class Window(Settings):
    """A half-open stretch of time, [start, end), in UTC."""

    start: datetime
    end: datetime


class DriftResult(Settings):
    """One drift measurement over one window.

    Attributes:
        subject: What was measured, e.g. ``query-embedding`` or ``scores``.
        statistic: The measure's name, e.g. ``frechet``; None value means it was not measured.
        threshold: Drift is said when the value lies above it.
        n_reference, n_current: Rows that the two sides rest on.
        why: The reason for insufficient data, in words a person on call can use.
        level: The measured rate or amount itself, where the value is a change of it.
        interval: 95% interval of the level.
        detail: What else a reader should know, e.g. how many rows were left out.
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
    detail: str = ""
