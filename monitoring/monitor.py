"""One run of the monitor: measure, decide, and act on the decision."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from monitoring.alerts import HISTORY_WINDOWS, MONITOR, escalate, make_entry, refresh_pages
from monitoring.budget import DAYS_PER_MONTH, Evidence, collect_evidence
from monitoring.closings import describe_closed, find_closing, leave_out_closed
from monitoring.decide import (
    Findings,
    PolicyState,
    decide,
    find_drift,
    find_worse,
    rate_severity,
)
from monitoring.evidence import collect_evidence as show_evidence
from monitoring.explain import collect_context, explain
from monitoring.faults.causes import find_quarantines
from monitoring.harm import estimate_harm
from monitoring.measure import measure
from monitoring.orders import Means, Refresh, carry_out_orders
from monitoring.reference import Reference
from monitoring.refits import Launch, carry_out, resume_refits
from monitoring.review.pages import write_index
from monitoring.roll_back import UNKNOWN_ROLL_BACK, RollBack
from monitoring.settings import MonitorSettings
from monitoring.store import (
    UNDER_WAY,
    AlertStore,
    Order,
    OrderRequest,
    Refit,
    RefitState,
    WrongState,
)
from monitoring.summary import WindowSummary
from monitoring.windows import MonitoredData
from refit.alert import Action, Alert, AlertStatus, DriftDecision
from refit.drift import DriftResult, DriftState, Window
from refit.files import write_json
from refit.incident import Cause, Incident
from refit.progress import log_message
from refit.quarantine import Quarantine


@dataclass(frozen=True)
class MonitorInputs:
    """What one run of the monitor measures.

    Attributes:
        bundle_id: The bundle that serves.
        reference: Its reference.
        data: Prediction log, events, items and index.
        windows: The windows to measure, oldest first; all of them are over.
        notes: Sentences that the reasons of the decision begin with.
        roll_back: Where a roll back of the bundle leads to.
    """

    bundle_id: str
    reference: Reference
    data: MonitoredData
    windows: Sequence[Window]
    notes: tuple[str, ...] = ()
    roll_back: RollBack = UNKNOWN_ROLL_BACK


@dataclass(frozen=True)
class MonitorOutcome:
    """What one run of the monitor measured, decided and started.

    Attributes:
        results: All results of the measured windows.
        decision: The decision.
        alert: The alert that was raised, or the one of an earlier run for the same window.
        refit: The refit that this run claimed.
        evidence: What the results together say that something drifts.
        incident: The story of what drifts.
        is_closed: Whether nothing was measured, because all windows are of planned closings.
    """

    results: tuple[DriftResult, ...]
    decision: DriftDecision
    alert: Alert | None
    refit: Refit | None
    evidence: Evidence | None = None
    incident: Incident | None = None
    is_closed: bool = False

    def list_evidence(self, most: int = 15) -> list[tuple[str, float, float | None]]:
        """Results by their part of the evidence, each with its probability without drift."""
        if self.evidence is None:
            return []
        newest = {result.name: result.p_value for result in self.results}
        leading = list(self.evidence.shares.items())[:most]
        return [(name, share, newest.get(name)) for name, share in leading]

    def tell_story(self) -> list[str]:
        """The incident in sentences; none when nothing drifts."""
        if self.incident is None:
            return []
        return [
            f"{self.incident.cause}: {self.incident.summary}",
            *self.incident.evidence,
            *(f"ruled out: {line}" for line in self.incident.ruled_out),
        ]


def monitor(
    settings: MonitorSettings,
    inputs: MonitorInputs,
    store: AlertStore,
    pages: Path,
    now: datetime,
    launch: Launch | None = None,
    workspace: Path | None = None,
    refresh: Refresh | None = None,
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
        refresh: Starts a refresh of the index; without it a refresh that is due is kept as a
            request, which the review application carries out.

    Raises:
        UsageError: There are no windows.
        RefitError: The reference cannot be read.
        ServiceUnreachable: The store cannot be used.
    """
    if launch is not None:
        resume_refits(settings, store, pages, launch)
    closings = settings.measure.closings
    if closed := describe_closed(closings, inputs.windows):
        inputs = replace(
            inputs,
            windows=leave_out_closed(closings, inputs.windows),
            notes=(*inputs.notes, closed),
        )
        if not inputs.windows:
            return _rest(inputs, store, pages, now)
    reference = inputs.reference
    towers = reference.manifest.embedding_version
    earlier = accept_settled(store.summaries(towers), store.alerts(towers))
    measured = measure(
        settings.measure,
        reference,
        inputs.data,
        inputs.windows,
        workspace,
        earlier,
        settings.quality,
    )
    store.add_results(measured.results)
    store.add_summaries(towers, measured.summaries)
    policy = settings.policy
    history = [
        result
        for result in store.results(towers, HISTORY_WINDOWS)
        if find_closing(closings, result.window.start, result.window.end) is None
    ]
    state = _read_state(settings, inputs, reference, store, history, now)
    findings = find_drift(policy, history, state)
    incident = _explain(settings, inputs, reference, earlier, findings, history, state)
    decision = decide(policy, findings, state, incident)
    reasons = (*inputs.notes, *decision.reasons)
    decision = decision.model_copy(update={"reasons": reasons})
    store.add_decision(inputs.bundle_id, decision)
    log_message(f"monitor: {decision.action}: {decision.reasons[-1]}")
    if decision.action is Action.NOTHING:
        write_index(store, pages)
        return MonitorOutcome(measured.results, decision, None, None, state.evidence, incident)
    alert = _tell(settings, inputs, reference, store, pages, decision, findings, state, incident)
    refit = None
    if decision.is_carried_out(policy.automatic) and policy.enabled:
        refit = _act(settings, store, pages, alert, findings, incident, decision, launch, refresh)
    if refit is None:
        refresh_pages(store, pages, alert.alert_id)
    told = store.alert(alert.alert_id)
    return MonitorOutcome(measured.results, decision, told, refit, state.evidence, incident)


