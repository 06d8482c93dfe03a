"""Roll a proposed bundle out on a cluster: as a canary first, then promoted or rolled back.

``reconcile`` performs the next step and returns; called repeatedly it completes a rollout. All
state is in two places: the SeldonDeployment's annotation ``refit/rollout`` contains the active
rollout, the registry contains the decisions. A killed process therefore loses nothing, and the next
one continues:

1. there is a proposal and no active rollout: add the canary and store the rollout's state;
2. the canary's pods are ready: store the request counts of all pods, and start the comparison;
3. compare canary and baseline on every call; store the decision to promote or to roll back in the
   registry, after which it is only carried out;
4. promote: the bundle becomes champion, the main predictor is updated pod by pod while the canary
   keeps serving, then the canary is removed;
5. roll back: the canary is removed, and the main predictor stays unchanged.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from components.deployment.canary import (
    CanaryVerdict,
    PredictorMetrics,
    Proportion,
    compare_canary,
)
from components.deployment.cluster import ConflictError, NotFoundError, Pod
from components.deployment.counts import Counts, read_counts, sum_counts
from components.deployment.manifests import (
    CANARY,
    MAIN,
    STATE_ANNOTATION,
    Manifest,
    bundle_of,
    canary_replicas,
    main_of,
    predictor_of,
    with_canary,
    with_main_only,
    with_state,
)
from components.deployment.quality import LiveQuality, count_misses
from components.deployment.settings import RolloutSettings
from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.progress import log_message
from refit.registry import Registry
from refit.rollout import Block, Proposal, RolloutDecision
from refit.settings import Settings
from refit.verdict import Verdict

APPLY_ATTEMPTS = 20
ONLY_MAIN = {MAIN: 100}
OPERATOR_SECONDS = 60.0
"""Time for the operator to list a canary in its status; it deletes only predictors listed there."""

Phase = Literal["idle", "starting", "comparing", "promoting", "promoted", "rolled back", "aligning"]


class Cluster(Protocol):
    """The part of ``components.deployment.cluster.SeldonCluster`` that a rollout uses."""

    name: str

    def read(self) -> Manifest:
        """Read the live SeldonDeployment."""

    def apply(self, manifest: Manifest) -> Manifest:
        """Apply a manifest server-side."""

    def split(self, weights: Mapping[str, int]) -> None:
        """Set the traffic weights of the Gateway API routes, by predictor."""

    def pods(self) -> list[Pod]:
        """List the pods of all predictors."""

    def read_metrics(self, pod: Pod) -> str | None:
        """Read a pod's Prometheus metrics."""


class RolloutState(Settings):
    """The active rollout, as stored in the SeldonDeployment's annotation.

    Attributes:
        proposal: The proposal that is rolled out.
        champion: Id of the bundle that the main predictor served at the start.
        started_at: Start of the rollout.
        comparison_started_at: Start of the comparison; None before.
        initial_counts: Request counts of each pod, by uid, at the start of the comparison.
    """

    proposal: Proposal
    champion: str
    started_at: datetime
    comparison_started_at: datetime | None = None
    initial_counts: dict[str, Counts] = {}

    @classmethod
    def of(cls, live: Manifest) -> "RolloutState | None":
        """The active rollout of a SeldonDeployment; None if there is none."""
        text = live["metadata"].get("annotations", {}).get(STATE_ANNOTATION)
        return cls.parse_json(text) if text else None

    @property
    def bundle_id(self) -> str:
        """Id of the canary's bundle."""
        return self.proposal.bundle_id


class RolloutProgress(Settings):
    """The progress of a rollout.

    Attributes:
        phase: The current phase.
        message: What the rollout is waiting for, or how it ended.
        bundle_id: Id of the candidate; "" if there is none.
        predictors: Metrics since the start of the comparison, by predictor.
        decision: The decision, once there is one.
    """

    phase: Phase
    message: str
    bundle_id: str = ""
    predictors: dict[str, PredictorMetrics] = {}
    decision: RolloutDecision | None = None


