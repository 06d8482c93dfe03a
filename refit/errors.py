"""Errors that a user can act on, each with the exit code that the command line ends with."""

from typing import ClassVar


class RefitError(Exception):
    """An error whose message says what went wrong and what to do about it."""

    exit_code: ClassVar[int] = 1


class UsageError(RefitError):
    """A command, a setting, a path or a request is wrong."""

    exit_code = 2


class GateRefused(RefitError):  # noqa: N818 - a refusal is an outcome, not a fault
    """A gate refused: the model, bundle or rollout does not go further."""

    exit_code = 3


class DataValidationError(RefitError):
    """Data breaks its contract: a missing column, an empty window, too many rejected rows."""

    exit_code = 4


class ServiceUnreachable(RefitError):  # noqa: N818 - as above
    """A service that is needed does not answer, or refuses."""

    exit_code = 5


BY_EXIT_CODE: dict[int, type[RefitError]] = {
    kind.exit_code: kind
    for kind in (RefitError, UsageError, GateRefused, DataValidationError, ServiceUnreachable)
}
"""The error kind of an exit code."""
