"""The store of readings, decisions, alerts and refits, behind one small interface.

A refit is claimed exactly once: its key is unique, one refit is under way at a time, and both are
checked in the transaction that writes the claim. A claim is a lease: its owner renews it while it
works, and one that falls silent is taken up by the next monitor, under the same key.
"""

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from refit.alert import Alert, AlertStatus, Decision
from refit.errors import UsageError
from refit.reading import Reading
from refit.settings import Settings


class RefitState(StrEnum):
    """How far a refit has come."""

    REQUESTED = "requested"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    FAILED = "failed"


UNDER_WAY = (RefitState.REQUESTED, RefitState.RUNNING)


class Refit(Settings):
    """One refit, from claim to outcome.

    Attributes:
        key: What triggered it; the launcher uses it as the run's name, so that a second attempt
            finds what the first one left.
        owner: Token of the process that holds the claim.
        attempt: 1, and one more each time an abandoned claim was taken up.
        requested_at: By the clock that decisions use.
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


class ClaimLost(RuntimeError):  # noqa: N818 - what happened, not a fault
    """The claim went to another owner while this one was silent."""


class AlertStore(Protocol):
    """What watching needs to remember."""

    def add_readings(self, readings: Sequence[Reading]) -> None:
        """Keep readings; one measured again replaces the earlier."""

    def readings(self, towers_id: str, windows: int) -> list[Reading]:
        """The readings of the latest windows under these towers, oldest first."""

    def add_decision(self, bundle_id: str, decision: Decision) -> None:
        """Keep a decision."""

    def decisions(self, bundle_id: str | None = None) -> list[Decision]:
        """Decisions, oldest first."""

    def add_alert(self, alert: Alert) -> bool:
        """Keep a new alert; False when one of this id is there already."""

    def alert(self, alert_id: str) -> Alert:
        """One alert; UsageError when there is none of this id."""

    def alerts(self, towers_id: str | None = None) -> list[Alert]:
        """Alerts, newest first."""

    def update_alert(self, alert_id: str, expected: Sequence[AlertStatus], **changes: Any) -> Alert:
        """Change an alert that has one of these statuses; UsageError when it has another."""

    def claim_refit(
        self, key: str, alert: Alert, at: datetime, not_since: datetime, lease_seconds: float
    ) -> Refit | None:
        """Claim a new refit; None when the key is taken, or another one runs or is too recent."""

    def take_up_refit(self, lease_seconds: float) -> Refit | None:
        """Take over a refit under way whose owner fell silent, if there is one."""

    def renew_refit(self, refit: Refit, lease_seconds: float) -> None:
        """Prolong a claim; ClaimLost when it is somebody else's."""

    def set_refit(self, refit: Refit, state: RefitState, outcome: str = "") -> Refit:
        """Say how far a refit has come; ClaimLost when it is somebody else's."""

    def refits(self) -> list[Refit]:
        """All refits, oldest first."""


SCHEMA = (
    """CREATE TABLE IF NOT EXISTS readings (
    towers_id TEXT NOT NULL, subject TEXT NOT NULL, statistic TEXT NOT NULL,
    window_start TEXT NOT NULL, window_end TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (towers_id, subject, statistic, window_start, window_end))""",
    """CREATE TABLE IF NOT EXISTS decisions (
    id INTEGER PRIMARY KEY, bundle_id TEXT NOT NULL, body TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS alerts (
    alert_id TEXT PRIMARY KEY, towers_id TEXT NOT NULL, created_at TEXT NOT NULL,
    status TEXT NOT NULL, body TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS refits (
    key TEXT PRIMARY KEY, state TEXT NOT NULL, owner TEXT NOT NULL, lease_until REAL NOT NULL,
    requested_at TEXT NOT NULL, body TEXT NOT NULL)""",
)


