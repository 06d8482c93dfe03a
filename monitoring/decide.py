"""Decide: choose an action from a run's results. A pure function of policy, results and state."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from monitoring.budget import Evidence
from monitoring.explain.actions import advise_action
from monitoring.faults import PREFIX
from monitoring.faults.causes import name_faults
from monitoring.harm import Harm
from monitoring.roll_back import UNKNOWN_ROLL_BACK, RollBack
from monitoring.settings import PolicySettings
from refit.alert import Action, Alert, AlertStatus, DriftDecision, Severity
from refit.drift import DriftResult, DriftState
from refit.incident import Cause, Incident
from refit.settings import Settings

_MOST_NAMED = 6
"""Results that a decision's reasons describe; the alert has them all."""
UNRESOLVED = (AlertStatus.OPEN, AlertStatus.ACKNOWLEDGED)


class PolicyState(Settings):
    """What the decision depends on besides policy and results.

    Attributes:
        now: The time of the decision, UTC.
        active_refit: The key of a refit that is requested or running; empty when there is none.
        last_refit_at: When the latest refit was requested.
        new_events: Events that the bundle has not seen; None when that is unknown.
        alerts: Alerts of these towers.
        refused: Alerts whose refit the gate refused.
        faults: ``subject/statistic`` of results whose drift signals a broken feed, as the drift
            metrics declare it; counts when the policy names none.
        unreadable: One sentence for each feed that was given and could not be read. No decision
            can rest on what is not there: it is an alert, and no refit.
        evidence: The evidence of all results together; None for the policy ``windows``.
        harm: What waiting costs; None where that is unknown.
        roll_back: Where a roll back leads to.
    """

    now: datetime
    active_refit: str = ""
    last_refit_at: datetime | None = None
    new_events: int | None = None
    alerts: tuple[Alert, ...] = ()
    refused: tuple[Alert, ...] = ()
    faults: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    evidence: Evidence | None = None
    harm: Harm | None = None
    roll_back: RollBack = UNKNOWN_ROLL_BACK

    @property
    def unresolved(self) -> tuple[Alert, ...]:
        """Alerts that a person has not closed."""
        return tuple(alert for alert in self.alerts if alert.status in UNRESOLVED)


class Findings(Settings):
    """What the results say, before any action is chosen.

    Attributes:
        windows: Ends of all windows, ascending.
        drifting: ``subject/statistic`` of results that drift, by the policy's kind.
        named: Named faults of feeds in the newest window.
        broken: Other results in the newest window whose drift signals a broken feed.
        unmeasured: Results without a value for too long, with the reason.
        latest: The latest result of each name.
    """

    windows: tuple[datetime, ...]
    drifting: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    unmeasured: dict[str, str] = {}
    latest: dict[str, DriftResult] = {}

    @property
    def concerning(self) -> tuple[DriftResult, ...]:
        """The results that an alert is about."""
        names = dict.fromkeys([*self.named, *self.drifting, *self.broken, *self.unmeasured])
        return tuple(self.latest[name] for name in names if name in self.latest)

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self.drifting or self.named or self.unmeasured)


