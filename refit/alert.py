"""The Alert: what a person reviews, from the decision to the outcome."""

from datetime import datetime
from enum import StrEnum

from refit.drift import DriftResult
from refit.settings import Settings


class Action(StrEnum):
    """What the policy decided to do about a set of results."""

    NOTHING = "nothing"
    ALERT = "alert"
    REFIT = "refit"


class DriftDecision(Settings):
    """The decision of one run of the monitor, with every reason for it.

    Attributes:
        action: What to do.
        reasons: One sentence each, the deciding one last.
        at: The time of the decision, UTC.
        dry_run: Whether the action is only reported.
    """

    action: Action
    reasons: tuple[str, ...]
    at: datetime
    dry_run: bool = False


class AlertStatus(StrEnum):
    """How far the review of an alert is."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Alert(Settings):
    """Results that need a person's review, the decision, the reviewers and the outcome.

    Attributes:
        alert_id: Bundle and end of the window, such as ``<bundle>-20240312T0000``.
        created_at: The time of the decision, UTC.
        bundle_id: The bundle that served.
        embedding_version: Its towers; later bundles with refreshed indexes carry the same.
        results: The results that the decision rests on.
        decision: What was decided about them.
        status: How far the review is.
        report: File name of the review page.
        acknowledged_by, resolved_by: Who reviewed it.
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