class SqliteStore:
    """The store in one SQLite file, safe for several processes of one machine."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._writing() as db:
            for table in SCHEMA:
                db.execute(table)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            yield db
        finally:
            db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that no other writer can come between."""
        with self._connected() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _bodies(self, query: str, *values: Any) -> list[Any]:
        with self._connected() as db:
            return [json.loads(body) for (body,) in db.execute(query, values)]

    def add_readings(self, readings: Sequence[Reading]) -> None:
        """Keep readings; one measured again replaces the earlier."""
        rows = [
            (
                r.towers_id,
                r.subject,
                r.statistic,
                _stamp(r.window.start),
                _stamp(r.window.end),
                r.model_dump_json(),
            )
            for r in readings
        ]
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?, ?, ?)", rows)

    def readings(self, towers_id: str, windows: int) -> list[Reading]:
        """The readings of the latest windows under these towers, oldest first."""
        bodies = self._bodies(
            "SELECT body FROM readings WHERE towers_id = ? AND window_end IN (SELECT DISTINCT "
            "window_end FROM readings WHERE towers_id = ? ORDER BY window_end DESC LIMIT ?) "
            "ORDER BY window_end, subject, statistic",
            towers_id,
            towers_id,
            windows,
        )
        return [Reading.parse(body) for body in bodies]

    def add_decision(self, bundle_id: str, decision: Decision) -> None:
        """Keep a decision."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO decisions (bundle_id, body) VALUES (?, ?)",
                (bundle_id, decision.model_dump_json()),
            )

    def decisions(self, bundle_id: str | None = None) -> list[Decision]:
        """Decisions, oldest first."""
        bodies = self._bodies(
            "SELECT body FROM decisions WHERE ? IS NULL OR bundle_id = ? ORDER BY id",
            bundle_id,
            bundle_id,
        )
        return [Decision.parse(body) for body in bodies]

    def add_alert(self, alert: Alert) -> bool:
        """Keep a new alert; False when one of this id is there already."""
        with self._writing() as db:
            done = db.execute(
                "INSERT OR IGNORE INTO alerts VALUES (?, ?, ?, ?, ?)",
                (
                    alert.alert_id,
                    alert.towers_id,
                    _stamp(alert.created_at),
                    alert.status,
                    alert.model_dump_json(),
                ),
            )
            return done.rowcount == 1

    def alert(self, alert_id: str) -> Alert:
        """One alert.

        Raises:
            UsageError: There is none of this id.
        """
        bodies = self._bodies("SELECT body FROM alerts WHERE alert_id = ?", alert_id)
        if not bodies:
            raise UsageError(f"there is no alert {alert_id!r}; see refit alerts list")
        return Alert.parse(bodies[0])

    def alerts(self, towers_id: str | None = None) -> list[Alert]:
        """Alerts, newest first."""
        bodies = self._bodies(
            "SELECT body FROM alerts WHERE ? IS NULL OR towers_id = ? "
            "ORDER BY created_at DESC, alert_id",
            towers_id,
            towers_id,
        )
        return [Alert.parse(body) for body in bodies]

    def update_alert(self, alert_id: str, expected: Sequence[AlertStatus], **changes: Any) -> Alert:
        """Change an alert that has one of these statuses.

        Raises:
            UsageError: There is none of this id, or it has another status.
        """
        self.alert(alert_id)
        with self._writing() as db:
            (body,) = db.execute(
                "SELECT body FROM alerts WHERE alert_id = ?", (alert_id,)
            ).fetchone()
            before = Alert.parse(json.loads(body))
            if before.status not in expected:
                raise UsageError(
                    f"alert {alert_id} is {before.status}; this needs one that is "
                    f"{' or '.join(expected)}"
                )
            after = before.model_copy(update=changes)
            db.execute(
                "UPDATE alerts SET status = ?, body = ? WHERE alert_id = ?",
                (after.status, after.model_dump_json(), alert_id),
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
        with self._writing() as db:
            taken = db.execute(
                "SELECT 1 FROM refits WHERE key = ? OR state IN (?, ?) OR requested_at > ?",
                (key, *UNDER_WAY, _stamp(not_since)),
            ).fetchone()
            if taken:
                return None
            db.execute(
                "INSERT INTO refits VALUES (?, ?, ?, ?, ?, ?)",
                (
                    key,
                    refit.state,
                    refit.owner,
                    time.time() + lease_seconds,
                    _stamp(at),
                    refit.model_dump_json(),
                ),
            )
        return refit

    def take_up_refit(self, lease_seconds: float) -> Refit | None:
        """Take over a refit under way whose owner fell silent, if there is one."""
        with self._writing() as db:
            row = db.execute(
                "SELECT body FROM refits WHERE state IN (?, ?) AND lease_until < ? "
                "ORDER BY requested_at LIMIT 1",
                (*UNDER_WAY, time.time()),
            ).fetchone()
            if row is None:
                return None
            before = Refit.parse(json.loads(row[0]))
            refit = before.model_copy(
                update={"owner": uuid.uuid4().hex, "attempt": before.attempt + 1}
            )
            self._write_refit(db, refit, before.owner, time.time() + lease_seconds)
        return refit

    def renew_refit(self, refit: Refit, lease_seconds: float) -> None:
        """Prolong a claim.

        Raises:
            ClaimLost: It is somebody else's.
        """
        with self._writing() as db:
            self._write_refit(db, refit, refit.owner, time.time() + lease_seconds, renew=True)

    def set_refit(self, refit: Refit, state: RefitState, outcome: str = "") -> Refit:
        """Say how far a refit has come.

        Raises:
            ClaimLost: It is somebody else's.
        """
        after = refit.model_copy(update={"state": state, "outcome": outcome or refit.outcome})
        with self._writing() as db:
            self._write_refit(db, after, refit.owner, None)
        return after

    def _write_refit(
        self,
        db: sqlite3.Connection,
        refit: Refit,
        owner: str,
        lease_until: float | None,
        renew: bool = False,
    ) -> None:
        body = None if renew else refit.model_dump_json()
        state = None if renew else refit.state
        done = db.execute(
            "UPDATE refits SET state = COALESCE(?, state), owner = ?, body = COALESCE(?, body), "
            "lease_until = COALESCE(?, lease_until) "
            "WHERE key = ? AND owner = ? AND state IN (?, ?)",
            (state, refit.owner, body, lease_until, refit.key, owner, *UNDER_WAY),
        )
        if done.rowcount != 1:
            raise ClaimLost(f"refit {refit.key} went to another owner")

    def refits(self) -> list[Refit]:
        """All refits, oldest first."""
        bodies = self._bodies("SELECT body FROM refits ORDER BY requested_at, key")
        return [Refit.parse(body) for body in bodies]


def _stamp(moment: datetime) -> str:
    """A moment as text that sorts by time.

    Raises:
        UsageError: It has no time zone.
    """
    if moment.tzinfo is None:
        raise UsageError(f"{moment} has no time zone; give UTC")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