def find_drift(
    policy: PolicySettings, results: Sequence[DriftResult], state: PolicyState
) -> Findings:
    """What the results say.

    Args:
        policy: The rules.
        results: Of the latest windows, from this run and earlier ones, in any order.
        state: What else counts.
    """
    windows = sorted({result.window.end for result in results})
    if not windows:
        return Findings(windows=())
    series = _series(results)
    newest = windows[-1]
    drifting_now = {
        name
        for name, each in series.items()
        if each[-1].window.end == newest and each[-1].state is DriftState.DRIFT
    }
    # Results without a probability, such as the share of fallbacks, have limits of their own.
    counted = [
        name for name, each in series.items() if state.evidence is None or each[-1].p_value is None
    ]
    drifting = [name for name in counted if _persists(policy, series[name], windows)]
    if state.evidence is not None and state.evidence.is_enough:
        drifting += [name for name in state.evidence.leading if name in series]
        drifting += sorted(drifting_now - set(drifting))
    rates = [each for name, each in series.items() if name.startswith("live:")]
    # One rate that can be judged shows whether people buy less; rarer events may be too few.
    is_blind = all(_is_unmeasured(policy, each) or _is_unjudged(policy, each) for each in rates)
    named = sorted(r.name for r in name_faults(series[name][-1] for name in drifting_now))
    return Findings(
        windows=tuple(windows),
        drifting=tuple(name for name in drifting if not name.startswith(PREFIX)),
        named=tuple(named),
        broken=tuple(
            name
            for name in sorted(drifting_now)
            if name not in named and _signals_fault(policy, state, name)
        ),
        unmeasured={
            name: each[-1].why
            for name, each in series.items()
            if not _matches(name, policy.waived)
            and (_is_unmeasured(policy, each) or (is_blind and _is_unjudged(policy, each)))
        },
        latest={name: each[-1] for name, each in series.items()},
    )


def decide(
    policy: PolicySettings,
    findings: Findings,
    state: PolicyState,
    incident: Incident | None = None,
) -> DriftDecision:
    """Decide on one action, with every reason for it and against a stronger one.

    Args:
        policy: The rules.
        findings: What the results say.
        state: What else the decision depends on.
        incident: The story of the drifting results, when there are any.
    """
    if not findings.windows:
        reason = "nothing was measured: no window has a single result"
        return _decide_on(policy, Action.ALERT, [reason, *state.unreadable], state)
    reasons = list(_describe(policy, findings, state))
    if state.unreadable:
        reasons += ["no refit: a feed cannot be read", *state.unreadable]
        return _decide_on(policy, Action.ALERT, reasons, state)
    if findings.is_quiet:
        reasons.append(_describe_quiet(policy, state))
        reasons += [f"{name} drifts in the newest window only" for name in findings.broken]
        return _decide_on(policy, Action.NOTHING, reasons, state)
    wanted, why = _choose_action(policy, findings, state, incident)
    reasons += why
    if wanted is Action.REFIT:
        objections = _object_to_refit(policy, findings, state, incident)
        reasons += objections
        if not objections:
            return _decide_on(policy, Action.REFIT, reasons, state)
        wanted = Action.ALERT
    if wanted in (Action.ALERT, Action.WAIT) and _is_known(policy, findings, state):
        reasons.append("an unresolved alert already reports all of this, and nothing got worse")
        return _decide_on(policy, Action.NOTHING, reasons, state)
    return _decide_on(policy, wanted, reasons, state)


def rate_severity(findings: Findings, state: PolicyState) -> Severity:
    """How soon a person must look.

    A page where people buy less or nothing can be measured; a warning for a broken feed and for
    what is not measured; otherwise information.
    """
    fell = [
        name
        for name in findings.drifting
        if name.startswith(("live:", "promotion:"))
        and findings.latest[name].state is DriftState.DRIFT
    ]
    if fell or state.unreadable or not findings.windows:
        return Severity.PAGE
    return Severity.WARN if findings.named or findings.unmeasured else Severity.INFO


def find_worse(policy: PolicySettings, findings: Findings, alert: Alert) -> list[DriftResult]:
    """Results that an unresolved alert does not tell yet, or that have become much worse."""
    told = {result.name: result for result in alert.results}
    return [
        result
        for result in findings.concerning
        if result.name not in told or _is_worse(policy, told[result.name], result)
    ]


def _is_worse(policy: PolicySettings, before: DriftResult, now: DriftResult) -> bool:
    if now.state is DriftState.OK:
        return False
    if before.state is not now.state:
        return True
    return bool(before.value and now.value and now.value >= policy.worse * before.value)


