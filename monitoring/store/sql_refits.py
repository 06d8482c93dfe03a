"""Refits in the SQL store.

A refit is claimed exactly once: its key is unique, one refit is under way at a time, and both are
checked in the transaction that writes the claim. A claim is a lease: its owner renews it while the
refit runs, and a claim that is not renewed is taken over by the next monitor, under the same key.
"""

import time
import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, or_, select, update

from monitoring.store.records import UNDER_WAY, Refit, RefitState, WrongState
from monitoring.store.sql_part import SqlPart, change_own, lease
from monitoring.store.tables import REFITS, stamp
from refit.alert import Alert

IS_UNDER_WAY = REFITS.c.state.in_(UNDER_WAY)


class SqlRefits(SqlPart):
    """Refits."""

    def claim_refit(
        self, key: str, alert: Alert, at: datetime, not_since: datetime, lease_seconds: float
    ) -> Refit | None:
        """Claim a new refit.

        Returns:
            The claim, or None when the key is taken, a refit is under way, or one was requested
            after ``not_since``.
        """
        refit = Refit(
            key=key,
            alert_id=alert.alert_id,
            bundle_id=alert.bundle_id,
            state=RefitState.REQUESTED,
            owner=uuid.uuid4().hex,
            attempt=1,
            requested_at=at,
        )
        row = {
            "key": key,
            "state": refit.state,
            "owner": refit.owner,
            "lease_until": lease(lease_seconds),
            "requested_at": stamp(at),
            "body": refit.model_dump_json(),
        }
        is_recent = REFITS.c.requested_at > stamp(not_since)
        preventing = select(REFITS.c.key).where(or_(REFITS.c.key == key, IS_UNDER_WAY, is_recent))
        with self._database.writing() as db:
            if db.execute(preventing).first():
                return None
            db.execute(REFITS.insert().values(row))
        return refit

    def take_over_refit(self, lease_seconds: float) -> Refit | None:
        """Take over a refit under way whose owner no longer renews its claim, if there is one."""
        abandoned = (
            select(REFITS.c.body)
            .where(IS_UNDER_WAY, REFITS.c.lease_until < time.time())
            .order_by(REFITS.c.requested_at)
            .limit(1)
        )
        with self._database.writing() as db:
            body = db.scalar(abandoned)
            if body is None:
                return None
            before = Refit.parse_json(body)
            refit = before.model_copy(
                update={"owner": uuid.uuid4().hex, "attempt": before.attempt + 1}
            )
            _change_refit(
                db,
                before,
                owner=refit.owner,
                body=refit.model_dump_json(),
                lease_until=lease(lease_seconds),
            )
        return refit

    def renew_refit(self, refit: Refit, lease_seconds: float) -> None:
        """Prolong a claim.

        Raises:
            ClaimLost: Another owner has it.
        """
        with self._database.writing() as db:
            _change_refit(db, refit, lease_until=lease(lease_seconds))

    def set_refit(self, refit: Refit, state: RefitState, outcome: str = "") -> Refit:
        """Set a refit's state.

        Raises:
            ClaimLost: Another owner has the claim.
        """
        after = refit.model_copy(update={"state": state, "outcome": outcome or refit.outcome})
        with self._database.writing() as db:
            _change_refit(db, refit, state=after.state, body=after.model_dump_json())
        return after

    def stop_refit(self, key: str, outcome: str) -> Refit:
        """End a refit under way, whoever has its claim; its owner finds the claim lost.

        Raises:
            WrongState: No refit of this key is under way.
        """
        with self._database.writing() as db:
            body = db.scalar(select(REFITS.c.body).where(REFITS.c.key == key, IS_UNDER_WAY))
            if body is None:
                raise WrongState(f"no refit {key} is under way")
            after = Refit.parse_json(body).model_copy(
                update={"state": RefitState.STOPPED, "outcome": outcome}
            )
            db.execute(
                update(REFITS)
                .where(REFITS.c.key == key)
                .values(state=after.state, body=after.model_dump_json())
            )
        return after

    def refits(self) -> list[Refit]:
        """All refits, oldest first."""
        query = select(REFITS.c.body).order_by(REFITS.c.requested_at, REFITS.c.key)
        return [Refit.parse_json(body) for body in self._bodies(query)]


def _change_refit(db: Connection, refit: Refit, **values: Any) -> None:
    """Write to a refit under way, if ``refit`` still names its owner."""
    mine = and_(REFITS.c.key == refit.key, REFITS.c.owner == refit.owner, IS_UNDER_WAY)
    change_own(db, REFITS, mine, f"refit {refit.key}", **values)
