"""The Verdict: what a gate measured, what it demanded, and whether that was enough."""

import math
from collections.abc import Iterable, Mapping
from typing import Self

from refit.settings import Settings


class Check(Settings):
    """One demand of a gate: a measurement held against its bounds.

    Attributes:
        at_least, at_most: Inclusive bounds.
        above: An exclusive lower bound.
        n, needs_n: How many cases it rests on, and how many it must.
        why: What kept it from being measured.
    """

    name: str
    measured: float | None
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    n: int | None = None
    needs_n: int = 0
    why: str = ""

    @property
    def failure(self) -> str | None:
        """Why the check fails, or None when it passes; what was not measured fails."""
        if self.measured is None or math.isnan(self.measured):
            return f"{self.name} was not measured" + (f": {self.why}" if self.why else "")
        if self.needs_n and (self.n is None or self.n < self.needs_n):
            return f"{self.name} rests on {self.n or 0} cases, {self.needs_n} are needed"
        if self.at_least is None and self.at_most is None and self.above is None:
            return f"{self.name} has no bound to be held against"
        if self.above is not None and not self.measured > self.above:
            return f"{self.name} is {self.measured:.4g}, above {self.above:.4g} is needed"
        if self.at_least is not None and not self.measured >= self.at_least:
            return f"{self.name} is {self.measured:.4g}, at least {self.at_least:.4g} is needed"
        if self.at_most is not None and not self.measured <= self.at_most:
            return f"{self.name} is {self.measured:.4g}, at most {self.at_most:.4g} is allowed"
        return None


class Verdict(Settings):
    """A gate's answer: passed only when there were checks and every one of them passed."""

    passed: bool
    reasons: tuple[str, ...]
    measurements: Mapping[str, float | None]
    checks: tuple[Check, ...]

    @classmethod
    def of(cls, checks: Iterable[Check]) -> Self:
        """Judge ``checks``; no checks at all is a failure."""
        held = tuple(_without_nan(check) for check in checks)
        failures = tuple(failure for check in held if (failure := check.failure))
        if not held:
            failures = ("nothing was measured",)
        return cls(
            passed=not failures,
            reasons=failures,
            measurements={check.name: check.measured for check in held},
            checks=held,
        )


def _without_nan(check: Check) -> Check:
    """NaN has no place in JSON; it becomes None, which fails just the same."""
    if check.measured is not None and not math.isfinite(check.measured):
        why = check.why or f"it came out as {check.measured}"
        return check.model_copy(update={"measured": None, "why": why})
    return check