def _choose_action(
    policy: PolicySettings,
    findings: Findings,
    state: PolicyState,
    incident: Incident | None,
) -> tuple[Action, list[str]]:
    """The action that the cause asks for, with the reason."""
    if findings.named:
        return Action.QUARANTINE, [
            f"{', '.join(findings.named)}: the days of a broken feed are left out of training "
            "until a person releases them"
        ]
    if not findings.drifting:
        return Action.ALERT, [
            "no refit: nothing drifts, but what was not measured may have drifted"
        ]
    if policy.kind == "windows":
        triggers = [name for name in findings.drifting if _matches(name, policy.refit_on)]
        if not triggers:
            return Action.ALERT, ["no refit: the policy starts none for this drift (refit_on)"]
        return Action.REFIT, [f"a refit is due for {', '.join(triggers)}"]
    if incident is None or incident.cause is Cause.UNKNOWN:
        action, why = _weigh(policy, state)
        if (
            action is Action.REFIT
            and state.harm
            and state.harm.is_measured
            and not state.harm.hurts
        ):
            return Action.WAIT, [
                state.harm.because,
                "no refit: the cause is unknown, and it is not sure that people buy less",
            ]
        return action, why
    advice = advise_action(incident, state.harm.hurts if state.harm else None, state.roll_back)
    told = f"{incident.cause}: {advice.sentence.rstrip('.')}"
    if advice.action is Action.REFIT:
        action, why = _weigh(policy, state)
        return action, [told, *why]
    return advice.action, [told]


def _weigh(policy: PolicySettings, state: PolicyState) -> tuple[Action, list[str]]:
    """Compare what waiting costs with what a refit costs."""
    if state.harm is None:
        return Action.WAIT, ["no refit: what waiting costs is not known"]
    saved = state.harm.purchases * policy.recovered
    price = (
        f"{policy.refit_cost:.3g} purchases ({policy.refit_minutes:g} machine minutes at "
        f"{policy.purchases_per_minute:g})"
    )
    if saved > policy.refit_cost:
        return Action.REFIT, [
            state.harm.because,
            f"a refit is expected to win back {saved:.3g} purchases and costs {price}",
        ]
    return Action.WAIT, [
        state.harm.because,
        f"no refit: it would win back {saved:.3g} purchases and costs {price}; labels will decide",
    ]


def _object_to_refit(
    policy: PolicySettings, findings: Findings, state: PolicyState, incident: Incident | None
) -> list[str]:
    """Every reason not to start a refit now."""
    against = []
    broken = [*findings.named, *findings.broken]
    if broken:
        against.append(
            f"no refit: drift of {', '.join(broken)} signals a broken feed, and a model trained on "
            "broken data is worse than an old one; fix the feed first"
        )
    unknown = [name for name in findings.unmeasured if name.startswith(PREFIX)]
    if unknown:
        against.append(
            f"no refit: {', '.join(unknown)} was not measured, so a feed may be broken; see "
            "policy.waived"
        )
    if not policy.enabled:
        against.append("no refit: the kill switch is on (enabled: false)")
    if state.active_refit:
        against.append(f"no refit: {state.active_refit} is running")
    if state.last_refit_at is not None:
        until = state.last_refit_at + timedelta(hours=policy.cooldown_hours)
        if state.now < until:
            against.append(f"no refit: cooldown until {until:%Y-%m-%d %H:%M} UTC")
    if (refused := _find_refused(policy, findings, state)) is not None:
        against.append(
            f"no refit: the gate refused one on this evidence (alert {refused.alert_id}); it is "
            f"tried again after {policy.retry_days:g} days, or when something else drifts"
        )
    if state.new_events is None:
        against.append("no refit: the number of new events is unknown")
    elif state.new_events < policy.minimum_new_events:
        against.append(
            f"no refit: {state.new_events} new events, {policy.minimum_new_events} are needed"
        )
    return against


def _find_refused(policy: PolicySettings, findings: Findings, state: PolicyState) -> Alert | None:
    """An alert on at least the same drift whose refit the gate refused lately."""
    oldest = state.now - timedelta(days=policy.retry_days)
    for alert in state.refused:
        told = {result.name for result in alert.results}
        if alert.created_at >= oldest and set(findings.drifting) <= told:
            return alert
    return None


