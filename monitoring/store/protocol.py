"""The small interface that the monitor and the review application have to the store."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from monitoring.store.records import Notification, OrderRequest, OrderState, Refit, RefitState
from monitoring.summary import WindowSummary
from refit.alert import Alert, AlertStatus, AuditEntry, DriftDecision
from refit.drift import DriftResult
from refit.quarantine import Quarantine


class AlertStore(Protocol):
    """What the monitor keeps between its runs, and what people did about it.

    A method that takes ``entry`` writes it to the audit trail in the transaction of the change, so
    that there is never one without the other.
    """

    def add_results(self, results: Sequence[DriftResult]) -> None:
        """Keep results; a result that was measured again replaces the earlier one."""

    def results(self, embedding_version: str, windows: int) -> list[DriftResult]:
        """The results of the latest windows under these towers, oldest first."""

    def add_summaries(self, embedding_version: str, summaries: Sequence[WindowSummary]) -> None:
        """Keep summaries; one of a window that was measured again replaces the earlier one."""

    def summaries(self, embedding_version: str) -> list[WindowSummary]:
        """The summaries of all windows under these towers, oldest first."""

    def newest_results(self) -> list[DriftResult]:
        """The results of the newest window, whatever towers."""

    def results_since(self, moment: datetime, subjects: str) -> list[DriftResult]:
        """Results of windows that ended later, whatever towers, oldest first.

        ``subjects`` is how their subjects begin.
        """

    def add_decision(self, bundle_id: str, decision: DriftDecision) -> None:
        """Keep a decision."""

    def decisions(self, bundle_id: str | None = None) -> list[DriftDecision]:
        """Decisions, oldest first."""

    def add_alert(self, alert: Alert) -> bool:
        """Keep a new alert; False when there is one of this id already."""

    def alert(self, alert_id: str) -> Alert:
        """One alert; UnknownId when there is none of this id."""

    def alerts(
        self, embedding_version: str | None = None, statuses: Sequence[AlertStatus] = ()
    ) -> list[Alert]:
        """Alerts, newest first; of these towers and statuses when they are given."""

    def update_alert(
        self,
        alert_id: str,
        expected: Sequence[AlertStatus],
        *,
        entry: AuditEntry | None = None,
        **changes: Any,
    ) -> Alert:
        """Change an alert that has one of these statuses; WrongState when it has another."""

    def add_entry(self, entry: AuditEntry) -> None:
        """Append to the audit trail."""

    def entries(self, alert_id: str | None = None, most: int = 1000) -> list[AuditEntry]:
        """The newest entries of the audit trail, newest first."""

    def check_audit(self) -> int:
        """Count the audit trail's entries; RefitError when one was changed or is missing."""

    def add_quarantine(self, quarantine: Quarantine, entry: AuditEntry | None = None) -> bool:
        """Keep a quarantine; False when there is one of this id already."""

    def quarantines(self, in_force: bool = True) -> list[Quarantine]:
        """Quarantines in force, or all of them; the earliest start first."""

    def release_quarantine(
        self, quarantine_id: str, at: datetime, by: str, note: str, entry: AuditEntry | None = None
    ) -> Quarantine:
        """Release a quarantine; WrongState when it was released already."""

    def claim_refit(
        self, key: str, alert: Alert, at: datetime, not_since: datetime, lease_seconds: float
    ) -> Refit | None:
        """Claim a new refit; None when the key is taken, one is under way, or one is too recent."""

    def take_over_refit(self, lease_seconds: float) -> Refit | None:
        """Take over a refit under way whose owner no longer renews its claim, if there is one."""

    def renew_refit(self, refit: Refit, lease_seconds: float) -> None:
        """Prolong a claim; ClaimLost when another owner has it."""

    def set_refit(self, refit: Refit, state: RefitState, outcome: str = "") -> Refit:
        """Set a refit's state; ClaimLost when another owner has the claim."""

    def stop_refit(self, key: str, outcome: str) -> Refit:
        """End a refit under way, whoever has its claim; WrongState when none of this key is."""

    def refits(self) -> list[Refit]:
        """All refits, oldest first."""

    def add_order(self, request: OrderRequest, entry: AuditEntry) -> None:
        """Keep a request; WrongState while one of its kind is under way."""

    def claim_order(self, lease_seconds: float) -> OrderRequest | None:
        """Take on the oldest request that nobody carries out, if there is one."""

    def renew_order(self, request: OrderRequest, lease_seconds: float) -> None:
        """Prolong a claim; ClaimLost when another owner has it."""

    def set_order(self, request: OrderRequest, state: OrderState, outcome: str) -> OrderRequest:
        """Set a request's state; ClaimLost when another owner has the claim."""

    def orders(self, alert_id: str | None = None) -> list[OrderRequest]:
        """Requests, newest first."""

    def claim_notification(
        self, key: str, alert_id: str, channel: str, lease_seconds: float
    ) -> Notification | None:
        """Take on a message; None when it was sent, or another process has it or waits."""

    def set_notification(
        self, notification: Notification, *, sent: bool, error: str = "", wait_seconds: float = 0.0
    ) -> Notification:
        """Record that a message was sent, or when it may be tried again; ClaimLost as above."""

    def notifications(self) -> list[Notification]:
        """All messages, by key."""

    def keep_run_request(self, pipeline: str, body: str) -> None:
        """Keep how a pipeline is started on the cluster; it replaces what was kept."""

    def run_request(self, pipeline: str) -> str:
        """How a pipeline is started on the cluster, as JSON; empty when nobody has said so."""
