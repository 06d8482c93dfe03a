"""Judging a canary against the main arm, at any time and as often as one likes.

What an arm does badly is a share of its answers: failed, slow, fallen back, led to nothing. Each
share gets a *confidence sequence*, an interval that covers the truth at all numbers of answers at
once with probability ``1 - error``. So one may look after every request and stop when one likes:
the error of a fixed-size interval, which repeated looks add up, does not arise.

The sequence inverts Robbins' mixture martingale for a Bernoulli share, with the Jeffreys prior:
after n answers, s of them bad, it holds every p with

    B(s + 1/2, n - s + 1/2) / B(1/2, 1/2) < p^s (1 - p)^(n - s) / error

(Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of
Mathematical Statistics 41, 1970; the coverage is Ville's inequality; Howard, Ramdas, McAuliffe and
Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49,
2021). It is exact also where nothing bad was seen yet. The difference of two shares lies between
the differences of their bounds; the error is divided among two arms and all measures, so that the
bounds of a whole rollout hold together.

Answers count as independent. Those of one person are not quite, which makes the intervals somewhat
too narrow: ask for more requests where few people make many.
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
    """How many of an arm's answers were bad; None is not known.

    Attributes:
        bad: That many.
        of: Of that many.
    """

    bad: float | None = None
    of: float | None = None

    @property
    def fault(self) -> str:
        """Why this is no share of anything; "" when it is one."""
        if self.bad is None or self.of is None:
            return "it is missing"
        if not (math.isfinite(self.bad) and math.isfinite(self.of)):
            return f"it came out as {self.bad:g} of {self.of:g}"
        if not 0 <= self.bad <= self.of:
            return f"{self.bad:g} of {self.of:g} is not a share"
        return ""


class Arm(Settings):
    """What one side of a rollout did since the comparison began.

    Attributes:
        bundle_id: What it serves.
        pods: Ready ones.
        restarts: Of its containers.
        errors, fallbacks, slow: Shares of its requests.
        misses: Answers that led to nothing, of those old enough.
    """

    bundle_id: str
    pods: int = Field(default=0, ge=0)
    restarts: int = Field(default=0, ge=0)
    errors: Proportion = Proportion()
    fallbacks: Proportion = Proportion()
    slow: Proportion = Proportion()
    misses: Proportion = Proportion()


class CanaryVerdict(Settings):
    """What to do, why, and the measurements behind it.

    Attributes:
        reasons: Of a roll back or a hold; empty when promoted.
    """

    action: Action
    reasons: tuple[str, ...]
    verdict: Verdict


@dataclass(frozen=True)
class _Measure:
    """One comparison: how much worse the canary may be, and how much worse it is."""

    name: str
    allowed: float
    main: Proportion
    canary: Proportion
    relative: bool = False

    @property
    def fault(self) -> str:
        """Why the arms cannot be compared; "" when they can."""
        for arm, share in (("main", self.main), ("canary", self.canary)):
            if share.fault:
                return f"of the {arm} arm {share.fault}"
        return ""

    def worse_by(self, error: float) -> Interval:
        """Bounds of how much worse the canary is."""
        main, canary = (confidence_sequence(s, error) for s in (self.main, self.canary))
        if not self.relative:
            return canary[0] - main[1], canary[1] - main[0]
        # Shares of misses: what is compared is what is left of the hits.
        least, most = 1 - main[1], 1 - main[0]
        kept = (1 - canary[1]) / most, (1 - canary[0]) / least if least else math.inf
        return 1 - kept[1], 1 - kept[0]


def compare_canary(
    settings: RolloutSettings, main: Arm, canary: Arm, expired: bool
) -> CanaryVerdict:
    """Promote, roll back, or hold.

    Promoted is only a canary that is proved, on every measure and with enough requests in both
    arms, to be no worse than allowed; what is missing, NaN or thin proves nothing and holds. It is
    rolled back as soon as one measure is proved to be worse than allowed or its containers
    restart, or when the deadline has passed without a proof.

    Args:
        settings: What is allowed.
        main: The arm that serves the champion.
        canary: The arm that serves the candidate.
        expired: Whether the deadline has passed.
    """
    measures = tuple(_measures(settings, main, canary))
    error = settings.confidence_error / (2 * len(measures))
    checks, harms = [], []
    for measure in measures:
        bounds = None if measure.fault else measure.worse_by(error)
        checks.append(_check(settings, measure, bounds))
        if bounds and bounds[0] > measure.allowed:
            harms.append(
                f"{measure.name} is at least {bounds[0]:.4g}, {measure.allowed:.4g} is allowed"
            )
    if canary.restarts > settings.restarts:
        harms.append(f"the canary's containers restarted {canary.restarts} times")
    verdict = Verdict.of(checks)
    if harms:
        return CanaryVerdict(
            action="roll_back", reasons=tuple(harms), verdict=_failed(verdict, harms)
        )
    if verdict.passed:
        return CanaryVerdict(action="promote", reasons=(), verdict=verdict)
    if expired:
        reasons = ("the deadline has passed without a proof", *verdict.reasons)
        return CanaryVerdict(action="roll_back", reasons=reasons, verdict=_failed(verdict, reasons))
    return CanaryVerdict(action="hold", reasons=verdict.reasons, verdict=verdict)


def confidence_sequence(share: Proportion, error: float) -> Interval:
    """Bounds that cover a share's truth at all times at once, but for ``error``.

    Args:
        share: A share without fault.
        error: Probability of ever being wrong.
    """
    from scipy.optimize import brentq
    from scipy.special import betaln, xlog1py, xlogy

    bad, n = float(share.bad or 0), float(share.of or 0)
    if not n:
        return 0.0, 1.0
    least = betaln(bad + 0.5, n - bad + 0.5) - betaln(0.5, 0.5) + math.log(error)

    def likelihood(p: float) -> float:
        """Above 0 inside of the interval."""
        return float(xlogy(bad, p) + xlog1py(n - bad, -p) - least)

    def bound(end: float) -> float:
        """Where the interval ends on the way to 0 or 1, which are as far as numbers go."""
        inner = min(max(end, 1e-300), 1 - 1e-16)
        return end if likelihood(inner) > 0 else float(brentq(likelihood, bad / n, inner))

    return bound(0.0) if bad else 0.0, bound(1.0) if bad < n else 1.0


def _measures(settings: RolloutSettings, main: Arm, canary: Arm) -> Iterator[_Measure]:
    yield _Measure("increase of errors", settings.error_increase, main.errors, canary.errors)
    yield _Measure(
        "increase of fallbacks", settings.fallback_increase, main.fallbacks, canary.fallbacks
    )
    yield _Measure("increase of slow answers", settings.slow_increase, main.slow, canary.slow)
    if settings.quality_drop is not None:
        yield _Measure("loss of quality", settings.quality_drop, main.misses, canary.misses, True)


def _check(settings: RolloutSettings, measure: _Measure, bounds: Interval | None) -> Check:
    counts = (measure.main.of, measure.canary.of)
    return Check(
        name=f"{measure.name} at worst",
        measured=bounds[1] if bounds else None,
        at_most=measure.allowed,
        n=int(min(n or 0 for n in counts)) if bounds else None,
        needs_n=settings.min_requests,
        why=measure.fault,
    )


def _failed(verdict: Verdict, reasons: tuple[str, ...] | list[str]) -> Verdict:
    return verdict.model_copy(update={"passed": False, "reasons": tuple(reasons)})
