"""The alert store as Prometheus metrics, read at every scrape.

=============================================  ===================================================
``refit_monitor_store_readable``               1; or 0, then all metrics below are missing
``refit_monitor_decided_timestamp_seconds``    time of the monitor's last decision
``refit_monitor_bundle_timestamp_seconds``     when the bundle it monitored was built; ``bundle_id``
``refit_monitor_drift_results``                results of the newest window, by ``state``
``refit_monitor_unresolved_alerts``            alerts, by ``about`` (drift or insufficient data) and
                                               ``severity``; those that are muted are left out
``refit_monitor_last_refit``                   1 for the ``state`` of the last refit, else 0
``refit_monitor_last_refit_timestamp_seconds`` when that refit was requested
=============================================  ===================================================
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from math import nan
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from monitoring.store import ALERTS, DECISIONS, REFITS, RESULTS, Refit, RefitState, has_tables
from refit.alert import Alert, AlertStatus, DriftDecision, Severity
from refit.bundle import find_build_time
from refit.database import Database
from refit.drift import DriftResult, DriftState
from refit.errors import RefitError
from refit.progress import log_message


class StoreCollector(Collector):
    """Reads the store and never writes to it, so that a read-only volume is enough.

    Args:
        store: Where the store is, as ``SqlStore`` takes it; it may not exist yet.

    Raises:
        UsageError: The place cannot be read.
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
            log_message(f"no metrics, {error} (the first run of refit monitor creates the store)")
            families = []
        readable.add_metric([], 1 if families else 0)
        yield readable
        yield from families

    def _read(self) -> list[GaugeMetricFamily]:
        with self._database.reading() as db:
            has_tables(db)
            return [*_decisions(db), _results(db), _alerts(db), *_refits(db)]


def _decisions(db: Connection) -> Iterator[GaugeMetricFamily]:
    decided = GaugeMetricFamily(
        "refit_monitor_decided_timestamp_seconds", "Time of the monitor's last decision."
    )
    built = GaugeMetricFamily(
        "refit_monitor_bundle_timestamp_seconds",
        "When the bundle that the last run monitored was built.",
        labels=["bundle_id"],
    )
    last = select(DECISIONS.c.bundle_id, DECISIONS.c.body).order_by(DECISIONS.c.id.desc())
    for bundle_id, body in db.execute(last.limit(1)):
        decided.add_metric([], DriftDecision.parse_json(body).at.timestamp())
        built.add_metric([bundle_id], _built_at(bundle_id))
    yield decided
    yield built


def _built_at(bundle_id: str) -> float:
    """Seconds since 1970; NaN, for which no alert fires, where the id holds no time."""
    built = find_build_time(bundle_id)
    return nan if built is None else built.timestamp()


def _results(db: Connection) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "refit_monitor_drift_results", "Results of the newest window.", labels=["state"]
    )
    newest = select(func.max(RESULTS.c.window_end)).scalar_subquery()
    query = select(RESULTS.c.body).where(RESULTS.c.window_end == newest)
    states = [DriftResult.parse_json(body).state for body in db.scalars(query)]
    for state in DriftState:
        family.add_metric([state], states.count(state))
    return family


def _alerts(db: Connection) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "refit_monitor_unresolved_alerts",
        "Alerts that are neither resolved nor muted.",
        labels=["about", "severity"],
    )
    unresolved = select(ALERTS.c.body).where(ALERTS.c.status != AlertStatus.RESOLVED)
    alerts = [Alert.parse_json(body) for body in db.scalars(unresolved)]
    now = datetime.now(UTC)
    heard = [each for each in alerts if each.muted_until is None or each.muted_until <= now]
    for state in (DriftState.DRIFT, DriftState.INSUFFICIENT_DATA):
        about = [each.severity for each in heard if state in _what_about(each)]
        for severity in Severity:
            family.add_metric([state, severity], about.count(severity))
    return family


def _what_about(alert: Alert) -> set[DriftState]:
    """What an alert is about; drift, where its results drifted in earlier windows only."""
    states = {result.state for result in alert.results} - {DriftState.OK}
    return states or {DriftState.DRIFT}


def _refits(db: Connection) -> Iterator[GaugeMetricFamily]:
    last = GaugeMetricFamily(
        "refit_monitor_last_refit", "The state of the last refit.", labels=["state"]
    )
    requested = GaugeMetricFamily(
        "refit_monitor_last_refit_timestamp_seconds", "When the last refit was requested."
    )
    query = select(REFITS.c.body).order_by(REFITS.c.requested_at.desc()).limit(1)
    for refit in (Refit.parse_json(body) for body in db.scalars(query)):
        for state in RefitState:
            last.add_metric([state], 1 if refit.state is state else 0)
        requested.add_metric([], refit.requested_at.timestamp())
    yield last
    yield requested
