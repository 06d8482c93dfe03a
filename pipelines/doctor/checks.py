"""What a check is, and how its exceptions become results."""

from collections.abc import Callable, Iterable, Iterator

from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.failures import explain, summarize
from refit.settings import Settings


class CheckResult(Settings):
    """The result of one check.

    Attributes:
        subject: What was checked.
        ok: Whether it is as it should be; False also when it could not be checked.
        detail: What was found, or what to do.
        exit_code: What it adds to the exit code: 0, 2 for the setup, 5 for an unreachable service.
    """

    subject: str
    ok: bool
    detail: str
    exit_code: int = 0


Check = Callable[[], Iterable[CheckResult]]
"""Checks one thing, or several that belong together."""


def ok(subject: str, detail: str) -> CheckResult:
    """A result that needs no action."""
    return CheckResult(subject=subject, ok=True, detail=detail)


def not_ok(subject: str, detail: str, kind: type[RefitError] = UsageError) -> CheckResult:
    """A result that needs an action.

    Args:
        subject: What was checked.
        detail: What was found and what to do.
        kind: The error that a command would have ended with.
    """
    return CheckResult(subject=subject, ok=False, detail=detail, exit_code=kind.exit_code)


def run_check(subject: str, check: Check) -> Iterator[CheckResult]:
    """The results of a check; an exception is a result too."""
    try:
        yield from check()
    except Exception as error:
        yield from_error(subject, error)


def from_error(subject: str, error: Exception) -> CheckResult:
    """The result of a check that failed with an exception."""
    known = explain(error)
    if known is None:
        return not_ok(subject, f"it could not be checked: {summarize(error)}")
    unreachable = isinstance(known, ServiceUnreachable)
    return not_ok(subject, str(known), ServiceUnreachable if unreachable else UsageError)


def exit_code_of(results: Iterable[CheckResult]) -> int:
    """0 when all is ok; 5 when a service cannot be reached; else 2."""
    return max((result.exit_code for result in results), default=0)
