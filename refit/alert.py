"""The Alert: drift results under review, from the decision to the outcome."""

from datetime import datetime
from enum import StrEnum

from refit.drift import DriftResult
from refit.settings import Settings


class Action(StrEnum):
    """The policy's decision about a set of results."""

    NOTHING = "nothing"
    ALERT = "alert"
    REFIT = "refit"


class DriftDecision(Settings):
    """The decision of one run of the monitor, with every reason for it.

    Attributes:
        action: The action.
        reasons: One sentence each; the deciding one is last.
        at: The time of the decision, UTC.
        dry_run: Whether the action is only reported.
    """

    action: Action
    reasons: tuple[str, ...]
    at: datetime
    dry_run: bool = False


class AlertStatus(StrEnum):
    """State of the review of an alert."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Alert(Settings):
    """Results that need a review, with the decision, the reviewers and the outcome.

    Attributes:
        alert_id: Bundle and end of the window, such as ``<bundle>-20240312T0000``.
        created_at: The time of the decision, UTC.
        bundle_id: The bundle that served.
        embedding_version: Embedding version of its towers; bundles with a refreshed index share it.
        results: The results that the decision is based on.
        decision: The decision about them.
        status: State of the review.
        report: File name of the review page.
        acknowledged_by, resolved_by: Names of the reviewers.
        note: The reviewer's explanation.
        refit_run: Name of the refit's run; empty without one.
        outcome: How the refit ended.
    """

    alert_id: str
    created_at: datetime
    bundle_id: str
    embedding_version: str = ""
    results: tuple[DriftResult, ...]
    decision: DriftDecision
    status: AlertStatus = AlertStatus.OPEN
    report: str = ""
    acknowledged_by: str = ""
    resolved_by: str = ""
    note: str = ""
    refit_run: str = ""
    outcome: str = ""
