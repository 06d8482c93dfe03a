"""Errors that a user can act on, each with the exit code of the command line."""

from typing import ClassVar


class RefitError(Exception):
    """An error whose message explains what went wrong and what to do about it."""

    exit_code: ClassVar[int] = 1


class UsageError(RefitError):
    """A command, a setting, a path or a request is wrong."""

    exit_code = 2


class GateRefused(RefitError):  # noqa: N818 - a refusal is an outcome, not a fault
    """A gate refused a model, a bundle or a rollout."""

    exit_code = 3


class DataValidationError(RefitError):
    """Data violates its contract: a missing column, an empty window, too many rejected rows."""

    exit_code = 4


class ServiceUnreachable(RefitError):  # noqa: N818 - as above
    """A required service does not answer, or refuses."""

    exit_code = 5


BY_EXIT_CODE: dict[int, type[RefitError]] = {
    kind.exit_code: kind
    for kind in (RefitError, UsageError, GateRefused, DataValidationError, ServiceUnreachable)
}
"""The error kind of an exit code."""
