"""Drift results of live quality."""

from scipy.special import stdtr, stdtrit

from monitoring.quality.baseline import JudgedRate
from refit.drift import DriftResult, DriftState, Window

_FREEDOM = 10.0


def report_drop(
    subject: str,
    window: Window,
    embedding_version: str,
    judgement: JudgedRate,
    share: bool,
    detail: str,
    beyond: tuple[float, float] | None = None,
    rate: float = 0.01,
) -> DriftResult:
    """A rate's drop below what was expected, or why it is unknown.

    Args:
        subject: Such as ``live:click-rate``.
        window: The window of the run.
        embedding_version: The towers.
        judgement: The rate beside what was expected.
        share: Whether the rate is a share of answers.
        detail: Further information.
        beyond: Drop and threshold to report instead: those beyond the fall of the market.
        rate: The false alarm rate of that threshold.
    """
    now = judgement.now
    level = None if now is None or not now.total else now.rate
    interval = None if now is None or level is None else now.interval(share)
    n = 0 if now is None else round(now.total)
    if judgement.expected is None:
        return insufficient_data(
            subject, "drop", window, embedding_version, judgement.why, n, level, interval, detail
        )
    value, threshold = beyond or (judgement.drop, judgement.threshold)
    return DriftResult(
        subject=subject,
        statistic="drop",
        value=value,
        threshold=threshold,
        n_reference=round(judgement.n_earlier),
        n_current=n,
        window=window,
        state=DriftState.DRIFT if value > threshold else DriftState.OK,
        p_value=judgement.p_value if beyond is None else find_p_value(value, threshold, rate),
        embedding_version=embedding_version,
        level=level,
        interval=interval,
        detail=detail,
    )


def find_p_value(value: float, threshold: float, rate: float) -> float:
    """The probability of at least this drop, from the drop that has a known probability.

    Student's distribution with few degrees of freedom stands for what is not known of its spread.
    """
    scale = threshold / -float(stdtrit(_FREEDOM, rate))
    return float(stdtr(_FREEDOM, -value / max(scale, 1e-300)))


def insufficient_data(
    subject: str,
    statistic: str,
    window: Window,
    embedding_version: str,
    why: str,
    n_current: int = 0,
    level: float | None = None,
    interval: tuple[float, float] | None = None,
    detail: str = "",
) -> DriftResult:
    """A result that was not measured, with the reason, and the level if that is known."""
    return DriftResult(
        subject=subject,
        statistic=statistic,
        value=None,
        threshold=None,
        n_reference=0,
        n_current=n_current,
        window=window,
        state=DriftState.INSUFFICIENT_DATA,
        embedding_version=embedding_version,
        why=why,
        level=level,
        interval=interval,
        detail=detail,
    )
