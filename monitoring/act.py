"""Act: one run of the monitor, from results to an alert and a refit that happens once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from monitoring.alerts import UNRESOLVED, refresh_pages
from monitoring.decide import PolicyState, decide, name_of
from monitoring.examples import find_examples
from monitoring.measure import Sources, measure
from monitoring.reference import Reference
from monitoring.refits import Launch, carry_out, resume_refits
from monitoring.review.pages import write_index
from monitoring.settings import MonitorSettings
from monitoring.store import UNDER_WAY, AlertStore, Refit
from refit.alert import Action, Alert, DriftDecision
from refit.drift import DriftResult, DriftState, Window
from refit.files import write_json
from refit.progress import log_message


@dataclass(frozen=True)
class Watched:
    """What one run of the monitor looks at.

    Attributes:
        bundle_id: The bundle that serves.
        reference: Its reference folder.
        log, events, items, index: See ``measure``.
        windows: The windows to measure, oldest first; all of them over by now.
    """

    bundle_id: str
    reference: Path
    log: Path
    events: Path | None
    items: Path | None
    index: Path | None
    windows: Sequence[Window]


@dataclass(frozen=True)
class Outcome:
    """What one run of the monitor came to."""

    results: tuple[DriftResult, ...]
    decision: DriftDecision
    alert: Alert | None
    refit: Refit | None


def monitor(
    settings: MonitorSettings,
    watched: Watched,
    store: AlertStore,
    pages: Path,
    now: datetime,
    launch: Launch | None = None,
    workspace: Path | None = None,
) -> Outcome:
    """Measure, decide, and act on the decision.

    Safe to kill at any moment and to run twice at once: every step can be repeated, and a refit
    that was claimed and left is taken up by a later run.

    Args:
        settings: How to measure, what to do about it.
        watched: What to look at.
        store: Where results, decisions, alerts and refits are kept.
        pages: Folder of the review pages.
        now: The moment of deciding, UTC.
        launch: Starts a refit; without it the alert says what would have been started.
        workspace: Evidently workspace folder.
    """
    if launch is not None:
        resume_refits(settings, store, pages, launch)
    policy = settings.policy
    results = measure(
        settings.measure,
        watched.reference,
        watched.log,
        watched.events,
        watched.items,
        watched.index,
        watched.windows,
        workspace,
    )
    store.add_results(results)
    opened = Reference.read(watched.reference)
    embedding_version = opened.manifest.embedding_version
    recent = store.results(
        embedding_version, max(policy.windows_looked_at, policy.cannot_tell_windows)
    )
    new_events = count_new_events(watched.events, opened.manifest.end)
    state = _policy_state(store, embedding_version, now, new_events)
    decision, concerning = decide(policy, recent, state)
    store.add_decision(watched.bundle_id, decision)
    log_message(f"monitor: {decision.action}: {decision.reasons[-1]}")
    if decision.action is Action.NOTHING:
        write_index(pages, store.alerts(), store.refits())
        return Outcome(tuple(results), decision, None, None)
    alert = _raise_alert(settings, watched, opened, store, pages, decision, concerning)
    refit = None
    if decision.action is Action.REFIT and not decision.dry_run and launch is not None:
        refit = store.claim_refit(
            key=alert.alert_id,
            alert=alert,
            at=now,
            not_since=now - timedelta(hours=policy.cooldown_hours),
            lease_seconds=settings.lease_seconds,
        )
        if refit is None:
            log_message(
                f"monitor: the refit for {alert.alert_id} is claimed by another run already"
            )
        else:
            refit = carry_out(settings, store, pages, refit, launch)
    if refit is None:
        refresh_pages(store, pages, alert.alert_id)
    return Outcome(tuple(results), decision, store.alert(alert.alert_id), refit)


def count_new_events(events: Path | None, since: datetime) -> int | None:
    """Events after a moment; None when it cannot be known."""
    if events is None or not events.exists():
        return None
    moment = pa.scalar(since, pa.timestamp("us", tz="UTC"))
    after = ds.field("event_time") > moment
    return int(ds.dataset(str(events), format="parquet").count_rows(filter=after))


def _policy_state(
    store: AlertStore, embedding_version: str, now: datetime, new_events: int | None
) -> PolicyState:
    refits = store.refits()
    told = [
        name_of(result)
        for alert in store.alerts(embedding_version)
        if alert.status in UNRESOLVED
        for result in alert.results
    ]
    return PolicyState(
        now=now,
        active_refit=next((r.key for r in refits if r.state in UNDER_WAY), ""),
        last_refit_at=refits[-1].requested_at if refits else None,
        new_events=new_events,
        alerted=tuple(told),
    )


def _raise_alert(
    settings: MonitorSettings,
    watched: Watched,
    reference: Reference,
    store: AlertStore,
    pages: Path,
    decision: DriftDecision,
    concerning: Sequence[DriftResult],
) -> Alert:
    """Keep the alert; its id follows from bundle and window, so that two runs raise it once."""
    window = watched.windows[-1]
    alert_id = f"{watched.bundle_id}-{window.end:%Y%m%dT%H%M}"
    alert = Alert(
        alert_id=alert_id,
        created_at=decision.at,
        bundle_id=watched.bundle_id,
        embedding_version=reference.manifest.embedding_version,
        results=tuple(concerning),
        decision=decision,
        report=f"{alert_id}.html",
    )
    if store.add_alert(alert):
        sources = Sources(watched.log, watched.events, watched.items, watched.index, last=True)
        examples = find_examples(settings.measure, reference, sources, window)
        write_json(pages / f"{alert_id}.json", examples.model_dump(mode="json"))
        drifted = sum(result.state is DriftState.DRIFT for result in concerning)
        silent = len(concerning) - drifted
        log_message(f"alert {alert_id}: {drifted} results drifted, {silent} could not tell")
    return store.alert(alert_id)
