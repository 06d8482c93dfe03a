"""The Verdict: the measurements of a gate, their bounds, and whether the gate passed."""

import math
from collections.abc import Iterable, Mapping
from typing import Self

from refit.settings import Settings


class Check(Settings):
    """One check of a gate: a measurement and its bounds.

    Attributes:
        at_least, at_most: Inclusive bounds.
        above: An exclusive lower bound.
        n, needs_n: Number of cases it is based on, and the minimum number.
        why: The reason why it was not measured.
        more: What to do about a failure.
    """

    name: str
    measured: float | None
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    n: int | None = None
    needs_n: int = 0
    why: str = ""
    more: str = ""

    @property
    def failure(self) -> str | None:
        """Why the check fails; None if it passes. A check that was not measured fails."""
        fault = self._find_fault()
        return f"{fault}; {self.more}" if fault and self.more else fault

    def _find_fault(self) -> str | None:
        if self.measured is None or math.isnan(self.measured):
            return f"{self.name} was not measured" + (f": {self.why}" if self.why else "")
        if self.needs_n and (self.n is None or self.n < self.needs_n):
            return f"{self.name} rests on {self.n or 0} cases, {self.needs_n} are needed"
        if self.at_least is None and self.at_most is None and self.above is None:
            return f"{self.name} has no bound"
        if self.above is not None and not self.measured > self.above:
            return f"{self.name} is {self.measured:.4g}, above {self.above:.4g} is needed"
        if self.at_least is not None and not self.measured >= self.at_least:
            return f"{self.name} is {self.measured:.4g}, at least {self.at_least:.4g} is needed"
        if self.at_most is not None and not self.measured <= self.at_most:
            return f"{self.name} is {self.measured:.4g}, at most {self.at_most:.4g} is allowed"
        return None


class Verdict(Settings):
    """The result of a gate: passed if there was at least one check and all of them passed."""

    passed: bool
    reasons: tuple[str, ...]
    measurements: Mapping[str, float | None]
    checks: tuple[Check, ...]

    @classmethod
    def of(cls, checks: Iterable[Check]) -> Self:
        """Evaluate ``checks``; without any check the verdict is not passed."""
        evaluated = tuple(_without_nan(check) for check in checks)
        failures = tuple(failure for check in evaluated if (failure := check.failure))
        if not evaluated:
            failures = ("nothing was measured",)
        return cls(
            passed=not failures,
            reasons=failures,
            measurements={check.name: check.measured for check in evaluated},
            checks=evaluated,
        )


def _without_nan(check: Check) -> Check:
    """Replace NaN, which JSON cannot represent, by None, which fails too."""
    if check.measured is not None and not math.isfinite(check.measured):
        why = check.why or f"its value is {check.measured}"
        return check.model_copy(update={"measured": None, "why": why})
    return check
