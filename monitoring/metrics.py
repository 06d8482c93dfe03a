"""What the alert store says, as Prometheus metrics; read anew at every scrape.

=============================================  ===================================================
``refit_monitor_store_readable``               1, or 0: nothing below is known then
``refit_monitor_decided_timestamp_seconds``    the moment that the last run of the monitor judged
``refit_monitor_bundle_timestamp_seconds``     when the bundle it looked at was made; ``bundle_id``
``refit_monitor_readings``                     readings of the newest window, by ``state``
``refit_monitor_unresolved_alerts``            alerts, by ``about``: drift or cannot-tell
``refit_monitor_last_refit``                   1 for the ``state`` of the last refit, else 0
``refit_monitor_last_refit_timestamp_seconds`` when that refit was asked for
=============================================  ===================================================
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from math import nan
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from monitoring.store import Refit, RefitState
from refit.alert import Alert, AlertStatus, Decision
from refit.progress import say
from refit.reading import Reading, State

STAMP = "%Y%m%dT%H%M%S%fZ"
"""How a bundle's id tells the moment of its making."""


class StoreCollector(Collector):
    """Reads the store without ever writing to it, so that a read-only volume will do.

    Args:
        store: The SQLite file; it may not be there yet.
    """

    def __init__(self, store: Path) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All metrics, read in one transaction; a store that cannot be read shows as 0."""
        readable = GaugeMetricFamily(
            "refit_monitor_store_readable", "Whether the alert store could be read."
        )
        try:
            families = self._read()
        except (sqlite3.Error, ValueError) as error:
            say(f"the alert store {self._store} cannot be read: {error}")
            families = []
        readable.add_metric([], 1 if families else 0)
        yield readable
        yield from families

    def _read(self) -> list[GaugeMetricFamily]:
        address = f"{self._store.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=5, isolation_level=None)) as db:
            db.execute("BEGIN")
            return [*_decisions(db), _readings(db), _alerts(db), *_refits(db)]


def _decisions(db: sqlite3.Connection) -> Iterator[GaugeMetricFamily]:
    decided = GaugeMetricFamily(
        "refit_monitor_decided_timestamp_seconds", "The moment that the last run judged."
    )
    made = GaugeMetricFamily(
        "refit_monitor_bundle_timestamp_seconds",
        "When the bundle that the last run looked at was made.",
        labels=["bundle_id"],
    )
    query = "SELECT bundle_id, body FROM decisions ORDER BY id DESC LIMIT 1"
    for bundle_id, body in db.execute(query):
        decided.add_metric([], Decision.parse(json.loads(body)).at.timestamp())
        made.add_metric([bundle_id], _made_at(bundle_id))
    yield decided
    yield made


def _made_at(bundle_id: str) -> float:
    """Seconds since 1970; NaN, which no alert takes for young, where the id does not tell."""
    try:
        made = datetime.strptime(bundle_id.split("-")[0], STAMP)
    except ValueError:
        return nan
    return made.replace(tzinfo=UTC).timestamp()


def _readings(db: sqlite3.Connection) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "refit_monitor_readings", "Readings of the newest window.", labels=["state"]
    )
    newest = "SELECT body FROM readings WHERE window_end = (SELECT max(window_end) FROM readings)"
    states = [Reading.parse(body).state for body in _bodies(db, newest)]
    for state in State:
        family.add_metric([state], states.count(state))
    return family


def _alerts(db: sqlite3.Connection) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "refit_monitor_unresolved_alerts", "Alerts that nobody resolved.", labels=["about"]
    )
    alerts = [Alert.parse(body) for body in _bodies(db, "SELECT body FROM alerts")]
    unresolved = [alert for alert in alerts if alert.status is not AlertStatus.RESOLVED]
    for state in (State.DRIFT, State.CANNOT_TELL):
        about = [a for a in unresolved if any(r.state is state for r in a.readings)]
        family.add_metric([state], len(about))
    return family


def _refits(db: sqlite3.Connection) -> Iterator[GaugeMetricFamily]:
    last = GaugeMetricFamily(
        "refit_monitor_last_refit", "The state of the last refit.", labels=["state"]
    )
    requested = GaugeMetricFamily(
        "refit_monitor_last_refit_timestamp_seconds", "When the last refit was asked for."
    )
    query = "SELECT body FROM refits ORDER BY requested_at DESC LIMIT 1"
    for refit in (Refit.parse(body) for body in _bodies(db, query)):
        for state in RefitState:
            last.add_metric([state], 1 if refit.state is state else 0)
        requested.add_metric([], refit.requested_at.timestamp())
    yield last
    yield requested


def _bodies(db: sqlite3.Connection, query: str) -> list[Any]:
    return [json.loads(body) for (body,) in db.execute(query)]
