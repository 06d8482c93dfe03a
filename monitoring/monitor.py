"""One run of the monitor: measure, decide, and act on the decision."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from monitoring.alerts import UNRESOLVED, refresh_pages
from monitoring.decide import PolicyState, decide
from monitoring.evidence import collect_evidence
from monitoring.measure import MonitoredData, measure
from monitoring.reference import Reference
from monitoring.refits import Launch, carry_out, resume_refits
from monitoring.review.pages import write_index
from monitoring.settings import MonitorSettings
from monitoring.store import UNDER_WAY, AlertStore, Refit
from refit.alert import Action, Alert, DriftDecision
from refit.drift import DriftResult, DriftState, Window
from refit.errors import RefitError
from refit.files import write_json
from refit.progress import log_message


@dataclass(frozen=True)
class MonitorInputs:
    """What one run of the monitor measures.

    Attributes:
        bundle_id: The bundle that serves.
        reference: Its reference folder.
        data: Prediction log, events, items and index.
        windows: The windows to measure, oldest first; all of them are over.
    """

    bundle_id: str
    reference: Path
    data: MonitoredData
    windows: Sequence[Window]


@dataclass(frozen=True)
class MonitorOutcome:
    """What one run of the monitor measured, decided and started.

    Attributes:
        results: All results of the measured windows.
        decision: The decision.
        alert: The alert that was raised, or the one of an earlier run for the same window.
        refit: The refit that this run claimed.
    """

    results: tuple[DriftResult, ...]
    decision: DriftDecision
    alert: Alert | None
    refit: Refit | None


def monitor(
    settings: MonitorSettings,
    inputs: MonitorInputs,
    store: AlertStore,
    pages: Path,
    now: datetime,
    launch: Launch | None = None,
    workspace: Path | None = None,
) -> MonitorOutcome:
    """Measure, decide, and act on the decision.

    It may be killed at any time and run twice at once: every step can be repeated, and a refit
    that was claimed and abandoned is taken over by a later run.

    Args:
        settings: How to measure, and the policy.
        inputs: What to measure.
        store: Where results, decisions, alerts and refits are kept.
        pages: Folder of the review pages.
        now: The time of the decision, UTC.
        launch: Starts a refit; without it the alert names the refit that is due.
        workspace: Evidently workspace folder.

    Raises:
        UsageError: There are no windows.
        RefitError: The reference cannot be read.
        ServiceUnreachable: The store cannot be used.
    """
    if launch is not None:
        resume_refits(settings, store, pages, launch)
    results = measure(settings.measure, inputs.reference, inputs.data, inputs.windows, workspace)
    store.add_results(results)
    reference = Reference.read(inputs.reference)
    decision, concerning = _decide(settings, inputs, reference, store, now)
    store.add_decision(inputs.bundle_id, decision)
    log_message(f"monitor: {decision.action}: {decision.reasons[-1]}")
    if decision.action is Action.NOTHING:
        write_index(pages, store.alerts(), store.refits())
        return MonitorOutcome(tuple(results), decision, None, None)
    alert = _raise_alert(settings, inputs, reference, store, pages, decision, concerning)
    refit = None
    if decision.action is Action.REFIT and not decision.dry_run and launch is not None:
        refit = _claim_refit(settings, store, alert, now)
    if refit is not None and launch is not None:
        refit = carry_out(settings, store, pages, refit, launch)
    else:
        refresh_pages(store, pages, alert.alert_id)
    return MonitorOutcome(tuple(results), decision, store.alert(alert.alert_id), refit)


def count_new_events(events: Path | None, since: datetime) -> int | None:
    """The number of events after ``since``; None when there is no events table."""
    if events is None or not events.exists():
        return None
    after = ds.field("event_time") > pa.scalar(since, pa.timestamp("us", tz="UTC"))
    return int(ds.dataset(str(events), format="parquet").count_rows(filter=after))


def _decide(
    settings: MonitorSettings,
    inputs: MonitorInputs,
    reference: Reference,
    store: AlertStore,
    now: datetime,
) -> tuple[DriftDecision, tuple[DriftResult, ...]]:
    policy, embedding_version = settings.policy, reference.manifest.embedding_version
    windows = max(policy.windows_considered, policy.insufficient_data_windows)
    refits = store.refits()
    state = PolicyState(
        now=now,
        active_refit=next((r.key for r in refits if r.state in UNDER_WAY), ""),
        last_refit_at=refits[-1].requested_at if refits else None,
        new_events=count_new_events(inputs.data.events, reference.manifest.end),
        alerted=tuple(
            result.name
            for alert in store.alerts(embedding_version)
            if alert.status in UNRESOLVED
            for result in alert.results
        ),
        faults=_list_faults(reference),
        unreadable=tuple(
            f"the {name} cannot be read: {error}" for name, error in inputs.data.unreadable.items()
        ),
    )
    return decide(policy, store.results(embedding_version, windows), state)


def _list_faults(reference: Reference) -> tuple[str, ...]:
    """Names of the results whose drift signals a broken feed, as the drift metrics declare it."""
    faults = []
    for calibrated in reference.manifest.metrics:
        try:
            if calibrated.load().signals_fault(calibrated.subject):
                faults.append(calibrated.name)
        except RefitError:  # its results are insufficient data, and carry the reason
            continue
    return tuple(faults)


def _claim_refit(
    settings: MonitorSettings, store: AlertStore, alert: Alert, now: datetime
) -> Refit | None:
    refit = store.claim_refit(
        key=alert.alert_id,
        alert=alert,
        at=now,
        not_since=now - timedelta(hours=settings.policy.cooldown_hours),
        lease_seconds=settings.lease_seconds,
    )
    if refit is None:
        log_message(f"monitor: another run has claimed the refit for {alert.alert_id}")
    return refit


def _raise_alert(
    settings: MonitorSettings,
    inputs: MonitorInputs,
    reference: Reference,
    store: AlertStore,
    pages: Path,
    decision: DriftDecision,
    concerning: Sequence[DriftResult],
) -> Alert:
    """Keep the alert; its id follows from bundle and window, so that two runs raise it once."""
    window = inputs.windows[-1]
    alert_id = f"{inputs.bundle_id}-{window.end:%Y%m%dT%H%M}"
    alert = Alert(
        alert_id=alert_id,
        created_at=decision.at,
        bundle_id=inputs.bundle_id,
        embedding_version=reference.manifest.embedding_version,
        results=tuple(concerning),
        decision=decision,
        report=f"{alert_id}.html",
    )
    if store.add_alert(alert):
        evidence = collect_evidence(settings.measure, reference, inputs.data, window, concerning)
        write_json(pages / f"{alert_id}.json", evidence.model_dump(mode="json"))
        drifted = sum(result.state is DriftState.DRIFT for result in concerning)
        log_message(
            f"alert {alert_id}: {drifted} results drifted, "
            f"{len(concerning) - drifted} have insufficient data"
        )
    return store.alert(alert_id)