def _rest(inputs: MonitorInputs, store: AlertStore, pages: Path, now: datetime) -> MonitorOutcome:
    """Keep the decision of a run in which the shop is closed all the time."""
    decision = DriftDecision(action=Action.NOTHING, reasons=inputs.notes, at=now)
    store.add_decision(inputs.bundle_id, decision)
    log_message(f"monitor: {decision.action}: {decision.reasons[-1]}")
    write_index(store, pages)
    return MonitorOutcome((), decision, None, None, is_closed=True)


def find_settled(alerts: Sequence[Alert]) -> dict[str, datetime]:
    """By ``subject/statistic``, until when a person has settled what drifted."""
    settled: dict[str, datetime] = {}
    for alert in alerts:
        if alert.status is AlertStatus.RESOLVED:
            until = alert.settled_until or alert.created_at
            for result in alert.results:
                settled[result.name] = max(settled.get(result.name, until), until)
    return settled


def accept_settled(
    summaries: Sequence[WindowSummary], alerts: Sequence[Alert]
) -> list[WindowSummary]:
    """Windows that drifted count as normal once a person has resolved the alert about them.

    Those of an upstream fault never do: what a broken feed wrote is not what to expect.
    """
    accepted = find_settled(
        [a for a in alerts if a.incident is None or a.incident.cause is not Cause.UPSTREAM_FAULT]
    )
    return [
        summary.model_copy(update={"drifted": False})
        if summary.drifted
        and summary.window.end <= accepted.get(summary.name, summary.window.start)
        else summary
        for summary in summaries
    ]


def count_new_events(events: Path | None, since: datetime) -> int | None:
    """The number of events after ``since``; None when there is no events table."""
    if events is None or not events.exists():
        return None
    after = ds.field("event_time") > pa.scalar(since, pa.timestamp("us", tz="UTC"))
    return int(ds.dataset(str(events), format="parquet").count_rows(filter=after))


