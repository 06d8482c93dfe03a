"""The store of results, decisions, alerts and refits, behind one small interface.

A refit is claimed exactly once: its key is unique, one refit is under way at a time, and both are
checked in the transaction that writes the claim. A claim is a lease: its owner renews it while the
refit runs, and a claim that is not renewed is taken over by the next monitor, under the same key.
"""

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    and_,
    inspect,
    or_,
    select,
    update,
)

from refit.alert import Alert, AlertStatus, DriftDecision
from refit.database import PATIENCE_SECONDS, Database
from refit.drift import DriftResult
from refit.errors import UsageError
from refit.settings import Settings


class RefitState(StrEnum):
    """The state of a refit."""

    REQUESTED = "requested"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    FAILED = "failed"


UNDER_WAY = (RefitState.REQUESTED, RefitState.RUNNING)


class Refit(Settings):
    """One refit, from claim to outcome.

    Attributes:
        key: The alert's id; the launcher uses it as the run's name, so that a second attempt
            finds the run of the first.
        owner: Token of the process that holds the claim.
        attempt: 1, and one more each time an abandoned claim was taken over.
        requested_at: The time of the decision, UTC.
        outcome: The new bundle, or why there is none.
    """

    key: str
    alert_id: str
    bundle_id: str
    state: RefitState
    owner: str
    attempt: int
    requested_at: datetime
    outcome: str = ""


class ClaimLost(RuntimeError):  # noqa: N818 - a state, not an error
    """Another owner took the claim over, because this one did not renew it."""


class AlertStore(Protocol):
    """What the monitor keeps between its runs."""

    def add_results(self, results: Sequence[DriftResult]) -> None:
        """Keep results; a result that was measured again replaces the earlier one."""

    def results(self, embedding_version: str, windows: int) -> list[DriftResult]:
        """The results of the latest windows under these towers, oldest first."""

    def add_decision(self, bundle_id: str, decision: DriftDecision) -> None:
        """Keep a decision."""

    def decisions(self, bundle_id: str | None = None) -> list[DriftDecision]:
        """Decisions, oldest first."""

    def add_alert(self, alert: Alert) -> bool:
        """Keep a new alert; False when there is one of this id already."""

    def alert(self, alert_id: str) -> Alert:
        """One alert; UsageError when there is none of this id."""

    def alerts(self, embedding_version: str | None = None) -> list[Alert]:
        """Alerts, newest first."""

    def update_alert(self, alert_id: str, expected: Sequence[AlertStatus], **changes: Any) -> Alert:
        """Change an alert that has one of these statuses; UsageError when it has another."""

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

    def refits(self) -> list[Refit]:
        """All refits, oldest first."""


