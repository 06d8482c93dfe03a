"""Compare a canary with the baseline, at any time and as often as needed.

The baseline is the main predictor, which serves the champion. Each measure is a proportion of a
predictor's answers: errors, slow answers, fallbacks, answers without a click or without a purchase.
Each proportion
gets a *confidence sequence*: an interval that contains the true value at all sample sizes
simultaneously with probability ``1 - error``. The comparison may therefore be repeated after every
request and stopped at any time, without the inflated error of repeated fixed-sample tests.

The sequence inverts Robbins' mixture martingale for a Bernoulli proportion with the Jeffreys prior:
after n answers, s of them bad, it contains every p with

    B(s + 1/2, n - s + 1/2) / B(1/2, 1/2) < p^s (1 - p)^(n - s) / error

(Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of
Mathematical Statistics 41, 1970; the coverage is Ville's inequality; Howard, Ramdas, McAuliffe and
Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49,
2021). It is also exact while no bad answer was observed. The difference of two proportions lies
between the differences of their bounds. The error is divided among both predictors and all
measures, so that all bounds of a rollout hold simultaneously.

Answers to one person are not independent: who buys little buys little after every answer. Clicks
and purchases are therefore counted by person, and both counts of a proportion are divided by its
design effect: the variance of the proportion over people, relative to that of as many independent
answers (Rao and Scott, "A simple method for the analysis of clustered binary data", Biometrics 48,
1992); see ``components.deployment.quality``. Errors, slow answers and fallbacks are faults of a
server, not of a person, and are counted as they are.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from components.deployment.settings import RolloutSettings
from refit.settings import Settings
from refit.verdict import Check, Verdict

Action = Literal["hold", "promote", "roll_back"]
Interval = tuple[float, float]


class Proportion(Settings):
    """A number of bad answers and the number of all answers; None if unknown.

    Attributes:
        bad: Number of bad answers.
        total: Number of all answers.
    """

    bad: float | None = None
    total: float | None = None

    @property
    def problem(self) -> str:
        """Why this is not a valid proportion; "" if it is valid."""
        if self.bad is None or self.total is None:
            return "is missing"
        if not (math.isfinite(self.bad) and math.isfinite(self.total)):
            return f"is not finite: {self.bad:g} of {self.total:g}"
        if not 0 <= self.bad <= self.total:
            return f"is not a proportion: {self.bad:g} of {self.total:g}"
        return ""


class PredictorMetrics(Settings):
    """Metrics of one predictor since the comparison started.

    Attributes:
        bundle_id: The bundle that it serves.
        pods: Number of ready pods.
        restarts: Number of container restarts.
        errors, fallbacks, slow: Proportions of its requests.
        no_click, no_purchase: Answers without this outcome among those that are old enough, as an
            effective number of independent answers.
        users: Number of people among these answers; None if unknown.
    """

    bundle_id: str
    pods: int = Field(default=0, ge=0)
    restarts: int = Field(default=0, ge=0)
    errors: Proportion = Proportion()
    fallbacks: Proportion = Proportion()
    slow: Proportion = Proportion()
    no_click: Proportion = Proportion()
    no_purchase: Proportion = Proportion()
    users: int | None = None


class CanaryVerdict(Settings):
    """The result of a comparison: what to do with the canary, and why.

    Attributes:
        action: Promote, roll back, or hold: continue to compare.
        reasons: Why it is rolled back or held; empty if it is promoted.
        verdict: The measurements and thresholds.
        is_worse: Whether the canary was shown to be worse, which is more than not shown to be good.
    """

    action: Action
    reasons: tuple[str, ...]
    verdict: Verdict
    is_worse: bool = False


@dataclass(frozen=True)
class _Measure:
    """One measure: how much worse the canary is than the baseline, and how much is allowed.

    Attributes:
        name: Of the difference, such as "increase in errors".
        allowed: The largest allowed difference.
        relative: Whether the difference is relative to the baseline's proportion of hits.
    """

    name: str
    allowed: float
    baseline: Proportion
    canary: Proportion
    relative: bool = False

    @property
    def n(self) -> float:
        """The smaller number of answers of the two predictors."""
        return min(self.baseline.total or 0, self.canary.total or 0)

    @property
    def problem(self) -> str:
        """Why the measure cannot be computed; "" if it can."""
        for name, proportion in (("baseline", self.baseline), ("canary", self.canary)):
            if proportion.problem:
                return f"the value of the {name} {proportion.problem}"
        return ""

    def difference(self, error: float) -> Interval:
        """Lower and upper bound of how much worse the canary is."""
        baseline, canary = (confidence_sequence(p, error) for p in (self.baseline, self.canary))
        if not self.relative:
            return canary[0] - baseline[1], canary[1] - baseline[0]
        # The proportions are misses; the ratio of hits is compared.
        low, high = 1 - baseline[1], 1 - baseline[0]
        ratio = (1 - canary[1]) / high, (1 - canary[0]) / low if low else math.inf
        return 1 - ratio[1], 1 - ratio[0]


def compare_canary(
    settings: RolloutSettings,
    baseline: PredictorMetrics,
    canary: PredictorMetrics,
    expired: bool,
    days: float,
) -> CanaryVerdict:
    """Decide whether to promote the canary, roll it back, or hold.

    A canary is promoted when every measure is shown to be within its limit, both predictors have
    answered enough requests and people, and the comparison has lasted long enough. Missing values,
    NaN and too little evidence hold. It is rolled back when one measure is shown to exceed its
    limit, when its containers restart too often, or when the deadline has passed before it could be
    promoted.

    Args:
        settings: The limits.
        baseline: Metrics of the predictor that serves the champion.
        canary: Metrics of the predictor that serves the candidate.
        expired: Whether the deadline has passed.
        days: How long the comparison has lasted, in days.
    """
    measures = tuple(_measures(settings, baseline, canary))
    error = settings.confidence_error / (2 * len(measures))
    checks = [
        Check(name="whole days of comparison", measured=int(days), at_least=settings.min_days)
    ]
    users = _count_users(baseline, canary)
    if settings.outcomes:
        name = "people whose clicks and purchases are compared"
        checks.append(Check(name=name, measured=users, at_least=settings.min_users))
    violations = []
    for measure in measures:
        bounds = None if measure.problem else measure.difference(error)
        checks.append(_check(settings, measure, bounds))
        is_thin = measure.relative and (
            (users or 0) < settings.min_users or measure.n < settings.min_requests
        )
        if bounds and bounds[0] > measure.allowed and not is_thin:
            violations.append(
                f"{measure.name} is at least {bounds[0]:.4g}, {measure.allowed:.4g} is allowed"
            )
    if canary.restarts > settings.restarts:
        violations.append(f"the canary's containers restarted {canary.restarts} times")
    verdict = Verdict.of(checks)
    if violations:
        return CanaryVerdict(
            action="roll_back",
            reasons=tuple(violations),
            verdict=verdict.refused_for(violations),
            is_worse=True,
        )
    if verdict.passed:
        return CanaryVerdict(action="promote", reasons=(), verdict=verdict)
    if expired:
        reasons = ("the deadline has passed without sufficient evidence", *verdict.reasons)
        return CanaryVerdict(
            action="roll_back", reasons=reasons, verdict=verdict.refused_for(reasons)
        )
    return CanaryVerdict(action="hold", reasons=verdict.reasons, verdict=verdict)


def confidence_sequence(proportion: Proportion, error: float) -> Interval:
    """Bounds that contain the true proportion at all sample sizes with probability 1 - ``error``.

    Args:
        proportion: A valid proportion.
        error: Probability that the true value is ever outside of the bounds.
    """
    from scipy.optimize import brentq
    from scipy.special import betaln, xlog1py, xlogy

    bad, n = float(proportion.bad or 0), float(proportion.total or 0)
    if not n:
        return 0.0, 1.0
    threshold = betaln(bad + 0.5, n - bad + 0.5) - betaln(0.5, 0.5) + math.log(error)

    def excess(p: float) -> float:
        """Log-likelihood above the threshold; positive inside the interval."""
        return float(xlogy(bad, p) + xlog1py(n - bad, -p) - threshold)

    def bound(end: float) -> float:
        """The interval's bound towards 0 or 1; those are replaced by the nearest usable numbers."""
        inner = min(max(end, 1e-300), 1 - 1e-16)
        return end if excess(inner) > 0 else float(brentq(excess, bad / n, inner))

    return bound(0.0) if bad else 0.0, bound(1.0) if bad < n else 1.0