class Rollouts:
    """Rolls out proposals on one SeldonDeployment.

    Args:
        settings: Limits and schedule.
        cluster: The SeldonDeployment.
        registry: Contains proposals, decisions and bundles.
        predictions: Folder or URL of the prediction log.
        outcomes: Folder, file or URL of events with the request id of the preceding answer;
            "" for none.
        clock: Returns the current time; for tests.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        cluster: Cluster,
        registry: Registry,
        predictions: str = "",
        outcomes: str = "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.settings, self.cluster, self.registry = settings, cluster, registry
        self._predictions, self._outcomes, self._clock = predictions, outcomes, clock

    def reconcile(self) -> RolloutProgress:
        """Perform the next step; idempotent.

        Raises:
            ConflictError: The object has been modified since it was read; call again.
            ServiceUnreachable: The API server or the registry does not respond.
        """
        live = self.cluster.read()
        state = RolloutState.of(live)
        if state is None:
            return self._start(live)
        if decision := self.registry.decision(state.proposal.rollout_id):
            return self._carry_out(live, state, decision)
        progress = self._advance(live, state)
        return self._carry_out(live, state, progress.decision) if progress.decision else progress

    def status(self) -> RolloutProgress:
        """Report the rollout's progress, without changing anything."""
        live = self.cluster.read()
        state = RolloutState.of(live)
        if state is None:
            return RolloutProgress(phase="idle", message=self._idle_message(live))
        decision = self.registry.decision(state.proposal.rollout_id)
        predictors, comparison = self._compare(state)
        comparing = state.comparison_started_at is not None
        return RolloutProgress(
            phase="promoting" if decision else "comparing" if comparing else "starting",
            message="; ".join(comparison.reasons) or "the candidate meets every condition",
            bundle_id=state.bundle_id,
            predictors=predictors,
            decision=decision,
        )

    def abort(self, by: str, reason: str, is_worse: bool = False) -> RolloutProgress:
        """Abort the active rollout; the champion keeps serving.

        Args:
            by: Author, recorded in the registry.
            reason: Recorded in the registry.
            is_worse: Whether to block the candidate's model, as a roll back does.

        Raises:
            UsageError: No rollout is active, or the bundle is already being promoted.
        """
        live = self.cluster.read()
        state = RolloutState.of(live)
        candidate = state.proposal if state else self.registry.candidate()
        if candidate is None:
            raise UsageError("no rollout is active")
        started = state.started_at if state else self._clock()
        objection = f"aborted by {by}: {reason}"
        block = self._new_block(candidate, objection) if is_worse else None
        decision = self._decide(candidate, started, objection, by, block)
        if decision.action == "promote":
            raise UsageError(
                f"{candidate.bundle_id} is already being promoted; to undo the promotion: "
                "refit bundles rollback"
            )
        if state is None:
            return self._finished(decision)
        return self._carry_out(live, state, decision)

    def roll_back(self, by: str, reason: str) -> RolloutProgress:
        """Abort the active rollout; without one, make the champion's predecessor champion.

        A previous roll back that was killed is completed, not repeated.

        Raises:
            UsageError: There is no predecessor.
        """
        live = self.cluster.read()
        state = RolloutState.of(live)
        if state and self.registry.decision(state.proposal.rollout_id) is None:
            return self.abort(by, reason, is_worse=True)
        champion = self.registry.champion_id()
        if state or bundle_of(main_of(live)) in ("", champion):
            champion = self.registry.rollback(by, reason).bundle_id
        self._serve_only(champion)
        return RolloutProgress(phase="aligning", message=f"rolling back to {champion}")

    def promote(self, bundle_id: str, by: str, reason: str, force: bool = False) -> RolloutProgress:
        """Make a bundle champion without a canary.

        Raises:
            GateRefused: Its verdict did not pass, and ``force`` is False.
            UsageError: A rollout is active.
        """
        live = self.cluster.read()
        if RolloutState.of(live):
            raise UsageError("a rollout is active; abort it first: refit rollout abort")
        self.registry.promote(bundle_id, by, reason, force)
        self._serve_only(bundle_id)
        return RolloutProgress(phase="aligning", message=f"promoting {bundle_id}")

    def wait_until_stable(self, seconds: float) -> str:
        """Wait until only the main predictor serves, with one bundle; return the bundle's id.

        Raises:
            ServiceUnreachable: The timeout expired; the message names the pods it waited for.
        """
        deadline, logged = time.monotonic() + seconds, ""
        while True:
            bundle = bundle_of(main_of(self.cluster.read()))
            pods = self.cluster.pods()
            waiting = _waiting_for(pods, MAIN, bundle) or _waiting_for_removal(pods)
            if not waiting:
                return bundle
            if waiting != logged:
                logged = waiting
                log_message(f"rollout: {waiting}")
            if time.monotonic() > deadline:
                raise ServiceUnreachable(
                    f"timed out after {seconds:.0f} s: not all pods serve {bundle}: {waiting}; the "
                    "update continues, see refit rollout status"
                )
            time.sleep(1.0)

    def reconcile_forever(self) -> None:
        """Reconcile at the configured interval; errors are logged and retried."""
        last = ""
        while True:
            try:
                progress = self.reconcile()
                message = f"{progress.phase}: {progress.message}"
            except ConflictError as conflict:
                time.sleep(1.0)
                log_message(f"rollout: {conflict}")
                continue
            except RefitError as error:
                message = f"retrying in {self.settings.poll_seconds:.0f} s: {error}"
            if message != last:
                last = message
                log_message(f"rollout: {message}")
            time.sleep(self.settings.poll_seconds)

    def _start(self, live: Manifest) -> RolloutProgress:
        """Without an active rollout: make sure the champion is served, then start a rollout."""
        champion, main = self.registry.champion_id(), bundle_of(main_of(live))
        if champion and main not in ("", champion):
            self._remove_canary(live, champion)
            message = f"the main predictor is being updated to {champion}"
            return RolloutProgress(phase="aligning", message=message)
        candidate = self.registry.candidate()
        if candidate is None:
            return RolloutProgress(phase="idle", message=self._idle_message(live))
        if predictor_of(live, CANARY):
            message = f"{candidate.bundle_id} waits: there is a canary that no rollout created"
            return RolloutProgress(phase="idle", message=message, bundle_id=candidate.bundle_id)
        self._check_quality_settings()
        now = self._clock()
        if not champion and candidate.champion == "":
            # Only a run that was said to train the first model proposes one without a champion.
            self._promote(candidate, expected="")
            champion = candidate.bundle_id
            self._remove_canary(live, champion)
        if candidate.bundle_id == champion:
            decision = self._decide(candidate, now, "", candidate.by)
            return self._finished(decision)
        if candidate.champion != champion:
            compared = candidate.champion or "no champion"
            refusal = f"its gate compared it with {compared}, but the champion is {champion}"
            return self._finished(self._decide(candidate, now, refusal, "rollout"))
        self.registry.begin(candidate)
        state = RolloutState(proposal=candidate, champion=champion, started_at=now)
        self._split(ONLY_MAIN)
        self._apply_canary(live, state, champion)
        return RolloutProgress(
            phase="starting",
            message=f"{candidate.bundle_id} gets {self.settings.share}% of the traffic, "
            f"{champion} the rest",
            bundle_id=candidate.bundle_id,
        )

    def _check_quality_settings(self) -> None:
        if self.settings.outcomes and not (self._predictions and self._outcomes):
            raise UsageError(
                "live quality cannot be compared without predictions and outcomes, so no rollout "
                "could ever be promoted: set both in the cluster file, or disable the comparison "
                "with rollout.click_tolerance: null and rollout.purchase_tolerance: null"
            )

    def _advance(self, live: Manifest, state: RolloutState) -> RolloutProgress:
        """Start or continue the comparison; a returned decision is stored in the registry."""
        if interference := self._interference(live, state):
            decision = self._decide(state.proposal, state.started_at, interference, "rollout")
            return RolloutProgress(phase="comparing", message=interference, decision=decision)
        waiting = ""
        if state.comparison_started_at is None:
            waiting = self._start_comparison(live, state)
            if not waiting:
                return RolloutProgress(
                    phase="comparing", message="comparison started", bundle_id=state.bundle_id
                )
        predictors, comparison = self._compare(state)
        if not waiting:
            self._split_by_readiness(live, predictors[CANARY].pods)
        is_held = comparison.action == "hold"
        return RolloutProgress(
            phase="starting" if waiting else "comparing",
            message=waiting or "; ".join(comparison.reasons),
            bundle_id=state.bundle_id,
            predictors=predictors,
            decision=None if is_held else self._record(state, predictors, comparison),
        )

    def _start_comparison(self, live: Manifest, state: RolloutState) -> str:
        """Store the counts of all pods when they are ready; returns what is not ready yet."""
        pods = self.cluster.pods()
        for name, bundle_id in ((MAIN, state.champion), (CANARY, state.bundle_id)):
            if waiting := _waiting_for(pods, name, bundle_id):
                return waiting
        initial = {pod.uid: self._read_counts(pod) for pod in pods if not pod.terminating}
        if any(counts.requests is None for counts in initial.values()):
            return "waiting for the metrics of every pod"
        started = state.model_copy(
            update={"comparison_started_at": self._clock(), "initial_counts": initial}
        )
        self.cluster.apply(with_state(live, started.model_dump_json()))
        return ""

    def _compare(self, state: RolloutState) -> tuple[dict[str, PredictorMetrics], CanaryVerdict]:
        pods = [pod for pod in self.cluster.pods() if not pod.terminating]
        quality = self._count_misses(state)
        predictors = {}
        for name, bundle_id in ((MAIN, state.champion), (CANARY, state.bundle_id)):
            own = [p for p in pods if p.predictor == name and p.bundle_id == bundle_id]
            predictors[name] = self._measure(state, own, bundle_id, quality)
        now = self._clock()
        expired = now - state.started_at >= timedelta(hours=self.settings.deadline_hours)
        lasted = now - (state.comparison_started_at or now)
        return predictors, compare_canary(
            self.settings,
            predictors[MAIN],
            predictors[CANARY],
            expired,
            days=lasted / timedelta(days=1),
        )

    def _measure(
        self,
        state: RolloutState,
        pods: list[Pod],
        bundle_id: str,
        quality: Mapping[str, LiveQuality],
    ) -> PredictorMetrics:
        own = quality.get(bundle_id, LiveQuality())
        ready = [pod for pod in pods if pod.ready]
        counts = Counts()
        if state.comparison_started_at:
            initial = state.initial_counts
            counts = sum_counts(
                [self._read_counts(p).since(initial.get(p.uid, Counts())) for p in ready]
            )
        return PredictorMetrics(
            bundle_id=bundle_id,
            pods=len(ready),
            restarts=sum(pod.restarts for pod in pods),
            errors=counts.error_rate,
            fallbacks=counts.fallback_rate,
            slow=counts.slow_rate,
            no_click=own.misses.get("clicks", Proportion()),
            no_purchase=own.misses.get("purchases", Proportion()),
            users=own.users,
        )

    def _count_misses(self, state: RolloutState) -> dict[str, LiveQuality]:
        if not self.settings.outcomes or state.comparison_started_at is None:
            return {}
        try:
            return count_misses(
                self.settings,
                self._predictions,
                self._outcomes,
                (state.champion, state.bundle_id),
                state.comparison_started_at,
                self._clock() - timedelta(minutes=self.settings.outcome_minutes),
            )
        except ServiceUnreachable as error:
            log_message(f"rollout: quality is unknown: {error}")
            return {}

    def _carry_out(
        self, live: Manifest, state: RolloutState, decision: RolloutDecision
    ) -> RolloutProgress:
        if decision.action != "promote":
            if self._operator_lacks_canary(live, state):
                return self._progress(
                    "starting", "waiting for the operator to list the canary", state, decision
                )
            self._remove_canary(live, self.registry.champion_id() or state.champion)
            return self._finished(decision)
        if not self._was_promoted(decision):
            self._promote(state.proposal, expected=state.champion)
        champion = self.registry.champion_id()
        if champion != decision.bundle_id:
            # The champion has been changed since, for example rolled back.
            self._remove_canary(live, champion)
            message = f"the main predictor is being updated to {champion}"
            return self._progress("aligning", message, state, decision)
        if bundle_of(main_of(live)) != champion:
            self._apply_canary(live, state, champion)
            message = "the main predictor is being updated"
            return self._progress("promoting", message, state, decision)
        pods = self.cluster.pods()
        if waiting := _waiting_for(pods, MAIN, champion):
            ready = sum(p.ready and not p.terminating for p in pods if p.predictor == CANARY)
            self._split_by_readiness(live, ready)
            return self._progress("promoting", waiting, state, decision)
        self._remove_canary(live, champion)
        return self._finished(decision)

    def _promote(self, proposal: Proposal, expected: str) -> None:
        self.registry.promote(
            proposal.bundle_id, proposal.by, proposal.reason, proposal.forced, expected
        )

    def _apply_canary(self, live: Manifest, state: RolloutState, main: str) -> None:
        canary = predictor_of(live, CANARY)
        main_pods = [p for p in self.cluster.pods() if p.predictor == MAIN and not p.terminating]
        replicas = canary_replicas(self.settings.share, max(len(main_pods), 1))
        self.cluster.apply(
            with_canary(
                live,
                main,
                state.bundle_id,
                canary["traffic"] if canary else self.settings.share,
                canary["replicas"] if canary else replicas,
                state.model_dump_json(),
            )
        )

    def _remove_canary(self, live: Manifest, bundle_id: str) -> None:
        """Send all traffic to the main predictor, then remove the canary."""
        with suppress(NotFoundError):  # without routes the canary gets no traffic anyway
            self._split(ONLY_MAIN)
        self.cluster.apply(with_main_only(live, bundle_id))

    def _split_by_readiness(self, live: Manifest, ready: int) -> None:
        """Give the canary its share of the traffic, unless none of its pods is ready."""
        self._split(_weights(live) if ready else ONLY_MAIN)

    def _split(self, weights: Mapping[str, int]) -> None:
        """Set the routes' weights; with the other kinds of split there are no routes."""
        if self.settings.split == "gateway":
            self.cluster.split(weights)

    def _serve_only(self, bundle_id: str) -> None:
        """Apply only the main predictor with a bundle; retries when others modify the object."""
        for _ in range(APPLY_ATTEMPTS):
            try:
                self._remove_canary(self.cluster.read(), bundle_id)
                return
            except ConflictError:
                time.sleep(0.2)
        raise ServiceUnreachable(
            f"SeldonDeployment {self.cluster.name} is being modified by another writer; try again"
        )

    def _interference(self, live: Manifest, state: RolloutState) -> str:
        """What has been changed so that the comparison is invalid; "" if nothing."""
        if predictor_of(live, CANARY) is None:
            return "the canary was removed"
        if bundle_of(main_of(live)) != state.champion:
            return "the main predictor's bundle was changed"
        if (champion := self.registry.champion_id()) != state.champion:
            return f"the champion is now {champion or 'none'}, not {state.champion}"
        return ""

    def _operator_lacks_canary(self, live: Manifest, state: RolloutState) -> bool:
        """Whether a removed canary's pods would stay: the operator's status does not list it."""
        if predictor_of(live, CANARY) is None:
            return False
        listed = live.get("status", {}).get("deploymentStatus") or {}
        is_recent = (self._clock() - state.started_at).total_seconds() < OPERATOR_SECONDS
        prefix = f"{live['metadata']['name']}-{CANARY}-"
        return is_recent and not any(name.startswith(prefix) for name in listed)

    def _was_promoted(self, decision: RolloutDecision) -> bool:
        return any(
            promotion.bundle_id == decision.bundle_id and promotion.number > decision.last_promotion
            for promotion in self.registry.history()
        )

    def _last_promotion(self) -> int:
        promotion = self.registry.champion()
        return promotion.number if promotion else 0

    def _read_counts(self, pod: Pod) -> Counts:
        return read_counts(self.cluster.read_metrics(pod), self.settings.slow_ms)

    def _idle_message(self, live: Manifest) -> str:
        pinned = bundle_of(main_of(live))
        served = pinned or f"the champion, {self.registry.champion_id() or 'none yet'}"
        return f"no rollout is active; the main predictor serves {served}"

    def _record(
        self,
        state: RolloutState,
        predictors: dict[str, PredictorMetrics],
        comparison: CanaryVerdict,
    ) -> RolloutDecision:
        """Store the decision of a comparison; a model that is shown to be worse is blocked."""
        block = None
        if comparison.is_worse:
            why = f"its canary was rolled back: {'; '.join(comparison.reasons)}"
            block = self._new_block(state.proposal, why)
        return self.registry.decide(
            RolloutDecision(
                rollout_id=state.proposal.rollout_id,
                bundle_id=state.bundle_id,
                champion=state.champion,
                action="promote" if comparison.action == "promote" else "roll_back",
                verdict=comparison.verdict,
                counts={name: _counts(metrics) for name, metrics in predictors.items()},
                last_promotion=self._last_promotion(),
                started_at=state.started_at,
                at=self._clock(),
                by="rollout",
                blocks=block,
            )
        )

    def _new_block(self, proposal: Proposal, why: str) -> Block:
        champion = self.registry.champion_id()
        instead = self.registry.get(champion).manifest if champion else None
        return self.registry.new_block(proposal.bundle_id, why, instead)

    def _decide(
        self,
        proposal: Proposal,
        started: datetime,
        objection: str,
        by: str,
        blocks: Block | None = None,
    ) -> RolloutDecision:
        """Store a decision without a comparison: roll back because of an objection, or promote."""
        reasons = (objection,) if objection else ()
        return self.registry.decide(
            RolloutDecision(
                rollout_id=proposal.rollout_id,
                bundle_id=proposal.bundle_id,
                champion=proposal.champion,
                action="roll_back" if objection else "promote",
                verdict=Verdict(passed=not objection, reasons=reasons, measurements={}, checks=()),
                last_promotion=self._last_promotion(),
                started_at=started,
                at=self._clock(),
                by=by,
                blocks=blocks,
            )
        )

    def _finished(self, decision: RolloutDecision) -> RolloutProgress:
        promoted = decision.action == "promote"
        return RolloutProgress(
            phase="promoted" if promoted else "rolled back",
            message="; ".join(decision.verdict.reasons) or f"{decision.bundle_id} is champion",
            bundle_id=decision.bundle_id,
            decision=decision,
        )

    def _progress(
        self, phase: Phase, message: str, state: RolloutState, decision: RolloutDecision
    ) -> RolloutProgress:
        return RolloutProgress(
            phase=phase, message=message, bundle_id=state.bundle_id, decision=decision
        )


def _counts(metrics: PredictorMetrics) -> dict[str, float | None]:
    """Bad answers of each measure, and ``<measure>_total``."""
    counts = {}
    for name in ("errors", "fallbacks", "slow", "no_click", "no_purchase"):
        proportion: Proportion = getattr(metrics, name)
        counts[name], counts[f"{name}_total"] = proportion.bad, proportion.total
    return counts


def _weights(live: Manifest) -> dict[str, int]:
    return {one["name"]: one["traffic"] for one in live["spec"]["predictors"]}


def _waiting_for(pods: list[Pod], name: str, bundle_id: str) -> str:
    """How many pods of a predictor serve a bundle; "" if all do."""
    own = [pod for pod in pods if pod.predictor == name and not pod.terminating]
    ready = sum(pod.ready and pod.bundle_id == bundle_id for pod in own)
    if own and ready == len(own):
        return ""
    return f"{ready} of {max(len(own), 1)} pods of {name} serve {bundle_id}"


def _waiting_for_removal(pods: list[Pod]) -> str:
    """Pods of predictors that have been removed; "" if there are none."""
    others = [pod.name for pod in pods if pod.predictor != MAIN and not pod.terminating]
    return f"not yet removed: {', '.join(others)}" if others else ""
