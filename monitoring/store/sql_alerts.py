"""Alerts and the audit trail in the SQL store.

Alerts are validated without the checks of written settings, as results are: they hold many.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from monitoring.store.records import UnknownId, WrongState
from monitoring.store.sql_part import SqlPart
from monitoring.store.tables import ALERTS, AUDIT, stamp
from refit.alert import Alert, AlertStatus, AuditEntry
from refit.errors import RefitError


class SqlAlerts(SqlPart):
    """Alerts and the audit trail."""

    def add_alert(self, alert: Alert) -> bool:
        """Keep a new alert; False when there is one of this id already."""
        row = {
            "alert_id": alert.alert_id,
            "embedding_version": alert.embedding_version,
            "created_at": stamp(alert.created_at),
            "status": alert.status,
            "body": alert.model_dump_json(),
        }
        same = select(ALERTS.c.alert_id).where(ALERTS.c.alert_id == alert.alert_id)
        with self._database.writing() as db:
            if db.execute(same).first():
                return False
            db.execute(ALERTS.insert().values(row))
        return True

    def alert(self, alert_id: str) -> Alert:
        """One alert.

        Raises:
            UnknownId: There is none of this id.
        """
        with self._database.reading() as db:
            return _read_alert(db, alert_id)

    def alerts(
        self, embedding_version: str | None = None, statuses: Sequence[AlertStatus] = ()
    ) -> list[Alert]:
        """Alerts, newest first; of these towers and statuses when they are given."""
        query = select(ALERTS.c.body).order_by(ALERTS.c.created_at.desc(), ALERTS.c.alert_id)
        if embedding_version is not None:
            query = query.where(ALERTS.c.embedding_version == embedding_version)
        if statuses:
            query = query.where(ALERTS.c.status.in_(statuses))
        return [Alert.model_validate_json(body) for body in self._bodies(query)]

    def update_alert(
        self,
        alert_id: str,
        expected: Sequence[AlertStatus],
        *,
        entry: AuditEntry | None = None,
        **changes: Any,
    ) -> Alert:
        """Change an alert that has one of these statuses.

        Args:
            alert_id: The alert.
            expected: The statuses that it may have.
            entry: Written to the audit trail in the same transaction.
            changes: New values by field.

        Raises:
            UnknownId: There is none of this id.
            WrongState: It has another status.
        """
        with self._database.writing() as db:
            before = _read_alert(db, alert_id)
            if before.status not in expected:
                raise WrongState(
                    f"alert {alert_id} is {before.status}; this needs one that is "
                    f"{' or '.join(expected)}"
                )
            after = before.model_copy(update=changes)
            db.execute(
                update(ALERTS)
                .where(ALERTS.c.alert_id == alert_id)
                .values(status=after.status, body=after.model_dump_json())
            )
            append_entry(db, entry)
            return after

    def add_entry(self, entry: AuditEntry) -> None:
        """Append to the audit trail."""
        with self._database.writing() as db:
            append_entry(db, entry)

    def entries(self, alert_id: str | None = None, most: int = 1000) -> list[AuditEntry]:
        """The newest entries of the audit trail, newest first; of one alert when it is given."""
        query = select(AUDIT.c.body).order_by(AUDIT.c.id.desc()).limit(most)
        if alert_id is not None:
            query = query.where(AUDIT.c.alert_id == alert_id)
        return [AuditEntry.parse_json(body) for body in self._bodies(query)]

    def check_audit(self) -> int:
        """Count the audit trail's entries, and check that each follows from the one before it.

        Raises:
            RefitError: An entry was changed, or is missing.
        """
        query = select(AUDIT.c.body, AUDIT.c.digest).order_by(AUDIT.c.id)
        with self._database.reading() as db:
            rows = db.execute(query).all()
        before = ""
        for number, (body, digest) in enumerate(rows, 1):
            if digest != _digest(before, body):
                raise RefitError(
                    f"entry {number} of the audit trail was changed, or one before it is missing: "
                    "compare the database with its last backup"
                )
            before = digest
        return len(rows)


def append_entry(db: Connection, entry: AuditEntry | None) -> None:
    """Append to the audit trail, in a transaction that also makes the change."""
    if entry is None:
        return
    last = db.scalar(select(AUDIT.c.digest).order_by(AUDIT.c.id.desc()).limit(1))
    body = entry.model_dump_json()
    db.execute(
        AUDIT.insert().values(alert_id=entry.alert_id, body=body, digest=_digest(last or "", body))
    )


def _digest(before: str, body: str) -> str:
    return hashlib.sha256(f"{before}\n{body}".encode()).hexdigest()


def _read_alert(db: Connection, alert_id: str) -> Alert:
    body = db.scalar(select(ALERTS.c.body).where(ALERTS.c.alert_id == alert_id))
    if body is None:
        raise UnknownId(f"there is no alert {alert_id!r}; see refit alerts list")
    return Alert.model_validate_json(body)
