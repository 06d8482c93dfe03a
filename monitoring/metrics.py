"""What the alert store says, as Prometheus metrics; read anew at every scrape.

=============================================  ===================================================
``refit_monitor_store_readable``               1, or 0: nothing below is known then
``refit_monitor_decided_timestamp_seconds``    the moment that the last run of the monitor judged
``refit_monitor_bundle_timestamp_seconds``     when the bundle it looked at was made; ``bundle_id``
``refit_monitor_drift_results``                     results of the newest window, by ``state``
``refit_monitor_unresolved_alerts``            alerts, by ``about``: drift or insufficient data
``refit_monitor_last_refit``                   1 for the ``state`` of the last refit, else 0
``refit_monitor_last_refit_timestamp_seconds`` when that refit was asked for
=============================================  ===================================================
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from math import nan
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from monitoring.database import Database
from monitoring.store import ALERTS, DECISIONS, REFITS, RESULTS, Refit, RefitState
from refit.alert import Alert, AlertStatus, DriftDecision
from refit.drift import DriftResult, DriftState
from refit.errors import RefitError
from refit.progress import log_message

STAMP = "%Y%m%dT%H%M%S%fZ"
"""How a bundle's id tells the moment of its making."""


class StoreCollector(Collector):
    """Reads the store without ever writing to it, so that a read-only volume will do.

    Args:
        store: Where the store is, as ``SqlStore`` takes it; it may not be there yet.

    Raises:
        UsageError: That cannot be read.
    """

    def __init__(self, store: str | Path) -> None:
        self._database = Database(store, read_only=True, patience_seconds=5)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All metrics, read in one transaction; a store that cannot be read shows as 0."""
        readable = GaugeMetricFamily(
            "refit_monitor_store_readable", "Whether the alert store could be read."
        )
        try:
            families = self._read()
        except RefitError as error:
            log_message(f"no metrics of the alert store, which the first monitor makes: {error}")
            families = []
        readable.add_metric([], 1 if families else 0)
        yield readable
        yield from families

    def _read(self) -> list[GaugeMetricFamily]:
        with self._database.reading() as db:
            return [*_decisions(db), _results(db), _alerts(db), *_refits(db)]


def _decisions(db: Connection) -> Iterator[GaugeMetricFamily]:
    decided = GaugeMetricFamily(
        "refit_monitor_decided_timestamp_seconds", "The moment that the last run judged."
    )
    made = GaugeMetricFamily(
        "refit_monitor_bundle_timestamp_seconds",
        "When the bundle that the last run looked at was made.",
        labels=["bundle_id"],
    )
    last = select(DECISIONS.c.bundle_id, DECISIONS.c.body).order_by(DECISIONS.c.id.desc())
    for bundle_id, body in db.execute(last.limit(1)):
        decided.add_metric([], DriftDecision.parse_json(body).at.timestamp())
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


def _results(db: Connection) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "refit_monitor_drift_results", "Readings of the newest window.", labels=["state"]
    )
    newest = select(func.max(RESULTS.c.window_end)).scalar_subquery()
    query = select(RESULTS.c.body).where(RESULTS.c.window_end == newest)
    states = [DriftResult.parse_json(body).state for body in db.scalars(query)]
    for state in DriftState:
        family.add_metric([state], states.count(state))
    return family


def _alerts(db: Connection) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "refit_monitor_unresolved_alerts", "Alerts that nobody resolved.", labels=["about"]
    )
    alerts = [Alert.parse_json(body) for body in db.scalars(select(ALERTS.c.body))]
    unresolved = [alert for alert in alerts if alert.status is not AlertStatus.RESOLVED]
    for state in (DriftState.DRIFT, DriftState.INSUFFICIENT_DATA):
        about = [a for a in unresolved if any(r.state is state for r in a.results)]
        family.add_metric([state], len(about))
    return family


def _refits(db: Connection) -> Iterator[GaugeMetricFamily]:
    last = GaugeMetricFamily(
        "refit_monitor_last_refit", "The state of the last refit.", labels=["state"]
    )
    requested = GaugeMetricFamily(
        "refit_monitor_last_refit_timestamp_seconds", "When the last refit was asked for."
    )
    query = select(REFITS.c.body).order_by(REFITS.c.requested_at.desc()).limit(1)
    for refit in (Refit.parse_json(body) for body in db.scalars(query)):
        for state in RefitState:
            last.add_metric([state], 1 if refit.state is state else 0)
        requested.add_metric([], refit.requested_at.timestamp())
    yield last
    yield requested
