"""What the alert store keeps besides results and alerts: refits, requests, notifications."""

from datetime import datetime
from enum import StrEnum

from refit.errors import UsageError
from refit.settings import Settings


class RefitState(StrEnum):
    """The state of a refit."""

    REQUESTED = "requested"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    FAILED = "failed"
    STOPPED = "stopped"


UNDER_WAY = (RefitState.REQUESTED, RefitState.RUNNING)


class Refit(Settings):
    """One refit, from claim to outcome.

    Attributes:
        key: The alert's id, or the id of a person's request; the launcher uses it as the run's
            name, so that a second attempt finds the run of the first.
        owner: Token of the process that holds the claim.
        attempt: 1, and one more each time an abandoned claim was taken over.
        requested_at: The time of the decision, UTC.
        outcome: The new bundle, or why there is none.
    """

    key: str
    alert_id: str
    bundle_id: str
    state: RefitState
    owner: str
    attempt: int
    requested_at: datetime
    outcome: str = ""


class Order(StrEnum):
    """What a person may have done about an alert, beyond the alert itself."""

    REFIT = "start a refit"
    STOP = "stop the refit"
    ROLL_BACK = "roll back"
    REFRESH = "refresh the index"


class OrderState(StrEnum):
    """How far a person's request is."""

    REQUESTED = "requested"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


ORDERS_UNDER_WAY = (OrderState.REQUESTED, OrderState.RUNNING)


class OrderRequest(Settings):
    """A person's request, which is carried out once.

    Attributes:
        request_id: Unique; also the name of the run that it starts.
        order: What is to be done.
        alert_id: The alert that it was made for.
        subject: What it is done to, as it was when the person asked: the champion that is rolled
            back, or the key of the refit that is stopped; else empty.
        by, reason: Who asked, and why.
        at: When, UTC.
        state: How far it is.
        owner: Token of the process that carries it out.
        attempt: 1 more each time that a process took it on.
        outcome: What was done, or why it was not.
    """

    request_id: str
    order: Order
    alert_id: str
    subject: str = ""
    by: str
    reason: str
    at: datetime
    state: OrderState = OrderState.REQUESTED
    owner: str = ""
    attempt: int = 0
    outcome: str = ""


class Notification(Settings):
    """One message about an alert, which is sent once to one channel.

    Attributes:
        key: Alert, severity, escalation and channel; no two messages have the same.
        alert_id: The alert.
        channel: ``webhook`` or ``email``.
        owner: Token of the process that sends it.
        attempt: 1 more each time that a process took it on.
        sent: Whether the channel has accepted it.
        error: Why the last attempt failed.
    """

    key: str
    alert_id: str
    channel: str
    owner: str
    attempt: int = 1
    sent: bool = False
    error: str = ""


class ClaimLost(RuntimeError):  # noqa: N818 - a state, not an error
    """Another owner took the claim over, because this one did not renew it, or it was stopped."""


class WrongState(UsageError):  # noqa: N818 - a state, not a fault
    """What was asked for is not possible now; the message says why."""


class UnknownId(UsageError):  # noqa: N818 - as above
    """The store holds nothing of this id."""
