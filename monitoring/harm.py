"""Harm: how many purchases a change costs, and whether a refit is worth its price."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from monitoring.settings import PolicySettings
from refit.drift import DriftResult, DriftState
from refit.settings import Settings

PURCHASES = "live:purchase-rate"
_USUAL_FALL = 0.1
"""Standard deviation of true falls, as a share of the rate."""
_NO_HARM = 0.05
"""A smaller fall, as a share of the rate, is no harm."""
_SURE_OF_NONE, _SURE_OF_HARM = 1.645, 2.326
"""Standard errors of one-sided intervals of 95% and 99%: a fall is looked for every day."""
_DAY_TO_DAY, _PRIOR_DAYS = 0.05, 4.0
"""How much days differ beyond chance, as a share of the rate, and how many days that counts as."""
_BEFORE = timedelta(days=28)
_QUIET = 1
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
    """When what drifts now began to.

    Each result has a run of windows, up to the newest, in which it drifts; a single quiet window
    does not end it, since small changes do not show in every one. The start that most runs share
    counts, so that one result that always drifts does not move it. If no two share one, it is the
    start of the run in which anything drifts. Live rates are left out: they are what the change is
    judged by.
    """
    counted = [result for result in results if not result.subject.startswith("live:")]
    by_name: dict[str, list[DriftResult]] = {
        result.name: [] for result in counted if result.state is DriftState.DRIFT
    }
    for result in counted:
        if (name := result.name) in by_name:
            by_name[name].append(result)
    starts = Counter(start for each in by_name.values() if (start := _find_run(each)) is not None)
    if starts:
        start = min(starts, key=lambda start: (-starts[start], start))
        if starts[start] > 1:
            return start
    return _find_run(counted)


def _find_run(results: Sequence[DriftResult]) -> datetime | None:
    drifted = {result.window.end for result in results if result.state is DriftState.DRIFT}
    if not drifted:
        return None
    starts = {result.window.end: result.window.start for result in results}
    begin, quiet = None, 0
    for end in sorted(starts, reverse=True):
        quiet = 0 if end in drifted else quiet + 1
        if quiet > _QUIET:
            break
        if end in drifted:
            begin = starts[end]
    return begin


def estimate_harm(
    policy: PolicySettings,
    results: Sequence[DriftResult],
    window_days: float,
    lag: timedelta = timedelta(0),
) -> Harm:
    """The expected loss over the policy's horizon since something drifts.

    The purchase rate of the windows since then is compared with that of the four weeks before, on
    the same kind of days, and the fall counts as far as it is sure. While no answer since then has
    matured, nothing is lost that is known of. Where purchases are not measured at all, answers that
    meet what the model has never seen are assumed to lose ``assumed_loss`` of theirs.

    Args:
        policy: Horizon and assumptions.
        results: Of the newest and of earlier windows, in any order.
        window_days: Length of a window.
        lag: How much later than the answers a window's purchase rate is known.
    """
    rates = [r for r in results if r.subject == PURCHASES and r.level is not None and r.interval]
    if not rates:
        return _assume(policy, results, window_days)
    begin = find_begin(results)
    # What alone fell is known late already.
    known = begin + lag if begin is not None else _find_run(rates)
    if known is None:
        return Harm(
            purchases=0.0,
            is_measured=True,
            because="nothing drifts in the newest windows: there is nothing to win back",
        )
    since = [r for r in rates if r.window.start >= known]
    # A window in which it began belongs to neither.
    before = [r for r in rates if known - _BEFORE <= r.window.start and r.window.end <= known]
    if not since or not before:
        return Harm(
            purchases=0.0,
            is_measured=False,
            because=(
                "what it costs is not known yet: no answers since it began have matured, or there "
                "are none from before"
            ),
        )
    fall, error = _compare(since, before)
    now = _pool(since)[0]
    usual = now + fall
    answers = sum(r.n_current for r in since) / len(since) / window_days
    lost = _expect_fall(fall, error, usual) * answers * policy.horizon_days
    hurts = True if fall > _SURE_OF_HARM * error else None
    if fall + _SURE_OF_NONE * error < _NO_HARM * usual:
        hurts = False
    return Harm(
        purchases=lost,
        is_measured=True,
        hurts=hurts,
        because=(
            f"{now:.2%} of the answers lead to a purchase since it began, {usual:.2%} on such days "
            f"before (± {1.96 * error:.2%}): "
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


def _compare(since: Sequence[DriftResult], before: Sequence[DriftResult]) -> tuple[float, float]:
    """How far the rate fell below that of days of the same kind before, and the standard error.

    The error holds chance, and what days of a kind differ by.
    """
    kinds: dict[tuple[bool, int], list[DriftResult]] = {}
    for each in before:
        kinds.setdefault(_kind_of_day(each), []).append(each)
    apart = _vary_between_days(kinds.values(), _pool(before)[0])
    total = sum(r.n_current for r in since)
    fall, variance = 0.0, 0.0
    for kind in {_kind_of_day(each) for each in since}:
        own = [r for r in since if _kind_of_day(r) == kind]
        usual = kinds.get(kind, before)
        weight = sum(r.n_current for r in own) / max(total, 1)
        (rate, error), (expected, its_error) = _pool(own), _pool(usual)
        fall += weight * (expected - rate)
        days = apart * (_sum_of_squares(own) + _sum_of_squares(usual))
        variance += weight**2 * (error**2 + its_error**2 + days)
    return fall, variance**0.5


def _kind_of_day(result: DriftResult) -> tuple[bool, int]:
    """Whether it is on a weekend, and at what hour the window starts."""
    return result.window.start.weekday() >= 5, result.window.start.hour


def _vary_between_days(kinds: Iterable[Sequence[DriftResult]], rate: float) -> float:
    """Variance of the rates of windows of one kind beyond chance."""
    beyond, count = (_DAY_TO_DAY * rate) ** 2 * _PRIOR_DAYS, _PRIOR_DAYS
    for own in kinds:
        expected = _pool(own)[0]
        for each in own:
            beyond += ((each.level or 0.0) - expected) ** 2 - _pool([each])[1] ** 2
        count += max(len(own) - 1, 0)
    return max(beyond / count, 0.0)


def _sum_of_squares(rates: Sequence[DriftResult]) -> float:
    """Of the windows' shares of the answers."""
    total = sum(r.n_current for r in rates)
    return sum((r.n_current / max(total, 1)) ** 2 for r in rates)


def _pool(rates: Sequence[DriftResult]) -> tuple[float, float]:
    """The rate of several windows together, and its standard error by chance."""
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
