"""Replay: what another policy would have decided on the results of the past."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from monitoring.budget import collect_evidence
from monitoring.closings import find_closing
from monitoring.decide import PolicyState, decide, find_drift
from monitoring.harm import PURCHASES, estimate_harm
from monitoring.settings import MeasureSettings, PolicySettings
from refit.alert import Action, Alert, AlertStatus, DriftDecision
from refit.drift import DriftResult, DriftState
from refit.settings import Settings


class ReplayedDay(Settings):
    """What a policy would have decided after one window.

    Attributes:
        end: End of the window.
        action: The action.
        reason: The deciding reason.
        lost: Purchases that were lost in it, below what was expected; 0 where that is unknown.
    """

    end: datetime
    action: Action
    reason: str
    lost: float


class Replay(Settings):
    """What a policy would have done.

    Attributes:
        days: By window, oldest first.
        alerts: How many alerts it would have raised.
        refits: How many refits it would have started.
        waited: Purchases that were lost in windows that drifted before it would have acted.
        cost: ``waited``, and what its refits cost, in purchases.
    """

    days: tuple[ReplayedDay, ...]
    alerts: int
    refits: int
    waited: float
    cost: float


PURCHASE_DROP = f"{PURCHASES}/drop"
ACTS = (Action.REFIT, Action.REFRESH, Action.QUARANTINE, Action.ROLL_BACK)


def replay(
    policy: PolicySettings,
    measure: MeasureSettings,
    results: Sequence[DriftResult],
    faults: Sequence[str] = (),
    lag: timedelta = timedelta(0),
) -> Replay:
    """Decide after every window of the past as the policy would have.

    The past itself does not change: a refit that the policy would have started is counted, not
    carried out. It is assumed to pass its gate and to answer all that drifts then, until that has
    ended by itself. An alert counts as reviewed once none of its results drifts any more. New
    events are assumed to be plenty, and causes to be unknown.

    Args:
        policy: The policy to try.
        measure: Length of a window, and planned closings, whose windows are left out.
        results: All results of these towers, in any order.
        faults: ``subject/statistic`` of results whose drift signals a broken feed.
        lag: How much later than the answers a window's purchase rate is known.
    """
    open_results = (
        r for r in results if not find_closing(measure.closings, r.window.start, r.window.end)
    )
    ordered = sorted(open_results, key=lambda result: result.window.end)
    ends = sorted({result.window.end for result in ordered})
    alerts: list[Alert] = []
    days: list[ReplayedDay] = []
    refitted: datetime | None = None
    known: list[DriftResult] = []
    answered: set[str] = set()
    waited = 0.0
    for end in ends:
        measured = [result for result in ordered if result.window.end == end]
        answered &= {result.name for result in measured if result.state is DriftState.DRIFT}
        newest = [_quiet(result) if result.name in answered else result for result in measured]
        known += newest
        alerts = [_review(alert, newest) for alert in alerts]
        state = PolicyState(
            now=end,
            last_refit_at=refitted,
            new_events=policy.minimum_new_events,
            alerts=tuple(alerts),
            faults=tuple(faults),
            evidence=None if policy.kind == "windows" else collect_evidence(policy, measure, known),
            harm=estimate_harm(policy, known, measure.window_days, lag),
        )
        findings = find_drift(policy, known, state)
        decision = decide(policy, findings, state)
        lost = _count_lost(newest)
        drifts = any(result.state is DriftState.DRIFT for result in newest)
        waited += lost if drifts and decision.action not in ACTS else 0.0
        days.append(
            ReplayedDay(end=end, action=decision.action, reason=decision.reasons[-1], lost=lost)
        )
        if decision.action is not Action.NOTHING:
            alerts.append(_raise(decision, findings.concerning, len(alerts)))
        if decision.action is Action.REFIT:
            refitted, known = end, []
            answered |= {r.name for r in newest if r.state is DriftState.DRIFT}
            answered |= {PURCHASE_DROP} if lost else set()
    refits = sum(day.action is Action.REFIT for day in days)
    return Replay(
        days=tuple(days),
        alerts=len(alerts),
        refits=refits,
        waited=waited,
        cost=waited + refits * policy.refit_cost,
    )


def take_last_days(results: Sequence[DriftResult], days: float) -> list[DriftResult]:
    """The results of the windows of the last days."""
    if not results:
        return []
    newest = max(result.window.end for result in results)
    return [r for r in results if r.window.end > newest - timedelta(days=days)]


def _count_lost(newest: Sequence[DriftResult]) -> float:
    for result in newest:
        if result.subject == PURCHASES and result.value is not None:
            return max(result.value, 0.0) * result.n_current
    return 0.0


def _quiet(result: DriftResult) -> DriftResult:
    changes = {"state": DriftState.OK, "value": 0.0, "p_value": None}
    return result.model_copy(update=changes)


def _review(alert: Alert, newest: Sequence[DriftResult]) -> Alert:
    """Resolved, when none of its results drifts in the newest window."""
    names = {result.name for result in alert.results}
    if any(r.name in names and r.state is not DriftState.OK for r in newest):
        return alert
    return alert.model_copy(update={"status": AlertStatus.RESOLVED})


def _raise(decision: DriftDecision, concerning: Sequence[DriftResult], number: int) -> Alert:
    return Alert(
        alert_id=f"replayed-{number}",
        created_at=decision.at,
        bundle_id="",
        results=tuple(concerning),
        decision=decision,
    )