def _read_state(
    settings: MonitorSettings,
    inputs: MonitorInputs,
    reference: Reference,
    store: AlertStore,
    results: Sequence[DriftResult],
    now: datetime,
) -> PolicyState:
    towers = reference.manifest.embedding_version
    refits, alerts = store.refits(), store.alerts(towers)
    refused = {refit.alert_id for refit in refits if refit.state is RefitState.REFUSED}
    evidence = None
    if settings.policy.kind == "expected cost":
        month = now - timedelta(days=DAYS_PER_MONTH)
        evidence = collect_evidence(
            settings.policy,
            settings.measure,
            results,
            find_settled(alerts),
            sum(alert.created_at >= month for alert in alerts),
        )
    return PolicyState(
        now=now,
        active_refit=next((r.key for r in refits if r.state in UNDER_WAY), ""),
        last_refit_at=refits[-1].requested_at if refits else None,
        new_events=count_new_events(inputs.data.events, reference.manifest.end),
        alerts=tuple(alerts),
        refused=tuple(alert for alert in store.alerts() if alert.alert_id in refused),
        faults=_list_faults(reference),
        unreadable=tuple(
            f"the {name} cannot be read: {error}" for name, error in inputs.data.unreadable.items()
        ),
        evidence=evidence,
        harm=estimate_harm(
            settings.policy, results, settings.measure.window_days, settings.quality.lag
        ),
        roll_back=inputs.roll_back,
    )


def _explain(
    settings: MonitorSettings,
    inputs: MonitorInputs,
    reference: Reference,
    earlier: Sequence[WindowSummary],
    findings: Findings,
    history: Sequence[DriftResult],
    state: PolicyState,
) -> Incident | None:
    """The story of what drifts; None when nothing does."""
    if not findings.drifting and not findings.named:
        return None
    settled = find_settled(state.alerts)
    counted = [r for r in history if r.name not in settled or r.window.end > settled[r.name]]
    if not counted:
        return None
    context = collect_context(settings.measure, reference, inputs.data, counted, earlier)
    return explain(counted, state.evidence, context)


def _list_faults(reference: Reference) -> tuple[str, ...]:
    """Names of the results whose drift signals a broken feed, as the drift metrics declare it."""
    return tuple(entry.name for entry in reference.manifest.metrics if entry.is_fault)


def _act(
    settings: MonitorSettings,
    store: AlertStore,
    pages: Path,
    alert: Alert,
    findings: Findings,
    incident: Incident | None,
    decision: DriftDecision,
    launch: Launch | None,
    refresh: Refresh | None,
) -> Refit | None:
    """Carry out a decision; returns the refit that this run claimed, if there is one."""
    if decision.action is Action.QUARANTINE:
        quarantine_days(store, alert, findings, incident, decision.at)
    if decision.action is Action.REFRESH:
        order_refresh(store, alert, decision)
        if refresh is not None:
            carry_out_orders(settings, store, pages, Means(launch=launch, refresh=refresh))
    if decision.action is Action.REFIT and launch is not None:
        refit = _claim_refit(settings, store, alert, decision.at)
        if refit is not None:
            return carry_out(settings, store, pages, refit, launch)
    return None


def quarantine_days(
    store: AlertStore,
    alert: Alert,
    findings: Findings,
    incident: Incident | None,
    at: datetime,
) -> list[Quarantine]:
    """Leave the days of a broken feed out of training; returns the new quarantines.

    Those of the named faults; without one, those of the feed that the incident names, since it
    began.
    """
    named = [findings.latest[name] for name in findings.named]
    found = find_quarantines(named, alert.alert_id)
    end = findings.windows[-1]
    table = incident.feed.split(".")[0] if incident is not None and not found else ""
    if incident is not None and table in ("items", "events"):
        found = [
            Quarantine(
                quarantine_id="",
                table=table,
                start=incident.began,
                reason=incident.summary,
                alert_id=alert.alert_id,
            )
        ]
    added = []
    for each in found:
        # One for each window: a fault that goes on adds its next day at the next run.
        quarantine = each.model_copy(
            update={"quarantine_id": f"{each.table}-{end:%Y%m%dT%H%M}", "end": end}
        )
        name, reason = quarantine.quarantine_id, quarantine.reason
        entry = make_entry("quarantine", name, MONITOR, reason, MONITOR, at, alert.alert_id)
        if store.add_quarantine(quarantine, entry):
            added.append(quarantine)
    return added