def _is_known(policy: PolicySettings, findings: Findings, state: PolicyState) -> bool:
    """Whether unresolved alerts tell everything that there is to tell."""
    told = {r.name for alert in state.unresolved for r in alert.results}
    names = {*findings.named, *findings.drifting, *findings.unmeasured}
    if not names <= told:
        return False
    return not any(find_worse(policy, findings, alert) for alert in state.unresolved[:1])


def _decide_on(
    policy: PolicySettings, action: Action, reasons: Sequence[str], state: PolicyState
) -> DriftDecision:
    every = list(reasons)
    acts = action not in (Action.NOTHING, Action.ALERT, Action.WAIT)
    if acts and policy.dry_run:
        every.append(f"dry run: the {action} is reported, not carried out")
    elif acts and action not in policy.automatic:
        every.append(f"a person decides: {action} is not automatic (policy.automatic)")
    elif acts and not policy.enabled:
        every.append(f"the kill switch is on (enabled: false): {action} is not carried out")
    return DriftDecision(action=action, reasons=tuple(every), at=state.now, dry_run=policy.dry_run)


def _series(results: Sequence[DriftResult]) -> Mapping[str, list[DriftResult]]:
    """Results by name, oldest window first; of a window measured twice the later one counts."""
    latest: dict[str, dict[tuple[datetime, datetime], DriftResult]] = {}
    for result in results:
        # By its bounds: to hash a window takes several times as long.
        bounds = result.window.start, result.window.end
        latest.setdefault(result.name, {})[bounds] = result
    return {
        name: sorted(each.values(), key=lambda result: result.window.end)
        for name, each in sorted(latest.items())
    }


def _select_recent(
    policy: PolicySettings, each: Sequence[DriftResult], windows: Sequence[datetime]
) -> list[DriftResult]:
    recent = windows[-policy.windows_considered :]
    return [result for result in each if result.window.end in recent]


def _persists(
    policy: PolicySettings, each: Sequence[DriftResult], windows: Sequence[datetime]
) -> bool:
    recent = _select_recent(policy, each, windows)
    return sum(r.state is DriftState.DRIFT for r in recent) >= policy.windows_needed


def _is_unmeasured(policy: PolicySettings, each: Sequence[DriftResult]) -> bool:
    """Whether nothing was measured for too long."""
    return each[-1].level is None and _lacks_data(each, policy.insufficient_data_windows)


def _is_unjudged(policy: PolicySettings, each: Sequence[DriftResult]) -> bool:
    """Whether a rate was measured, and had too few earlier windows to compare it with."""
    return each[-1].level is not None and _lacks_data(each, policy.judgement_windows)


def _lacks_data(each: Sequence[DriftResult], windows: int) -> bool:
    last = each[-windows:]
    return len(last) == windows and all(r.state is DriftState.INSUFFICIENT_DATA for r in last)


def _signals_fault(policy: PolicySettings, state: PolicyState, name: str) -> bool:
    return name in state.faults if policy.faults is None else _matches(name, policy.faults)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _describe(policy: PolicySettings, findings: Findings, state: PolicyState) -> list[str]:
    reasons = [findings.latest[name].detail for name in findings.named]
    if findings.drifting and state.evidence is not None:
        reasons.append(state.evidence.describe())
    for name in findings.drifting[:_MOST_NAMED]:
        result = findings.latest[name]
        if result.value is not None and result.threshold is not None:
            state_of = "drifts" if result.state is DriftState.DRIFT else "drifted before"
            reasons.append(
                f"{name} {state_of}: {result.value:.3g}, threshold {result.threshold:.3g}"
            )
    if more := findings.drifting[_MOST_NAMED:]:
        reasons.append(f"and {len(more)} other results drift")
    return reasons + _describe_unmeasured(policy, findings.unmeasured)


def _describe_quiet(policy: PolicySettings, state: PolicyState) -> str:
    if state.evidence is not None:
        return f"no alert: {state.evidence.describe()}"
    return (
        f"no result drifted in {policy.windows_needed} of the last "
        f"{policy.windows_considered} windows"
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
