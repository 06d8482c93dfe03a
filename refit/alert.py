"""The Alert: drift results under review, from the decision to the outcome."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from refit.drift import DriftResult
from refit.incident import Incident
from refit.settings import Settings


class Action(StrEnum):
    """The policy's decision about a set of results.

    ``alert`` only tells a person; ``wait`` tells them that labels will decide.
    """

    NOTHING = "nothing"
    ALERT = "alert"
    WAIT = "wait"
    REFRESH = "refresh"
    QUARANTINE = "quarantine"
    ROLL_BACK = "roll back"
    REFIT = "refit"


class Severity(StrEnum):
    """How soon a person must look; the same words as the labels of the Prometheus alerts."""

    INFO = "info"
    WARN = "warn"
    PAGE = "page"


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

    def is_carried_out(self, automatic: Sequence[Action]) -> bool:
        """Whether the action follows by itself, given those that do."""
        return self.action in automatic and not self.dry_run


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
        settled_until: End of the newest window when it was resolved: what drifted until then is
            accepted, and evidence begins again.
        note: The reviewer's explanation.
        refit_run: Name of the refit's run; empty without one.
        outcome: How the refit ended.
        severity: How soon a person must look; it only rises while the alert is unresolved.
        incident: The story of the results, when one was found.
        muted_until: No notification is sent before this time.
        escalated_at: When a worse change was last added to the alert.
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
    settled_until: datetime | None = None
    note: str = ""
    refit_run: str = ""
    outcome: str = ""
    severity: Severity = Severity.WARN
    incident: Incident | None = None
    muted_until: datetime | None = None
    escalated_at: datetime | None = None


class AuditEntry(Settings):
    """Something that a person, or the monitor, did; entries are never changed.

    Attributes:
        at: When, UTC.
        by: Who: a name, or ``monitor``.
        role: ``viewer``, ``on-call`` or ``monitor``.
        did: Such as ``acknowledge``, ``release quarantine`` or ``roll back``.
        subject: Id of what it was done to: an alert, a quarantine, a refit or a bundle.
        reason: Why, in the person's words.
        alert_id: The alert that it was about; empty when there is none.
    """

    at: datetime
    by: str
    role: str
    did: str
    subject: str
    reason: str = ""
    alert_id: str = ""