def order_refresh(store: AlertStore, alert: Alert, decision: DriftDecision) -> None:
    """Ask for a refresh of the index, unless one is under way."""
    reason = decision.reasons[-1]
    request = OrderRequest(
        request_id=f"{alert.alert_id}-{decision.at:%Y%m%dT%H%M}-refresh",
        order=Order.REFRESH,
        alert_id=alert.alert_id,
        by=MONITOR,
        reason=reason,
        at=decision.at,
    )
    entry = make_entry(
        Order.REFRESH, alert.alert_id, MONITOR, reason, MONITOR, decision.at, alert.alert_id
    )
    try:
        store.add_order(request, entry)
    except WrongState as known:
        log_message(f"monitor: {known}")


def _claim_refit(
    settings: MonitorSettings, store: AlertStore, alert: Alert, now: datetime
) -> Refit | None:
    # An alert may be due for a refit again, long after the gate refused one.
    again = "" if now == alert.created_at else f"-{now:%Y%m%dT%H%M}"
    refit = store.claim_refit(
        key=f"{alert.alert_id}{again}",
        alert=alert,
        at=now,
        not_since=now - timedelta(hours=settings.policy.cooldown_hours),
        lease_seconds=settings.lease_seconds,
    )
    if refit is None:
        log_message(f"monitor: another run has claimed the refit for {alert.alert_id}")
    return refit


def _tell(
    settings: MonitorSettings,
    inputs: MonitorInputs,
    reference: Reference,
    store: AlertStore,
    pages: Path,
    decision: DriftDecision,
    findings: Findings,
    state: PolicyState,
    incident: Incident | None,
) -> Alert:
    """Raise an alert, or add what became worse to the unresolved one of the same cause."""
    severity = rate_severity(findings, state)
    known = _find_alert(state, incident)
    if known is not None:
        worse = find_worse(settings.policy, findings, known)
        if worse:
            names = ", ".join(result.name for result in worse)
            log_message(f"alert {known.alert_id} escalates: {names}")
            return escalate(
                store,
                known.alert_id,
                severity,
                decision.at,
                names,
                results=worse,
                incident=incident,
                decision=decision,
            )
        return known
    window = inputs.windows[-1]
    alert_id = f"{inputs.bundle_id}-{window.end:%Y%m%dT%H%M}"
    alert = Alert(
        alert_id=alert_id,
        created_at=decision.at,
        bundle_id=inputs.bundle_id,
        embedding_version=reference.manifest.embedding_version,
        results=findings.concerning,
        decision=decision,
        report=f"{alert_id}.html",
        severity=severity,
        incident=incident,
    )
    if store.add_alert(alert):
        evidence = show_evidence(
            settings.measure, reference, inputs.data, window, findings.concerning
        )
        write_json(pages / f"{alert_id}.json", evidence.model_dump(mode="json"))
        drifted = sum(result.state is DriftState.DRIFT for result in alert.results)
        log_message(
            f"alert {alert_id}: {drifted} results drifted, "
            f"{len(alert.results) - drifted} others concern it"
        )
    return store.alert(alert_id)


def _find_alert(state: PolicyState, incident: Incident | None) -> Alert | None:
    """The newest unresolved alert of the same cause; of any cause where the cause is unknown."""
    for alert in state.unresolved:
        if incident is None or alert.incident is None:
            return alert
        if alert.incident.cause in (incident.cause, Cause.UNKNOWN):
            return alert
    return None