_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Sorted by bytes, whatever the locale of the server."""
TABLES = MetaData()
SCHEMA_VERSION = 1
"""Of the tables and of the JSON in them; a store of another version is refused."""
SCHEMA = Table("schema_version", TABLES, Column("version", Integer, primary_key=True))
RESULTS = Table(
    "results",
    TABLES,
    Column("embedding_version", _TEXT, primary_key=True),
    Column("subject", _TEXT, primary_key=True),
    Column("statistic", _TEXT, primary_key=True),
    Column("window_start", _TEXT, primary_key=True),
    Column("window_end", _TEXT, primary_key=True),
    Column("body", _TEXT, nullable=False),
)
DECISIONS = Table(
    "decisions",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("bundle_id", _TEXT, nullable=False),
    Column("body", _TEXT, nullable=False),
)
ALERTS = Table(
    "alerts",
    TABLES,
    Column("alert_id", _TEXT, primary_key=True),
    Column("embedding_version", _TEXT, nullable=False),
    Column("created_at", _TEXT, nullable=False),
    Column("status", _TEXT, nullable=False),
    Column("body", _TEXT, nullable=False),
)
REFITS = Table(
    "refits",
    TABLES,
    Column("key", _TEXT, primary_key=True),
    Column("state", _TEXT, nullable=False),
    Column("owner", _TEXT, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("requested_at", _TEXT, nullable=False),
    Column("body", _TEXT, nullable=False),
)
IS_UNDER_WAY = REFITS.c.state.in_(UNDER_WAY)


class SqlStore:
    """The store in a SQLite file, for processes of one machine, or in PostgreSQL, for a cluster's.

    Args:
        place: A path, ``sqlite:///PATH`` or ``postgresql+psycopg://USER@HOST/DATABASE``, whose
            password is in the environment variable PGPASSWORD.
        patience_seconds: How long to wait for a server, and for other writers.

    Raises:
        UsageError: The place cannot be read, or another version of Refit wrote the store.
        ServiceUnreachable: The database cannot be used; every method raises it too.
    """

    def __init__(self, place: str | Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._database = Database(place, patience_seconds=patience_seconds)
        with self._database.writing() as db:
            if not has_tables(db):
                TABLES.create_all(db)
                db.execute(SCHEMA.insert().values(version=SCHEMA_VERSION))

    def _bodies(self, query: Select[str]) -> Sequence[str]:
        with self._database.reading() as db:
            return db.scalars(query).all()

    def add_results(self, results: Sequence[DriftResult]) -> None:
        """Keep results; a result that was measured again replaces the earlier one."""
        rows = [
            {
                "embedding_version": result.embedding_version,
                "subject": result.subject,
                "statistic": result.statistic,
                "window_start": _stamp(result.window.start),
                "window_end": _stamp(result.window.end),
                "body": result.model_dump_json(),
            }
            for result in results
        ]
        if not rows:
            return
        insert = self._database.insert(RESULTS)
        with self._database.writing() as db:
            db.execute(
                insert.on_conflict_do_update(
                    index_elements=list(RESULTS.primary_key),
                    set_={"body": insert.excluded.body},
                ),
                rows,
            )

    def results(self, embedding_version: str, windows: int) -> list[DriftResult]:
        """The results of the latest windows under these towers, oldest first."""
        of_towers = RESULTS.c.embedding_version == embedding_version
        ends = select(RESULTS.c.window_end).where(of_towers).distinct()
        latest = ends.order_by(RESULTS.c.window_end.desc()).limit(windows)
        bodies = self._bodies(
            select(RESULTS.c.body)
            .where(of_towers, RESULTS.c.window_end.in_(latest))
            .order_by(RESULTS.c.window_end, RESULTS.c.subject, RESULTS.c.statistic)
        )
        return [DriftResult.parse_json(body) for body in bodies]

    def add_decision(self, bundle_id: str, decision: DriftDecision) -> None:
        """Keep a decision."""
        row = {"bundle_id": bundle_id, "body": decision.model_dump_json()}
        with self._database.writing() as db:
            db.execute(DECISIONS.insert().values(row))

    def decisions(self, bundle_id: str | None = None) -> list[DriftDecision]:
        """Decisions, oldest first."""
        query = select(DECISIONS.c.body).order_by(DECISIONS.c.id)
        if bundle_id is not None:
            query = query.where(DECISIONS.c.bundle_id == bundle_id)
        return [DriftDecision.parse_json(body) for body in self._bodies(query)]

    def add_alert(self, alert: Alert) -> bool:
        """Keep a new alert; False when there is one of this id already."""
        row = {
            "alert_id": alert.alert_id,
            "embedding_version": alert.embedding_version,
            "created_at": _stamp(alert.created_at),
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
            UsageError: There is none of this id.
        """
        with self._database.reading() as db:
            return _read_alert(db, alert_id)

    def alerts(self, embedding_version: str | None = None) -> list[Alert]:
        """Alerts, newest first."""
        query = select(ALERTS.c.body).order_by(ALERTS.c.created_at.desc(), ALERTS.c.alert_id)
        if embedding_version is not None:
            query = query.where(ALERTS.c.embedding_version == embedding_version)
        return [Alert.parse_json(body) for body in self._bodies(query)]

    def update_alert(self, alert_id: str, expected: Sequence[AlertStatus], **changes: Any) -> Alert:
        """Change an alert that has one of these statuses.

        Raises:
            UsageError: There is none of this id, or it has another status.
        """
        with self._database.writing() as db:
            before = _read_alert(db, alert_id)
            if before.status not in expected:
                raise UsageError(
                    f"alert {alert_id} is {before.status}; this needs one that is "
                    f"{' or '.join(expected)}"
                )
            after = before.model_copy(update=changes)
            db.execute(
                update(ALERTS)
                .where(ALERTS.c.alert_id == alert_id)
                .values(status=after.status, body=after.model_dump_json())
            )
            return after

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
            "lease_until": time.time() + lease_seconds,
            "requested_at": _stamp(at),
            "body": refit.model_dump_json(),
        }
        is_recent = REFITS.c.requested_at > _stamp(not_since)
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
                lease_until=time.time() + lease_seconds,
            )
        return refit

    def renew_refit(self, refit: Refit, lease_seconds: float) -> None:
        """Prolong a claim.

        Raises:
            ClaimLost: Another owner has it.
        """
        with self._database.writing() as db:
            _change_refit(db, refit, lease_until=time.time() + lease_seconds)

    def set_refit(self, refit: Refit, state: RefitState, outcome: str = "") -> Refit:
        """Set a refit's state.

        Raises:
            ClaimLost: Another owner has the claim.
        """
        after = refit.model_copy(update={"state": state, "outcome": outcome or refit.outcome})
        with self._database.writing() as db:
            _change_refit(db, refit, state=after.state, body=after.model_dump_json())
        return after

    def refits(self) -> list[Refit]:
        """All refits, oldest first."""
        query = select(REFITS.c.body).order_by(REFITS.c.requested_at, REFITS.c.key)
        return [Refit.parse_json(body) for body in self._bodies(query)]


def has_tables(db: Connection) -> bool:
    """Whether the database holds a store.

    Raises:
        UsageError: Another version of Refit wrote it.
    """
    tables = set(inspect(db).get_table_names())
    if SCHEMA.name in tables and db.scalar(select(SCHEMA.c.version)) == SCHEMA_VERSION:
        return True
    if tables.isdisjoint(TABLES.tables):
        return False
    raise UsageError(
        "another version of Refit wrote this alert store, and this version cannot read it: move "
        f"the SQLite file away, or drop the tables {', '.join(sorted(TABLES.tables))} in "
        "PostgreSQL; the next run of refit monitor creates a new store"
    )


def _read_alert(db: Connection, alert_id: str) -> Alert:
    body = db.scalar(select(ALERTS.c.body).where(ALERTS.c.alert_id == alert_id))
    if body is None:
        raise UsageError(f"there is no alert {alert_id!r}; see refit alerts list")
    return Alert.parse_json(body)


def _change_refit(db: Connection, refit: Refit, **values: Any) -> None:
    """Write to a refit under way, if ``refit`` still names its owner."""
    is_ours = and_(REFITS.c.key == refit.key, REFITS.c.owner == refit.owner, IS_UNDER_WAY)
    if db.execute(update(REFITS).where(is_ours).values(values)).rowcount != 1:
        raise ClaimLost(f"refit {refit.key} has another owner")


def _stamp(moment: datetime) -> str:
    """A time as text that sorts by time.

    Raises:
        UsageError: It has no time zone.
    """
    if moment.tzinfo is None:
        raise UsageError(f"{moment} has no time zone; give UTC")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
