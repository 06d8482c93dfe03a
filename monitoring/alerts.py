"""What people do with alerts: list, show, acknowledge, resolve, mute, release a quarantine.

The command line and the review application call the same functions. Each change is written with its
entry in the audit trail. What takes longer, such as a refit, is in ``monitoring/orders.py``.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from monitoring.review.pages import write_alert, write_index
from monitoring.store import AlertStore
from refit.alert import Alert, AlertStatus, AuditEntry, DriftDecision, Severity
from refit.drift import DriftResult
from refit.errors import UsageError
from refit.incident import Incident
from refit.quarantine import Quarantine

UNRESOLVED = (AlertStatus.OPEN, AlertStatus.ACKNOWLEDGED)
HISTORY_WINDOWS = 60
"""Windows of results that a review page shows."""
VIEWER, ON_CALL, MONITOR = "viewer", "on-call", "monitor"
"""Roles in the audit trail: who reads, who acts, and the monitor itself."""
SEVERITIES = tuple(Severity)
"""From the least to the most urgent."""


def list_alerts(store: AlertStore, status: AlertStatus | None = None) -> list[Alert]:
    """Alerts, newest first; all of them, or those of one status."""
    return store.alerts(statuses=() if status is None else (status,))


def show_alert(store: AlertStore, alert_id: str) -> Alert:
    """One alert.

    Raises:
        UnknownId: There is none of this id.
    """
    return store.alert(alert_id)


def acknowledge(
    store: AlertStore,
    alert_id: str,
    by: str,
    pages: Path | None = None,
    *,
    reason: str = "taken on",
    role: str = ON_CALL,
) -> Alert:
    """Record who reviews an open alert.

    Raises:
        UsageError: ``by`` or ``reason`` is empty.
        WrongState: The alert is not open.
    """
    _require(by, reason, "name who acknowledges the alert, and say why")
    alert = store.update_alert(
        alert_id,
        (AlertStatus.OPEN,),
        entry=make_entry("acknowledge", alert_id, by, reason, role),
        status=AlertStatus.ACKNOWLEDGED,
        acknowledged_by=by.strip(),
    )
    if pages is not None:
        refresh_pages(store, pages, alert_id)
    return alert


def resolve(
    store: AlertStore,
    alert_id: str,
    by: str,
    note: str,
    pages: Path | None = None,
    *,
    role: str = ON_CALL,
) -> Alert:
    """Close an alert with a note on its cause; a resolved alert stays resolved.

    Raises:
        UsageError: ``by`` or ``note`` is empty.
        WrongState: The alert is already resolved.
    """
    _require(by, note, "name who resolves the alert, and note its cause")
    towers = store.alert(alert_id).embedding_version
    newest = [result.window.end for result in store.results(towers, 1)]
    alert = store.update_alert(
        alert_id,
        UNRESOLVED,
        entry=make_entry("resolve", alert_id, by, note, role),
        status=AlertStatus.RESOLVED,
        resolved_by=by.strip(),
        settled_until=max(newest, default=None),
        note=note.strip(),
    )
    if pages is not None:
        refresh_pages(store, pages, alert_id)
    return alert


def mute(
    store: AlertStore,
    alert_id: str,
    until: datetime,
    by: str,
    reason: str,
    pages: Path | None = None,
    *,
    role: str = ON_CALL,
    now: datetime | None = None,
) -> Alert:
    """Send no message about an alert before a time, unless it escalates.

    Raises:
        UsageError: ``by`` or ``reason`` is empty, or the time is not in the future.
        WrongState: The alert is resolved.
    """
    _require(by, reason, "name who mutes the alert, and say why")
    if until.tzinfo is None or until <= (now or datetime.now(UTC)):
        raise UsageError(f"an alert is muted until a time in the future, in UTC, not {until}")
    alert = store.update_alert(
        alert_id,
        UNRESOLVED,
        entry=make_entry(f"mute until {until:%Y-%m-%d %H:%M} UTC", alert_id, by, reason, role),
        muted_until=until.astimezone(UTC),
    )
    if pages is not None:
        refresh_pages(store, pages, alert_id)
    return alert


def escalate(
    store: AlertStore,
    alert_id: str,
    severity: Severity,
    at: datetime,
    reason: str,
    *,
    results: Sequence[DriftResult] = (),
    incident: Incident | None = None,
    decision: DriftDecision | None = None,
) -> Alert:
    """Add a worse change to an unresolved alert: it is open again, and no longer muted.

    Args:
        store: Where the alert is.
        alert_id: The alert.
        severity: Its new severity; a lower one than it has is ignored.
        at: When the change was found, UTC.
        reason: What became worse, for the audit trail.
        results: Results of the change; they replace those of the same subject and statistic.
        incident: The story now; None keeps the one that it has.
        decision: The decision now; None keeps the one that it has.

    Raises:
        WrongState: The alert is resolved.
    """
    before = store.alert(alert_id)
    named = {result.name for result in results}
    kept = tuple(result for result in before.results if result.name not in named)
    return store.update_alert(
        alert_id,
        UNRESOLVED,
        entry=make_entry("escalate", alert_id, MONITOR, reason, MONITOR, at),
        status=AlertStatus.OPEN,
        severity=max(severity, before.severity, key=SEVERITIES.index),
        results=(*kept, *results),
        incident=incident or before.incident,
        decision=decision or before.decision,
        muted_until=None,
        escalated_at=at,
    )


def release_quarantine(
    store: AlertStore, quarantine_id: str, by: str, reason: str, *, role: str = ON_CALL
) -> Quarantine:
    """Let training learn from a quarantine's days again.

    Raises:
        UsageError: ``by`` or ``reason`` is empty.
        UnknownId: There is no such quarantine.
        WrongState: It was released already.
    """
    _require(by, reason, "name who releases the quarantine, and say why")
    known = {each.quarantine_id: each.alert_id for each in store.quarantines(in_force=False)}
    now = datetime.now(UTC)
    entry = make_entry(
        "release quarantine", quarantine_id, by, reason, role, now, known.get(quarantine_id, "")
    )
    return store.release_quarantine(quarantine_id, now, by.strip(), reason.strip(), entry)


def _require(by: str, reason: str, advice: str) -> None:
    if not by.strip() or not reason.strip():
        raise UsageError(advice)


def make_entry(
    did: str,
    subject: str,
    by: str,
    reason: str,
    role: str,
    at: datetime | None = None,
    alert_id: str | None = None,
) -> AuditEntry:
    """An entry of the audit trail, of now; ``alert_id`` is the subject unless it is given."""
    return AuditEntry(
        at=at or datetime.now(UTC),
        by=by.strip(),
        role=role,
        did=did,
        subject=subject,
        reason=reason.strip(),
        alert_id=subject if alert_id is None else alert_id,
    )


def refresh_pages(store: AlertStore, pages: Path, alert_id: str) -> None:
    """Write an alert's page and the index of all alerts from the store's present state."""
    write_alert(store, pages, store.alert(alert_id))
    write_index(store, pages)
