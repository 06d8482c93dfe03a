"""Harm: how many purchases a change costs, and whether a refit is worth its price."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from monitoring.settings import PolicySettings
from refit.drift import DriftResult, DriftState
from refit.settings import Settings

PURCHASES = "live:purchase-rate"
_USUAL_FALL = 0.1
"""Standard deviation of true falls, as a share of the rate."""
_NO_HARM = 0.05
"""A smaller fall, as a share of the rate, is no harm."""
_ONE_SIDED = 1.645
"""Standard errors of a one-sided interval of 95%."""
_BEFORE = timedelta(days=28)
UNSEEN = ("query-embedding/new_region", "listing-embedding/new_region")


class Harm(Settings):
    """What a change costs if nobody acts.

    Attributes:
        purchases: Purchases that are expected to be lost within the horizon of the policy.
        is_measured: Whether it rests on live quality; otherwise on what is assumed.
        hurts: Whether purchases fell; None where it cannot be told.
        because: How it was found, in a sentence.
    """

    purchases: float
    is_measured: bool
    hurts: bool | None = None
    because: str


def find_begin(results: Sequence[DriftResult]) -> datetime | None:
    """Start of the unbroken run of windows, up to the newest, in which something drifts.

    Live rates are left out: they are what the change is judged by.
    """
    drifted: dict[datetime, bool] = {}
    starts: dict[datetime, datetime] = {}
    for result in results:
        if result.subject.startswith("live:"):
            continue
        end = result.window.end
        starts[end] = result.window.start
        drifted[end] = drifted.get(end, False) or result.state is DriftState.DRIFT
    begin = None
    for end in sorted(drifted, reverse=True):
        if not drifted[end]:
            break
        begin = starts[end]
    return begin


def estimate_harm(
    policy: PolicySettings,
    results: Sequence[DriftResult],
    window_days: float,
    lag: timedelta = timedelta(0),
) -> Harm:
    """The expected loss over the policy's horizon since something drifts.

    The purchase rate of the windows since then is compared with that of the four weeks before, and
    the fall counts as far as it is sure. While no answer since then has matured, nothing is lost
    that is known of. Where purchases are not measured at all, answers that meet what the model has
    never seen are assumed to lose ``assumed_loss`` of theirs.

    Args:
        policy: Horizon and assumptions.
        results: Of the newest and of earlier windows, in any order.
        window_days: Length of a window.
        lag: How much later than the answers a window's purchase rate is known.
    """
    begin = find_begin(results)
    rates = [r for r in results if r.subject == PURCHASES and r.level is not None and r.interval]
    if not rates:
        return _assume(policy, results, window_days)
    newest = max(result.window.end for result in results)
    known = begin + lag if begin is not None else newest - timedelta(days=window_days)
    since = [r for r in rates if r.window.start >= known]
    before = [r for r in rates if known - _BEFORE <= r.window.start < known]
    if not since or not before:
        return Harm(
            purchases=0.0,
            is_measured=False,
            because="what it costs is not known yet: no answers since it began have matured",
        )
    (now, now_error), (usual, usual_error) = _pool(since), _pool(before)
    fall, error = usual - now, (now_error**2 + usual_error**2) ** 0.5
    answers = sum(r.n_current for r in since) / len(since) / window_days
    lost = _expect_fall(fall, error, usual) * answers * policy.horizon_days
    hurts = True if fall > _ONE_SIDED * error else None
    if fall + _ONE_SIDED * error < _NO_HARM * usual:
        hurts = False
    return Harm(
        purchases=lost,
        is_measured=True,
        hurts=hurts,
        because=(
            f"{now:.2%} of the answers lead to a purchase since it began, {usual:.2%} before: "
            f"{lost:.3g} purchases are expected to be lost in {policy.horizon_days:g} days"
        ),
    )


def _assume(policy: PolicySettings, results: Sequence[DriftResult], window_days: float) -> Harm:
    """What is lost where purchases are not measured."""
    newest = max((result.window.end for result in results), default=None)
    here = [r for r in results if r.window.end == newest]
    unseen = max(
        (r.value for r in here if r.name in UNSEEN and r.state is DriftState.DRIFT and r.value),
        default=0.0,
    )
    answers = max((r.n_current for r in here if r.subject == "scores"), default=0) / window_days
    lost = policy.usual_rate * policy.assumed_loss * unseen * answers * policy.horizon_days
    return Harm(
        purchases=lost,
        is_measured=False,
        because=(
            f"purchases are not measured; {unseen:.1%} of the vectors are unlike any before, which "
            f"is assumed to lose {lost:.3g} purchases in {policy.horizon_days:g} days"
        ),
    )


def _pool(rates: Sequence[DriftResult]) -> tuple[float, float]:
    """The rate of several windows together, and its standard error."""
    total = sum(r.n_current for r in rates)
    rate = sum(r.n_current * (r.level or 0.0) for r in rates) / max(total, 1)
    squares = sum((r.n_current * (r.interval[1] - r.interval[0])) ** 2 for r in rates if r.interval)
    return rate, max(squares**0.5 / 3.92 / max(total, 1), 1e-9)


def _expect_fall(fall: float, error: float, before: float) -> float:
    """The mean of the true fall, given the measured one and how far falls usually go.

    Where nothing fell, chance alone must not look like a loss: the measured fall is drawn towards
    none, the more the less sure it is. Source: the normal posterior mean, Efron and Morris, 1973.
    """
    usual = (_USUAL_FALL * before) ** 2
    return max(0.0, fall * usual / max(usual + error**2, 1e-300))
