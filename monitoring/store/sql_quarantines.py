"""Quarantines in the SQL store."""

from datetime import datetime

from sqlalchemy import select, update

from monitoring.store.records import UnknownId, WrongState
from monitoring.store.sql_alerts import append_entry
from monitoring.store.sql_part import SqlPart
from monitoring.store.tables import QUARANTINES, stamp
from refit.alert import AuditEntry
from refit.quarantine import Quarantine


class SqlQuarantines(SqlPart):
    """Quarantines."""

    def add_quarantine(self, quarantine: Quarantine, entry: AuditEntry | None = None) -> bool:
        """Keep a quarantine; False when there is one of this id already, released or not."""
        same = select(QUARANTINES.c.quarantine_id).where(
            QUARANTINES.c.quarantine_id == quarantine.quarantine_id
        )
        with self._database.writing() as db:
            if db.execute(same).first():
                return False
            db.execute(
                QUARANTINES.insert().values(
                    quarantine_id=quarantine.quarantine_id,
                    starts=stamp(quarantine.start),
                    in_force=quarantine.is_in_force,
                    body=quarantine.model_dump_json(),
                )
            )
            append_entry(db, entry)
        return True

    def quarantines(self, in_force: bool = True) -> list[Quarantine]:
        """Quarantines in force, or all of them; the earliest start first."""
        query = select(QUARANTINES.c.body).order_by(
            QUARANTINES.c.starts, QUARANTINES.c.quarantine_id
        )
        if in_force:
            query = query.where(QUARANTINES.c.in_force)
        return [Quarantine.parse_json(body) for body in self._bodies(query)]

    def release_quarantine(
        self, quarantine_id: str, at: datetime, by: str, note: str, entry: AuditEntry | None = None
    ) -> Quarantine:
        """Release a quarantine.

        Raises:
            UnknownId: There is none of this id.
            WrongState: It was released already.
        """
        same = QUARANTINES.c.quarantine_id == quarantine_id
        with self._database.writing() as db:
            body = db.scalar(select(QUARANTINES.c.body).where(same))
            if body is None:
                raise UnknownId(
                    f"there is no quarantine {quarantine_id!r}; see refit quarantine list"
                )
            before = Quarantine.parse_json(body)
            if not before.is_in_force:
                raise WrongState(
                    f"quarantine {quarantine_id} was released by {before.released_by} already"
                )
            after = before.model_copy(
                update={"released_at": at, "released_by": by, "release_note": note}
            )
            db.execute(
                update(QUARANTINES).where(same).values(in_force=False, body=after.model_dump_json())
            )
            append_entry(db, entry)
        return after