def _measures(
    settings: RolloutSettings, baseline: PredictorMetrics, canary: PredictorMetrics
) -> Iterator[_Measure]:
    yield _Measure("increase in errors", settings.error_increase, baseline.errors, canary.errors)
    yield _Measure(
        "increase in fallbacks", settings.fallback_increase, baseline.fallbacks, canary.fallbacks
    )
    yield _Measure("increase in slow answers", settings.slow_increase, baseline.slow, canary.slow)
    for name, tolerance, missed in (
        ("loss of clicks", settings.click_tolerance, (baseline.no_click, canary.no_click)),
        (
            "loss of purchases",
            settings.purchase_tolerance,
            (baseline.no_purchase, canary.no_purchase),
        ),
    ):
        if tolerance is not None:
            yield _Measure(name, tolerance, *missed, relative=True)


def _count_users(baseline: PredictorMetrics, canary: PredictorMetrics) -> int | None:
    """The smaller number of people of the two predictors; None if one is unknown."""
    if baseline.users is None or canary.users is None:
        return None
    return min(baseline.users, canary.users)


def _check(settings: RolloutSettings, measure: _Measure, bounds: Interval | None) -> Check:
    return Check(
        name=f"{measure.name} at worst",
        measured=bounds[1] if bounds else None,
        at_most=measure.allowed,
        n=int(measure.n) if bounds else None,
        needs_n=settings.min_requests,
        why=measure.problem,
    )
