"""The Verdict: the measurements of a gate, their bounds, and whether the gate passed."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from refit.settings import Settings
from refit.subject import VerdictSubject

Outcome = Literal["passed", "refused", "cannot tell"]


class Check(Settings):
    """One check of a gate: a measurement and its bounds.

    Attributes:
        at_least, at_most: Inclusive bounds.
        above: An exclusive lower bound.
        n, needs_n: Number of cases it is based on, and the minimum number.
        why: The reason why it was not measured.
        undecided: Whether a failure only means that the data are too few to tell.
        more: What would be enough to tell, such as ``about 900 more queries would do``.
    """

    name: str
    measured: float | None
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    n: int | None = None
    needs_n: int = 0
    why: str = ""
    undecided: bool = False
    more: str = ""

    @property
    def failure(self) -> str | None:
        """Why the check fails; None if it passes. A check that was not measured fails."""
        fault = self._find_fault()
        return f"{fault}; {self.more}" if fault and self.more else fault

    @property
    def cannot_tell(self) -> bool:
        """Whether it fails, and only because the data are too few to tell."""
        measured = self.measured is not None and not math.isnan(self.measured)
        return measured and self.failure is not None and (self.undecided or self._is_thin)

    @property
    def _is_thin(self) -> bool:
        return bool(self.needs_n) and (self.n is None or self.n < self.needs_n)

    def _find_fault(self) -> str | None:
        if self.measured is None or math.isnan(self.measured):
            return f"{self.name} was not measured" + (f": {self.why}" if self.why else "")
        if self._is_thin:
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
    """The result of a gate: passed if there was at least one check and all of them passed.

    Attributes:
        outcome: ``cannot tell`` if it did not pass, and each failure only means that the data are
            too few. Like ``refused``, it allows no promotion.
        subject: What was judged; nothing else is promoted by this verdict.
    """

    passed: bool
    outcome: Outcome = "refused"
    reasons: tuple[str, ...]
    measurements: Mapping[str, float | None]
    checks: tuple[Check, ...]
    subject: VerdictSubject | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_outcome(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "outcome" not in values:
            return {**values, "outcome": "passed" if values.get("passed") is True else "refused"}
        return values

    @model_validator(mode="after")
    def _check_outcome(self) -> Self:
        if self.passed is not (self.outcome == "passed"):
            raise ValueError(f"passed is {self.passed}, but the outcome is {self.outcome!r}")
        return self

    @classmethod
    def of(cls, checks: Iterable[Check], subject: VerdictSubject | None = None) -> Self:
        """Evaluate ``checks``; without any check the verdict is not passed."""
        evaluated = tuple(_without_nan(check) for check in checks)
        failed = [check for check in evaluated if check.failure]
        failures = tuple(failure for check in failed if (failure := check.failure))
        if not evaluated:
            failures = ("nothing was measured",)
        outcome: Outcome = "refused" if failures else "passed"
        if failed and all(check.cannot_tell for check in failed):
            outcome = "cannot tell"
        return cls(
            passed=not failures,
            outcome=outcome,
            reasons=failures,
            measurements={check.name: check.measured for check in evaluated},
            checks=evaluated,
            subject=subject,
        )

    def refused_for(self, reasons: Iterable[str]) -> Self:
        """The same measurements, refused for other reasons."""
        changed = {"passed": False, "outcome": "refused", "reasons": tuple(reasons)}
        return self.model_copy(update=changed)


def _without_nan(check: Check) -> Check:
    """Replace NaN, which JSON cannot represent, by None, which fails too."""
    if check.measured is not None and not math.isfinite(check.measured):
        why = check.why or f"its value is {check.measured}"
        return check.model_copy(update={"measured": None, "why": why})
    return check
