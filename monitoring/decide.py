"""Decide: choose an action from a run's results. A pure function of policy, results and state."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from monitoring.settings import PolicySettings
from refit.alert import Action, DriftDecision
from refit.drift import DriftResult, DriftState, Window
from refit.settings import Settings


class PolicyState(Settings):
    """What the decision depends on besides policy and results.

    Attributes:
        now: The time of the decision, UTC.
        active_refit: The key of a refit that is requested or running; empty when there is none.
        last_refit_at: When the latest refit was requested.
        new_events: Events that the bundle has not seen; None when that is unknown.
        alerted: ``subject/statistic`` of results that an unresolved alert already reports.
        faults: ``subject/statistic`` of results whose drift signals a broken feed, as the drift
            metrics declare it; counts when the policy names none.
        unreadable: One sentence for each feed that was given and could not be read. No decision
            can rest on what is not there: it is an alert, and no refit.
    """

    now: datetime
    active_refit: str = ""
    last_refit_at: datetime | None = None
    new_events: int | None = None
    alerted: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


def decide(
    policy: PolicySettings, results: Sequence[DriftResult], state: PolicyState
) -> tuple[DriftDecision, tuple[DriftResult, ...]]:
    """Decide on one action, with every reason for it and against a stronger one.

    Args:
        policy: The rules.
        results: Of the latest windows, from this run and earlier ones, in any order.
        state: What else the decision depends on.

    Returns:
        The decision, and the results that it rests on: the latest of each that persistently
        drifts or has insufficient data, and drift in the newest window that signals a fault.
    """
    windows = sorted({result.window.end for result in results})
    if not windows:
        reason = "nothing was measured: no window has a single result"
        return _decision(policy, Action.ALERT, [reason, *state.unreadable], state), ()
    series = _series(results)
    drifting = [name for name, each in series.items() if _drifts(policy, each, windows)]
    unmeasured = [
        name
        for name, each in series.items()
        if _is_unmeasured(policy, each) and not _matches(name, policy.waived)
    ]
    newest = windows[-1]
    faults = [
        name
        for name, each in series.items()
        if _signals_fault(policy, state, name)
        and any(r.state is DriftState.DRIFT for r in each if r.window.end == newest)
    ]
    reasons = [_describe_drift(policy, name, series[name], windows) for name in drifting]
    reasons += _describe_unmeasured(policy, {name: series[name][-1].why for name in unmeasured})
    triggers = [name for name in drifting if _matches(name, policy.refit_on)]
    concerning = tuple(
        series[name][-1] for name in dict.fromkeys([*drifting, *unmeasured, *faults])
    )
    if state.unreadable:
        reasons += ["no refit: a feed cannot be read", *state.unreadable]
        return _decision(policy, Action.ALERT, reasons, state), concerning
    if not drifting and not unmeasured:
        reasons.append(
            f"no result drifted in {policy.windows_needed} of the last "
            f"{policy.windows_considered} windows"
        )
        reasons += [f"{name} drifts in the newest window only" for name in faults]
        return _decision(policy, Action.NOTHING, reasons, state), concerning
    if drifting and not triggers:
        reasons.append("no refit: the policy starts none for this drift (refit_on)")
    if not drifting:
        reasons.append("no refit: nothing drifts, but what was not measured may have drifted")
    objections = _objections(policy, state, faults) if triggers else []
    reasons += objections
    if triggers and not objections:
        reasons.append(f"a refit is due for {', '.join(triggers)}; nothing prevents it")
        return _decision(policy, Action.REFIT, reasons, state), concerning
    if set(drifting) | set(unmeasured) <= set(state.alerted):
        reasons.append("an unresolved alert already reports all of this")
        return _decision(policy, Action.NOTHING, reasons, state), concerning
    return _decision(policy, Action.ALERT, reasons, state), concerning


def _objections(policy: PolicySettings, state: PolicyState, faults: Sequence[str]) -> list[str]:
    """Every reason not to start a refit now."""
    against = []
    if faults:
        against.append(
            f"no refit: drift of {', '.join(faults)} signals a broken feed, and a model trained on "
            "broken data is worse than an old one; fix the feed first"
        )
    if not policy.enabled:
        against.append("no refit: the kill switch is on (enabled: false)")
    if state.active_refit:
        against.append(f"no refit: {state.active_refit} is running")
    if state.last_refit_at is not None:
        until = state.last_refit_at + timedelta(hours=policy.cooldown_hours)
        if state.now < until:
            against.append(f"no refit: cooldown until {until:%Y-%m-%d %H:%M} UTC")
    if state.new_events is None:
        against.append("no refit: the number of new events is unknown")
    elif state.new_events < policy.minimum_new_events:
        against.append(
            f"no refit: {state.new_events} new events, {policy.minimum_new_events} are needed"
        )
    return against


def _decision(
    policy: PolicySettings, action: Action, reasons: Sequence[str], state: PolicyState
) -> DriftDecision:
    every = list(reasons)
    if policy.dry_run and action is Action.REFIT:
        every.append("dry run: the refit is reported, not started")
    return DriftDecision(action=action, reasons=tuple(every), at=state.now, dry_run=policy.dry_run)


def _series(results: Sequence[DriftResult]) -> Mapping[str, list[DriftResult]]:
    """Results by name, oldest window first; of a window measured twice the later one counts."""
    latest: dict[tuple[str, Window], DriftResult] = {}
    for result in results:
        latest[(result.name, result.window)] = result
    series: dict[str, list[DriftResult]] = {}
    for (name, _), result in sorted(latest.items(), key=lambda pair: pair[0][1].end):
        series.setdefault(name, []).append(result)
    return dict(sorted(series.items()))


def _select_recent(
    policy: PolicySettings, each: Sequence[DriftResult], windows: Sequence[datetime]
) -> list[DriftResult]:
    recent = windows[-policy.windows_considered :]
    return [result for result in each if result.window.end in recent]


def _drifts(
    policy: PolicySettings, each: Sequence[DriftResult], windows: Sequence[datetime]
) -> bool:
    recent = _select_recent(policy, each, windows)
    return sum(r.state is DriftState.DRIFT for r in recent) >= policy.windows_needed


def _is_unmeasured(policy: PolicySettings, each: Sequence[DriftResult]) -> bool:
    last = each[-policy.insufficient_data_windows :]
    return len(last) == policy.insufficient_data_windows and all(
        result.state is DriftState.INSUFFICIENT_DATA for result in last
    )


def _signals_fault(policy: PolicySettings, state: PolicyState, name: str) -> bool:
    return name in state.faults if policy.faults is None else _matches(name, policy.faults)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _describe_drift(
    policy: PolicySettings, name: str, each: Sequence[DriftResult], windows: Sequence[datetime]
) -> str:
    recent = _select_recent(policy, each, windows)
    drifted = [r for r in recent if r.state is DriftState.DRIFT]
    last = drifted[-1]
    return (
        f"{name} drifted in {len(drifted)} of the last {policy.windows_considered} windows, "
        f"most recently {last.value:.3g} over its threshold of {last.threshold:.3g}"
    )


def _describe_unmeasured(policy: PolicySettings, why: Mapping[str, str]) -> list[str]:
    """One sentence for each reason of insufficient data, with all results that share it."""
    names: dict[str, list[str]] = {}
    for name, reason in why.items():
        names.setdefault(reason, []).append(name)
    windows = policy.insufficient_data_windows
    return [
        f"insufficient data in {windows} windows in a row ({reason}): {', '.join(each)}"
        for reason, each in names.items()
    ]
