"""Review alerts: list them, show one, acknowledge it, resolve it."""

from pathlib import Path

from monitoring.review.pages import write_alert, write_index
from monitoring.store import AlertStore
from refit.alert import Alert, AlertStatus
from refit.errors import UsageError

UNRESOLVED = (AlertStatus.OPEN, AlertStatus.ACKNOWLEDGED)
HISTORY_WINDOWS = 60
"""Windows of results that a review page shows."""


def list_alerts(store: AlertStore, status: AlertStatus | None = None) -> list[Alert]:
    """Alerts, newest first; all of them, or those of one status."""
    return [alert for alert in store.alerts() if status is None or alert.status is status]


def show_alert(store: AlertStore, alert_id: str) -> Alert:
    """One alert.

    Raises:
        UsageError: There is none of this id.
    """
    return store.alert(alert_id)


def acknowledge(store: AlertStore, alert_id: str, by: str, pages: Path | None = None) -> Alert:
    """Record who reviews an open alert.

    Raises:
        UsageError: ``by`` is empty, or the alert is not open.
    """
    if not by.strip():
        raise UsageError("name who acknowledges the alert")
    alert = store.update_alert(
        alert_id,
        (AlertStatus.OPEN,),
        status=AlertStatus.ACKNOWLEDGED,
        acknowledged_by=by.strip(),
    )
    if pages is not None:
        refresh_pages(store, pages, alert_id)
    return alert


def resolve(
    store: AlertStore, alert_id: str, by: str, note: str, pages: Path | None = None
) -> Alert:
    """Close an alert with a note on its cause; a resolved alert stays resolved.

    Raises:
        UsageError: ``by`` or ``note`` is empty, or the alert is already resolved.
    """
    if not by.strip() or not note.strip():
        raise UsageError("name who resolves the alert, and note its cause")
    alert = store.update_alert(
        alert_id,
        UNRESOLVED,
        status=AlertStatus.RESOLVED,
        resolved_by=by.strip(),
        note=note.strip(),
    )
    if pages is not None:
        refresh_pages(store, pages, alert_id)
    return alert


def refresh_pages(store: AlertStore, pages: Path, alert_id: str) -> None:
    """Write an alert's page and the index of all alerts from the store's present state."""
    alert = store.alert(alert_id)
    refits = store.refits()
    refit = next((each for each in refits if each.alert_id == alert_id), None)
    write_alert(pages, alert, store.results(alert.embedding_version, HISTORY_WINDOWS), refit)
    write_index(pages, store.alerts(), refits)
