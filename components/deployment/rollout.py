"""Leads a proposed bundle to the champion's place on a cluster, or back.

``reconcile`` does the next thing that is due and returns; done again and again it carries a rollout
through. Everything that it knows is in two places: the SeldonDeployment, whose annotation
``refit/rollout`` holds the rollout under way, and the registry, which holds what was decided. So it
may be killed between any two lines, and another one goes on from there:

1. a proposal stands, no rollout is under way: the canary is added, with the rollout's state;
2. the canary's pods are ready: what all pods have counted so far is kept, the comparison begins;
3. the arms are judged, at every look; a judgement to promote or to roll back is kept in the
   registry, and from then on only carried out;
4. promote: the bundle becomes champion, the main predictor takes it over pod by pod while the
   canary serves on, then the canary is removed;
5. roll back: the canary is removed, and the main predictor is as it was.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from components.deployment.canary import Arm, CanaryVerdict, Proportion, compare_canary
from components.deployment.cluster import Changed, Missing, Pod
from components.deployment.counts import Counts, add_up, read_counts
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
    with_one_arm,
    with_state,
)
from components.deployment.quality import count_misses
from components.deployment.settings import RolloutSettings
from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.progress import log_message
from refit.registry import Registry
from refit.rollout import Proposal, RolloutDecision
from refit.settings import Settings
from refit.verdict import Verdict

APPLY_TRIES = 20
MAIN_ALONE = {MAIN: 100}
OPERATOR_SECONDS = 60.0
"""How long a canary is left in place for the operator to take note of it, so that it removes it."""

Phase = Literal["idle", "starting", "comparing", "promoting", "promoted", "rolled back", "aligning"]


class Cluster(Protocol):
    """What a rollout needs of ``components.deployment.cluster.SeldonCluster``."""

    name: str

    def read(self) -> Manifest:
        """The live SeldonDeployment."""

    def apply(self, manifest: Manifest) -> Manifest:
        """Apply it server-side."""

    def split(self, weights: Mapping[str, int]) -> None:
        """Have the Gateway API routes split the traffic so, by predictor."""

    def pods(self) -> list[Pod]:
        """The pods of all predictors."""

    def read_metrics(self, pod: Pod) -> str | None:
        """What a pod shows to Prometheus."""


class RolloutState(Settings):
    """A rollout under way, as the SeldonDeployment's annotation holds it.

    Attributes:
        proposal: What is carried out.
        champion: What the main predictor served when it began.
        compared_since: When the comparison began; None before.
        before: What each pod, by its uid, had counted until then.
    """

    proposal: Proposal
    champion: str
    started_at: datetime
    compared_since: datetime | None = None
    before: dict[str, Counts] = {}

    @classmethod
    def of(cls, live: Manifest) -> "RolloutState | None":
        """The rollout under way; None when there is none."""
        text = live["metadata"].get("annotations", {}).get(STATE_ANNOTATION)
        return cls.parse_json(text) if text else None

    @property
    def bundle_id(self) -> str:
        """What the canary serves."""
        return self.proposal.bundle_id


class Progress(Settings):
    """Where a rollout stands.

    Attributes:
        phase: What is going on.
        message: For the reader, with what is waited for.
        bundle_id: The candidate; "" when there is none.
        arms: What each arm did so far, by its name.
        decision: How it ended, once it is decided.
    """

    phase: Phase
    message: str
    bundle_id: str = ""
    arms: dict[str, Arm] = {}
    decision: RolloutDecision | None = None


class Rollouts:
    """Carries out proposals on one SeldonDeployment.

    Args:
        settings: How.
        cluster: The SeldonDeployment.
        registry: Where proposals, decisions and bundles are.
        predictions: Folder or URL of the prediction log.
        outcomes: Folder, file or URL of the events that name the answers they follow; "" for none.
        clock: The time; for tests.
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

    def reconcile(self) -> Progress:
        """Do what is due now; harmless to repeat.

        Raises:
            Changed: Somebody changed the object meanwhile; the next look starts from there.
            ServiceUnreachable: The API server or the registry does not answer.
        """
        live = self.cluster.read()
        state = RolloutState.of(live)
        if state is None:
            return self._begin(live)
        if decision := self.registry.decision(state.proposal.rollout_id):
            return self._carry_out(live, state, decision)
        judged = self._look(live, state)
        return self._carry_out(live, state, judged.decision) if judged.decision else judged

    def look(self) -> Progress:
        """Tell where the rollout stands; changes nothing."""
        live = self.cluster.read()
        state = RolloutState.of(live)
        if state is None:
            return Progress(phase="idle", message=self._idle_message(live))
        decision = self.registry.decision(state.proposal.rollout_id)
        arms, judgement = self._compare(state)
        return Progress(
            phase="promoting" if decision else "comparing" if state.compared_since else "starting",
            message="; ".join(judgement.reasons) or "the candidate has proved itself",
            bundle_id=state.bundle_id,
            arms=arms,
            decision=decision,
        )

    def abort(self, by: str, reason: str) -> Progress:
        """End the rollout under way; the champion goes on.

        Raises:
            UsageError: There is none, or it is being promoted already.
        """
        live = self.cluster.read()
        state = RolloutState.of(live)
        candidate = state.proposal if state else self.registry.candidate()
        if candidate is None:
            raise UsageError("no rollout is under way")
        started = state.started_at if state else self._clock()
        decision = self._decide(candidate, started, f"{by} ended it: {reason}", by)
        if decision.action == "promote":
            raise UsageError(
                f"{candidate.bundle_id} is being promoted already; refit bundles rollback goes back"
            )
        if state is None:
            return self._ended(decision)
        return self._carry_out(live, state, decision)

    def roll_back(self, by: str, reason: str) -> Progress:
        """Go back: end a rollout under way, else return to the champion's predecessor.

        An earlier roll back that was killed half way is finished, not repeated.

        Raises:
            UsageError: There is nothing to go back to.
        """
        live = self.cluster.read()
        state = RolloutState.of(live)
        if state and self.registry.decision(state.proposal.rollout_id) is None:
            return self.abort(by, reason)
        champion = self.registry.champion_id()
        if state or bundle_of(main_of(live)) in ("", champion):
            champion = self.registry.rollback(by, reason).bundle_id
        self._serve_alone(champion)
        return Progress(phase="aligning", message=f"going back to {champion}")

    def promote(self, bundle_id: str, by: str, reason: str, force: bool = False) -> Progress:
        """Make a bundle champion without a canary, because a person says so.

        Raises:
            GateRefused: Its verdict did not pass, and it is not forced.
            UsageError: A rollout is under way.
        """
        live = self.cluster.read()
        if RolloutState.of(live):
            raise UsageError("a rollout is under way; end it first: refit rollout abort")
        self.registry.promote(bundle_id, by, reason, force)
        self._serve_alone(bundle_id)
        return Progress(phase="aligning", message=f"{bundle_id} takes over")

    def wait_until_stable(self, seconds: float) -> str:
        """Wait until the main predictor serves the champion alone; returns its bundle id.

        Raises:
            ServiceUnreachable: It does not within the time; the message tells what is missing.
        """
        deadline, logged = time.monotonic() + seconds, ""
        while True:
            bundle = bundle_of(main_of(self.cluster.read()))
            pods = self.cluster.pods()
            waiting = _waiting_for(pods, MAIN, bundle) or _waiting_for_end(pods)
            if not waiting:
                return bundle
            if waiting != logged:
                logged = waiting
                log_message(f"rollout: {waiting}")
            if time.monotonic() > deadline:
                raise ServiceUnreachable(
                    f"{bundle} is not served alone after {seconds:.0f} s: {waiting}; it goes on "
                    "by itself, and refit rollout status tells how far it is"
                )
            time.sleep(1.0)

    def follow(self) -> None:
        """Reconcile for ever; what goes wrong is told and tried again."""
        last = ""
        while True:
            try:
                progress = self.reconcile()
                told = f"{progress.phase}: {progress.message}"
            except Changed as changed:
                time.sleep(1.0)
                log_message(f"rollout: {changed}")
                continue
            except RefitError as error:
                told = f"tried again in {self.settings.poll_seconds:.0f} s: {error}"
            if told != last:
                last = told
                log_message(f"rollout: {told}")
            time.sleep(self.settings.poll_seconds)

    def _begin(self, live: Manifest) -> Progress:
        """Nothing is under way: see to it that the champion is served, then start what is due."""
        champion, main = self.registry.champion_id(), bundle_of(main_of(live))
        if champion and main not in ("", champion):
            self._leave_one_arm(live, champion)
            return Progress(phase="aligning", message=f"the main predictor takes over {champion}")
        candidate = self.registry.candidate()
        if candidate is None:
            return Progress(phase="idle", message=self._idle_message(live))
        if predictor_of(live, CANARY):
            message = f"{candidate.bundle_id} waits: there is a canary that is not of a rollout"
            return Progress(phase="idle", message=message, bundle_id=candidate.bundle_id)
        self._check_quality_can_be_known()
        now = self._clock()
        if not champion:
            self.registry.promote(candidate.bundle_id, candidate.by, candidate.reason)
            champion = candidate.bundle_id
            self._leave_one_arm(live, champion)
        if candidate.bundle_id == champion:
            decision = self._decide(candidate, now, "", candidate.by)
            return self._ended(decision)
        if candidate.champion != champion:
            why = f"its gate compared it with {candidate.champion or 'none'}, not with {champion}"
            return self._ended(self._decide(candidate, now, why, "rollout"))
        state = RolloutState(proposal=candidate, champion=champion, started_at=now)
        self._split(MAIN_ALONE)
        self._apply_canary(live, state, champion)
        return Progress(
            phase="starting",
            message=f"{candidate.bundle_id} gets {self.settings.share}% beside {champion}",
            bundle_id=candidate.bundle_id,
        )

    def _check_quality_can_be_known(self) -> None:
        if self.settings.quality_drop is not None and not (self._predictions and self._outcomes):
            raise UsageError(
                "live quality cannot be compared without predictions and outcomes, so that no "
                "rollout would ever pass: name both in the cluster's file, or leave quality out "
                "with rollout.quality_drop: null"
            )

    def _look(self, live: Manifest, state: RolloutState) -> Progress:
        """Judge the arms; a decision in what is returned has been kept in the registry."""
        if why := self._interference(live, state):
            decision = self._decide(state.proposal, state.started_at, why, "rollout")
            return Progress(phase="comparing", message=why, decision=decision)
        waiting = ""
        if state.compared_since is None:
            waiting = self._start_comparison(live, state)
            if not waiting:
                return Progress(
                    phase="comparing", message="it has begun", bundle_id=state.bundle_id
                )
        arms, judgement = self._compare(state)
        if not waiting:
            self._split_by_readiness(live, arms[CANARY].pods)
        return Progress(
            phase="starting" if waiting else "comparing",
            message=waiting or "; ".join(judgement.reasons),
            bundle_id=state.bundle_id,
            arms=arms,
            decision=None if judgement.action == "hold" else self._keep(state, arms, judgement),
        )

    def _start_comparison(self, live: Manifest, state: RolloutState) -> str:
        """Keep what all pods have counted, once they are ready; returns what is waited for."""
        pods = self.cluster.pods()
        for name, bundle_id in ((MAIN, state.champion), (CANARY, state.bundle_id)):
            if waiting := _waiting_for(pods, name, bundle_id):
                return waiting
        before = {pod.uid: self._read_counts(pod) for pod in pods if not pod.ending}
        if any(counts.requests is None for counts in before.values()):
            return "metrics of every pod"
        begun = state.model_copy(update={"compared_since": self._clock(), "before": before})
        self.cluster.apply(with_state(live, begun.model_dump_json()))
        return ""

    def _compare(self, state: RolloutState) -> tuple[dict[str, Arm], CanaryVerdict]:
        pods = [pod for pod in self.cluster.pods() if not pod.ending]
        misses = self._count_misses(state)
        arms = {}
        for name, bundle_id in ((MAIN, state.champion), (CANARY, state.bundle_id)):
            mine = [p for p in pods if p.predictor == name and p.bundle_id == bundle_id]
            ready = [pod for pod in mine if pod.ready]
            counts = Counts()
            if state.compared_since:
                counts = add_up(
                    [self._read_counts(p).since(state.before.get(p.uid, Counts())) for p in ready]
                )
            arms[name] = Arm(
                bundle_id=bundle_id,
                pods=len(ready),
                restarts=sum(pod.restarts for pod in mine),
                errors=counts.error_share,
                fallbacks=counts.fallback_share,
                slow=counts.slow_share,
                misses=misses.get(bundle_id, Proportion()),
            )
        expired = self._clock() - state.started_at >= timedelta(hours=self.settings.deadline_hours)
        return arms, compare_canary(self.settings, arms[MAIN], arms[CANARY], expired)

    def _count_misses(self, state: RolloutState) -> dict[str, Proportion]:
        if self.settings.quality_drop is None or state.compared_since is None:
            return {}
        try:
            return count_misses(
                self.settings,
                self._predictions,
                self._outcomes,
                (state.champion, state.bundle_id),
                state.compared_since,
                self._clock() - timedelta(minutes=self.settings.outcome_minutes),
            )
        except ServiceUnreachable as error:
            log_message(f"rollout: quality is not known: {error}")
            return {}

    def _carry_out(
        self, live: Manifest, state: RolloutState, decision: RolloutDecision
    ) -> Progress:
        if decision.action == "roll_back":
            if self._operator_is_unaware(live, state):
                return self._told(
                    "starting", "the operator has not taken note of the canary yet", state, decision
                )
            self._leave_one_arm(live, self.registry.champion_id() or state.champion)
            return self._ended(decision)
        if not self._was_promoted(decision):
            proposal = state.proposal
            self.registry.promote(proposal.bundle_id, proposal.by, proposal.reason)
        champion = self.registry.champion_id()
        if champion != decision.bundle_id:
            # Somebody has gone back, or further, meanwhile.
            self._leave_one_arm(live, champion)
            return self._told("aligning", f"{champion} takes over", state, decision)
        if bundle_of(main_of(live)) != champion:
            self._apply_canary(live, state, champion)
            return self._told("promoting", "the main predictor takes it over", state, decision)
        pods = self.cluster.pods()
        if waiting := _waiting_for(pods, MAIN, champion):
            ready = sum(p.ready and not p.ending for p in pods if p.predictor == CANARY)
            self._split_by_readiness(live, ready)
            return self._told("promoting", waiting, state, decision)
        self._leave_one_arm(live, champion)
        return self._ended(decision)

    def _apply_canary(self, live: Manifest, state: RolloutState, main: str) -> None:
        canary = predictor_of(live, CANARY)
        main_pods = [p for p in self.cluster.pods() if p.predictor == MAIN and not p.ending]
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

    def _leave_one_arm(self, live: Manifest, bundle_id: str) -> None:
        """Remove the canary, once nobody is sent to it any more."""
        with suppress(Missing):  # without routes nobody is sent to it; going back must not wait
            self._split(MAIN_ALONE)
        self.cluster.apply(with_one_arm(live, bundle_id))

    def _split_by_readiness(self, live: Manifest, ready: int) -> None:
        """Give the canary its share, unless none of its pods is ready any more."""
        self._split(_weights(live) if ready else MAIN_ALONE)

    def _split(self, weights: Mapping[str, int]) -> None:
        """Split the traffic, where that is not done by who runs the predictors."""
        if self.settings.split == "gateway":
            self.cluster.split(weights)

    def _serve_alone(self, bundle_id: str) -> None:
        """Have the main predictor serve a bundle alone, whatever else happens to the object."""
        for _ in range(APPLY_TRIES):
            try:
                self._leave_one_arm(self.cluster.read(), bundle_id)
                return
            except Changed:
                time.sleep(0.2)
        raise ServiceUnreachable(
            f"SeldonDeployment {self.cluster.name} keeps being changed; do it again to go on"
        )

    def _interference(self, live: Manifest, state: RolloutState) -> str:
        """Why the rollout cannot go on: what it compares is not what is served; "" if it can."""
        if predictor_of(live, CANARY) is None:
            return "somebody removed the canary"
        if bundle_of(main_of(live)) != state.champion:
            return "somebody changed the main predictor's bundle"
        if (champion := self.registry.champion_id()) != state.champion:
            return f"the champion is now {champion or 'none'}, not {state.champion}"
        return ""

    def _operator_is_unaware(self, live: Manifest, state: RolloutState) -> bool:
        """Whether the canary would be left behind: the operator removes what its status names."""
        if predictor_of(live, CANARY) is None:
            return False
        known = live.get("status", {}).get("deploymentStatus") or {}
        young = (self._clock() - state.started_at).total_seconds() < OPERATOR_SECONDS
        prefix = f"{live['metadata']['name']}-{CANARY}-"
        return young and not any(name.startswith(prefix) for name in known)

    def _was_promoted(self, decision: RolloutDecision) -> bool:
        changes = self.registry.history()
        return any(
            change.bundle_id == decision.bundle_id and change.number > decision.after
            for change in changes
        )

    def _changes(self) -> int:
        promotion = self.registry.champion()
        return promotion.number if promotion else 0

    def _read_counts(self, pod: Pod) -> Counts:
        return read_counts(self.cluster.read_metrics(pod), self.settings.slow_ms)

    def _idle_message(self, live: Manifest) -> str:
        served = (
            bundle_of(main_of(live)) or f"the champion, {self.registry.champion_id() or 'none yet'}"
        )
        return f"no rollout is under way; the main predictor serves {served}"

    def _keep(
        self, state: RolloutState, arms: dict[str, Arm], judgement: CanaryVerdict
    ) -> RolloutDecision:
        counts = {
            name: {
                f"{what}{part}": value
                for what in ("errors", "fallbacks", "slow", "misses")
                for part, value in (
                    ("", getattr(arm, what).bad),
                    (" of", getattr(arm, what).of),
                )
            }
            for name, arm in arms.items()
        }
        return self.registry.decide(
            RolloutDecision(
                rollout_id=state.proposal.rollout_id,
                bundle_id=state.bundle_id,
                champion=state.champion,
                action="promote" if judgement.action == "promote" else "roll_back",
                verdict=judgement.verdict,
                counts=counts,
                after=self._changes(),
                started_at=state.started_at,
                at=self._clock(),
                by="rollout",
            )
        )

    def _decide(self, proposal: Proposal, started: datetime, why: str, by: str) -> RolloutDecision:
        """Keep a decision that rests on no comparison: to roll back because of ``why``, or not."""
        reasons = (why,) if why else ()
        return self.registry.decide(
            RolloutDecision(
                rollout_id=proposal.rollout_id,
                bundle_id=proposal.bundle_id,
                champion=proposal.champion,
                action="roll_back" if why else "promote",
                verdict=Verdict(passed=not why, reasons=reasons, measurements={}, checks=()),
                after=self._changes(),
                started_at=started,
                at=self._clock(),
                by=by,
            )
        )

    def _ended(self, decision: RolloutDecision) -> Progress:
        promoted = decision.action == "promote"
        return Progress(
            phase="promoted" if promoted else "rolled back",
            message="; ".join(decision.verdict.reasons) or f"{decision.bundle_id} is champion",
            bundle_id=decision.bundle_id,
            decision=decision,
        )

    def _told(
        self, phase: Phase, message: str, state: RolloutState, decision: RolloutDecision
    ) -> Progress:
        return Progress(phase=phase, message=message, bundle_id=state.bundle_id, decision=decision)


def _weights(live: Manifest) -> dict[str, int]:
    return {one["name"]: one["traffic"] for one in live["spec"]["predictors"]}


def _waiting_for(pods: list[Pod], name: str, bundle_id: str) -> str:
    """What keeps all pods of a predictor from serving a bundle; "" when they do."""
    mine = [pod for pod in pods if pod.predictor == name and not pod.ending]
    ready = sum(pod.ready and pod.bundle_id == bundle_id for pod in mine)
    if mine and ready == len(mine):
        return ""
    return f"{ready} of {max(len(mine), 1)} pods of {name} serve {bundle_id}"


def _waiting_for_end(pods: list[Pod]) -> str:
    """Pods of predictors that are to be gone."""
    others = [pod.name for pod in pods if pod.predictor != MAIN and not pod.ending]
    return f"{', '.join(others)} still there" if others else ""
