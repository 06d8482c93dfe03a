"""Decide: what a run's results call for. A pure function of results, policy and state."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from monitoring.settings import PolicySettings
from refit.alert import Action, DriftDecision
from refit.drift import DriftResult, DriftState, Window
from refit.settings import Settings


class PolicyState(Settings):
    """What the policy has to know beyond results.

    Attributes:
        now: The moment of deciding.
        active_refit: The key of a refit that is requested or running, "" when there is none.
        last_refit_at: When the latest refit was requested.
        new_events: Events that the bundle has not seen; None when that is not known.
        alerted: ``subject/statistic`` of results that an unresolved alert tells about already.
    """

    now: datetime
    active_refit: str = ""
    last_refit_at: datetime | None = None
    new_events: int | None = None
    alerted: tuple[str, ...] = ()


def decide(
    policy: PolicySettings, results: Sequence[DriftResult], state: PolicyState
) -> tuple[DriftDecision, tuple[DriftResult, ...]]:
    """Decide on one action, with every reason for it and against more.

    Args:
        policy: The rules.
        results: Of the latest windows, from this run and earlier ones, in any order.
        state: What else counts.

    Returns:
        The decision, and the results that it rests on: the latest of each that persistently
        drifts or cannot tell, and signs of a fault in the newest window.
    """
    windows = sorted({result.window.end for result in results})
    if not windows:
        reason = "nothing was measured: no window has a single result"
        return _decision(policy, Action.ALERT, [reason], state), ()
    series = _series(results)
    drifting = [name for name, each in series.items() if _drifts(policy, each, windows)]
    silent = [
        name
        for name, each in series.items()
        if _is_silent(policy, each) and not _matches(name, policy.waived)
    ]
    newest = windows[-1]
    faults = [
        name
        for name, each in series.items()
        if _matches(name, policy.faults)
        and any(r.state is DriftState.DRIFT for r in each if r.window.end == newest)
    ]
    reasons = [_tell_drift(policy, name, series[name], windows) for name in drifting]
    reasons += [_tell_silence(policy, name, series[name]) for name in silent]
    triggers = [name for name in drifting if _matches(name, policy.refit_on)]
    concerning = tuple(series[name][-1] for name in dict.fromkeys([*drifting, *silent, *faults]))
    if not drifting and not silent:
        reasons.append(
            f"no result drifted in {policy.windows_needed} of the last "
            f"{policy.windows_looked_at} windows"
        )
        reasons += [f"{name} drifts in the newest window; one more would count" for name in faults]
        return _decision(policy, Action.NOTHING, reasons, state), concerning
    if drifting and not triggers:
        reasons.append("no refit: none of this drift is set to trigger one")
    if not drifting:
        reasons.append("no refit: nothing drifts, but silence is no proof that all is well")
    objections = _objections(policy, state, faults) if triggers else []
    reasons += objections
    if triggers and not objections:
        reasons.append(f"a refit is due for {', '.join(triggers)}; nothing speaks against it")
        return _decision(policy, Action.REFIT, reasons, state), concerning
    if set(drifting) | set(silent) <= set(state.alerted):
        reasons.append("an unresolved alert tells about all of this already")
        return _decision(policy, Action.NOTHING, reasons, state), concerning
    return _decision(policy, Action.ALERT, reasons, state), concerning


def _objections(policy: PolicySettings, state: PolicyState, faults: Sequence[str]) -> list[str]:
    """Everything that speaks against starting a refit now."""
    against = []
    if faults:
        against.append(
            f"no refit: {', '.join(faults)} looks like a broken feed, and a model trained on "
            "broken data is worse than an old one; mend the feed first"
        )
    if not policy.enabled:
        against.append("no refit: the kill switch is on (enabled: false)")
    if state.active_refit:
        against.append(f"no refit: {state.active_refit} is under way")
    if state.last_refit_at is not None:
        until = state.last_refit_at + timedelta(hours=policy.cooldown_hours)
        if state.now < until:
            against.append(f"no refit: cooling down until {until:%Y-%m-%d %H:%M} UTC")
    if state.new_events is None:
        against.append("no refit: how many new events there are is not known")
    elif state.new_events < policy.minimum_new_events:
        against.append(
            f"no refit: {state.new_events} new events, {policy.minimum_new_events} are needed"
        )
    return against


def _decision(
    policy: PolicySettings, action: Action, reasons: Sequence[str], state: PolicyState
) -> DriftDecision:
    told = list(reasons)
    if policy.dry_run and action is Action.REFIT:
        told.append("dry run: the refit is told, not started")
    return DriftDecision(action=action, reasons=tuple(told), at=state.now, dry_run=policy.dry_run)


def _series(results: Sequence[DriftResult]) -> Mapping[str, list[DriftResult]]:
    """Readings by name, oldest window first; of a window measured twice the later one counts."""
    latest: dict[tuple[str, Window], DriftResult] = {}
    for result in results:
        latest[(name_of(result), result.window)] = result
    series: dict[str, list[DriftResult]] = {}
    for (name, _), result in sorted(latest.items(), key=lambda pair: pair[0][1].end):
        series.setdefault(name, []).append(result)
    return dict(sorted(series.items()))


def name_of(result: DriftResult) -> str:
    """``subject/statistic``, as patterns match it."""
    return f"{result.subject}/{result.statistic}"


def _looked_at(
    policy: PolicySettings, each: Sequence[DriftResult], windows: Sequence[datetime]
) -> list[DriftResult]:
    recent = windows[-policy.windows_looked_at :]
    return [result for result in each if result.window.end in recent]


def _drifts(
    policy: PolicySettings, each: Sequence[DriftResult], windows: Sequence[datetime]
) -> bool:
    recent = _looked_at(policy, each, windows)
    return sum(r.state is DriftState.DRIFT for r in recent) >= policy.windows_needed


def _is_silent(policy: PolicySettings, each: Sequence[DriftResult]) -> bool:
    last = each[-policy.cannot_tell_windows :]
    return len(last) == policy.cannot_tell_windows and all(
        result.state is DriftState.INSUFFICIENT_DATA for result in last
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _tell_drift(
    policy: PolicySettings, name: str, each: Sequence[DriftResult], windows: Sequence[datetime]
) -> str:
    recent = _looked_at(policy, each, windows)
    drifted = [r for r in recent if r.state is DriftState.DRIFT]
    last = drifted[-1]
    return (
        f"{name} drifted in {len(drifted)} of the last {policy.windows_looked_at} windows, "
        f"lately {last.value:.3g} over {last.threshold:.3g}"
    )


def _tell_silence(policy: PolicySettings, name: str, each: Sequence[DriftResult]) -> str:
    return f"{name} could not tell for {policy.cannot_tell_windows} windows: {each[-1].why}"
