"""Errors a person can act on, each with the exit code that the command line answers with."""

from typing import ClassVar


class RefitError(Exception):
    """Something went wrong that the message explains, with what to do about it."""

    exit_code: ClassVar[int] = 1


class UsageError(RefitError):
    """A command, a setting or a request was not understood."""

    exit_code = 2


class GateRefused(RefitError):  # noqa: N818 - a refusal is an outcome, named as people say it
    """A gate looked and said no: the model, bundle or rollout does not go further."""

    exit_code = 3


class DataValidationError(RefitError):
    """Data broke its contract: a missing column, an empty window, too many rejected rows."""

    exit_code = 4


class ServiceUnreachable(RefitError):  # noqa: N818 - as above
    """A service that this step needs did not answer."""

    exit_code = 5


BY_EXIT_CODE: dict[int, type[RefitError]] = {
    kind.exit_code: kind
    for kind in (RefitError, UsageError, GateRefused, DataValidationError, ServiceUnreachable)
}
