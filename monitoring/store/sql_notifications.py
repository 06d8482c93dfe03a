"""Messages about alerts in the SQL store: each is sent by one process at a time, until it is sent.

A message is claimed before it is sent and marked afterwards. A process that dies in between leaves
a claim that ends by itself, and then the message is sent once more: nobody can tell whether the
channel had accepted it.
"""

import time
import uuid
from typing import Any

from sqlalchemy import Connection, and_, select

from monitoring.store.records import Notification
from monitoring.store.sql_part import SqlPart, change_own, lease
from monitoring.store.tables import NOTIFICATIONS


class SqlNotifications(SqlPart):
    """Messages about alerts."""

    def claim_notification(
        self, key: str, alert_id: str, channel: str, lease_seconds: float
    ) -> Notification | None:
        """Take on a message.

        Returns:
            The claim, or None when the message was sent, another process has it, or it waits for
            its next attempt.
        """
        same = NOTIFICATIONS.c.key == key
        until, owner = lease(lease_seconds), uuid.uuid4().hex
        with self._database.writing() as db:
            row = db.execute(select(NOTIFICATIONS).where(same)).mappings().first()
            if row is None:
                new = Notification(key=key, alert_id=alert_id, channel=channel, owner=owner)
                db.execute(
                    NOTIFICATIONS.insert().values(
                        key=key,
                        sent=False,
                        owner=owner,
                        free_at=until,
                        body=new.model_dump_json(),
                    )
                )
                return new
            if row["sent"] or row["free_at"] > time.time():
                return None
            before = Notification.parse_json(row["body"])
            after = before.model_copy(update={"owner": owner, "attempt": before.attempt + 1})
            change_own(
                db,
                NOTIFICATIONS,
                same,
                key,
                owner=owner,
                free_at=until,
                body=after.model_dump_json(),
            )
        return after

    def set_notification(
        self, notification: Notification, *, sent: bool, error: str = "", wait_seconds: float = 0.0
    ) -> Notification:
        """Record that a message was sent, or when it may be tried again.

        Raises:
            ClaimLost: Another process has it.
        """
        after = notification.model_copy(update={"sent": sent, "error": error})
        with self._database.writing() as db:
            _change_own(
                db,
                notification,
                sent=sent,
                free_at=lease(wait_seconds),
                body=after.model_dump_json(),
            )
        return after

    def notifications(self) -> list[Notification]:
        """All messages, by key."""
        bodies = self._bodies(select(NOTIFICATIONS.c.body).order_by(NOTIFICATIONS.c.key))
        return [Notification.parse_json(body) for body in bodies]


def _change_own(db: Connection, notification: Notification, **values: Any) -> None:
    mine = and_(
        NOTIFICATIONS.c.key == notification.key, NOTIFICATIONS.c.owner == notification.owner
    )
    change_own(db, NOTIFICATIONS, mine, f"message {notification.key}", **values)
