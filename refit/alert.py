"""The Alert: what a person reviews, from first sight to what came of it."""

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
    """What was decided about one monitoring run, and every reason that led there."""

    action: Action
    reasons: tuple[str, ...]
    at: datetime
    dry_run: bool = False


class AlertStatus(StrEnum):
    """Where an alert stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Alert(Settings):
    """Readings that moved, what was decided, who looked at it and what came of it.

    Attributes:
        bundle_id: The bundle that served.
        embedding_version: Its towers; later bundles with refreshed indexes carry the same.
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
