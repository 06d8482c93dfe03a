"""Rollouts on a simulated SeldonDeployment: what reconcile does, also when it is killed."""

import copy
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.deployment.cluster import ConflictError, NotFoundError, Pod
from components.deployment.manifests import (
    BUNDLE_ANNOTATION,
    STATE_ANNOTATION,
    bundle_of,
    main_of,
    predictor_of,
)
from components.deployment.rollout import Rollouts, RolloutState
from components.deployment.settings import RolloutSettings
from refit.bundle import assemble_bundle
from refit.errors import GateRefused, RefitError, UsageError
from refit.registry import Registry
from refit.shared_files import Seen
from tests.components.deployment.test_promote import write_run

START = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = RolloutSettings(
    click_tolerance=None,
    purchase_tolerance=None,
    min_requests=100,
    min_days=0,
    deadline_hours=1,
    share=10,
)


class Killed(BaseException):
    """Simulates SIGKILL: no handler may catch it."""


class SimulatedCluster:
    """A SeldonDeployment whose operator updates the pods immediately."""

    name = "refit"

    def __init__(self, main: str = "") -> None:
        self.version, self.pods_created = 1, 0
        self.predictors: list[dict[str, Any]] = [
            {
                "name": "main",
                "traffic": 100,
                "annotations": {BUNDLE_ANNOTATION: main},
                "componentSpecs": [{"hpaSpec": {"minReplicas": 2}, "spec": {}}],
            }
        ]
        self.annotations: dict[str, str] = {}
        self.running: list[Pod] = []
        self.counted: dict[str, dict[str, int]] = {}
        self.broken: set[str] = set()
        self.silent: set[str] = set()
        self.weights: list[list[int]] = []
        self.routed = {"main": 100}
        self.splits: list[dict[str, int]] = []
        self.kill_at, self.calls = -1, 0
        self._operate()

    def read(self) -> dict[str, Any]:
        self.maybe_kill()
        return self.live()

    def live(self) -> dict[str, Any]:
        names = [f"refit-{one['name']}-0-recommender" for one in self.predictors]
        return {
            "metadata": {
                "name": "refit",
                "namespace": "refit",
                "resourceVersion": str(self.version),
                "annotations": dict(self.annotations),
            },
            "spec": {"predictors": copy.deepcopy(self.predictors)},
            "status": {"deploymentStatus": {name: {} for name in names}},
        }

    def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self.maybe_kill()
        if manifest["metadata"]["resourceVersion"] != str(self.version):
            raise ConflictError("modified")
        self.version += 1
        self.predictors = copy.deepcopy(manifest["spec"]["predictors"])
        self.annotations = dict(manifest["metadata"].get("annotations", {}))
        self.weights.append([one["traffic"] for one in self.predictors])
        self._operate()
        assert {one["name"] for one in self.predictors} >= set(self.routed), "no such predictor"
        self.maybe_kill()
        return self.live()

    def split(self, weights: Mapping[str, int]) -> None:
        self.maybe_kill()
        for predictor in weights:
            assert any(p.ready for p in self.running if p.predictor == predictor), "no ready pod"
        if weights != self.routed:
            self.splits.append(dict(weights))
        self.routed = dict(weights)
        self.maybe_kill()

    def pods(self) -> list[Pod]:
        return list(self.running)

    def read_metrics(self, pod: Pod) -> str | None:
        if pod.bundle_id in self.silent or not pod.ready:
            return None
        counts = {"requests": 0, "errors": 0, "fallbacks": 0, "slow": 0}
        counts |= self.counted.get(pod.uid, {})
        return "\n".join(
            [
                *(f"refit_{k}_total {counts[k]}" for k in ("requests", "errors", "fallbacks")),
                "# TYPE refit_latency histogram",
                f'refit_latency_bucket{{le="0.2"}} {counts["requests"] - counts["slow"]}',
                f'refit_latency_bucket{{le="+Inf"}} {counts["requests"]}',
                "",
            ]
        )

    def serve(self, requests: int, **bad: int) -> None:
        """Add requests to every pod's counts, and bad answers to those of the canary's pods."""
        for pod in self.running:
            counts = self.counted.setdefault(pod.uid, {})
            added = {"requests": requests, **(bad if pod.predictor == "canary" else {})}
            for name, value in added.items():
                counts[name] = counts.get(name, 0) + value

    @property
    def served(self) -> dict[str, str]:
        return {one["name"]: bundle_of(one) for one in self.predictors}

    def _operate(self) -> None:
        kept = {(one["name"], bundle_of(one)): one.get("replicas", 2) for one in self.predictors}
        self.running = [p for p in self.running if (p.predictor, p.bundle_id) in kept]
        for (name, bundle), replicas in kept.items():
            for _ in range(replicas - sum(p.predictor == name for p in self.running)):
                self.pods_created += 1
                self.running.append(
                    Pod(
                        name=f"{name}-{self.pods_created}",
                        uid=f"uid-{self.pods_created}",
                        address="",
                        predictor=name,
                        bundle_id=bundle,
                        ready=bundle not in self.broken,
                        terminating=False,
                        restarts=0,
                    )
                )

    def maybe_kill(self) -> None:
        self.calls += 1
        if self.calls == self.kill_at:
            raise Killed


class KilledRegistry(Registry):
    """A registry whose writes count as calls that may be killed, too."""

    cluster: SimulatedCluster

    def _replace(self, name: str, text: str, seen: Seen) -> bool:
        self.cluster.maybe_kill()
        replaced = super()._replace(name, text, seen)
        self.cluster.maybe_kill()
        return replaced


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def add(tmp_path: Path, registry: Registry) -> Callable[..., str]:
    def add_bundle(name: str, passed: bool = True) -> str:
        parts = write_run(tmp_path / name, passed=passed, towers=name)
        parts = {k: parts[k] for k in ("model", "index", "evaluation", "reference")}
        return registry.add(assemble_bundle(**parts, out_root=tmp_path / "assembled"))

    return add_bundle


@pytest.fixture
def old(add, registry: Registry) -> str:
    bundle_id = add("old")
    registry.promote(bundle_id, "ann", "first")
    return bundle_id


@pytest.fixture
def new(add, old: str) -> str:
    return add("new")


@pytest.fixture
def cluster(old: str) -> SimulatedCluster:
    return SimulatedCluster(old)


@pytest.fixture(params=["istio", "gateway"])
def rollouts(
    cluster: SimulatedCluster, registry: Registry, clock: Clock, request: pytest.FixtureRequest
) -> Rollouts:
    return Rollouts(split_by(request.param), cluster, registry, clock=clock)


def split_by(split: str) -> RolloutSettings:
    return SETTINGS.model_copy(update={"split": split})


def compare(rollouts: Rollouts, registry: Registry, old: str, new: str) -> None:
    """Start a rollout and its comparison."""
    registry.propose(new, old, "pipeline", "it passed the gate")
    assert rollouts.reconcile().phase == "starting"
    assert rollouts.reconcile().phase == "comparing"


def test_a_good_candidate_becomes_champion(cluster, rollouts, registry, old, new):
    cluster.serve(10_000, errors=9000)  # earlier requests are not compared
    compare(rollouts, registry, old, new)
    assert cluster.served == {"main": old, "canary": new}
    assert predictor_of(cluster.read(), "canary")["replicas"] == 1
    cluster.serve(90)
    assert rollouts.reconcile().phase == "comparing"
    cluster.serve(2000)
    assert rollouts.reconcile().phase == "promoting"
    assert cluster.served == {"main": new, "canary": new}
    assert rollouts.reconcile().phase == "promoted"
    assert cluster.served == {"main": new}
    assert STATE_ANNOTATION not in cluster.annotations
    champion = registry.champion()
    assert (champion.bundle_id, champion.previous, champion.by) == (new, old, "pipeline")
    (decision,) = registry.decisions()
    assert (decision.action, decision.champion, decision.verdict.passed) == ("promote", old, True)
    assert decision.counts["main"]["errors_total"] == 4180
    assert rollouts.reconcile().phase == "idle"
    assert all(sum(weights) == 100 and all(weights) for weights in cluster.weights)
    routed = [{"main": 90, "canary": 10}, {"main": 100}]
    assert cluster.splits == (routed if rollouts.settings.split == "gateway" else [])


def test_a_bad_candidate_is_removed_at_once(cluster, rollouts, registry, old, new):
    compare(rollouts, registry, old, new)
    cluster.serve(50, fallbacks=50)
    assert rollouts.reconcile().phase == "rolled back"
    assert cluster.served == {"main": old}
    assert registry.champion().bundle_id == old
    (decision,) = registry.decisions()
    assert decision.action == "roll_back"
    assert "increase in fallbacks is at least" in decision.verdict.reasons[0]
    assert rollouts.reconcile().phase == "idle"


def test_a_model_whose_canary_was_worse_is_blocked(cluster, rollouts, registry, old, new):
    compare(rollouts, registry, old, new)
    cluster.serve(50, fallbacks=50)
    rollouts.reconcile()
    with pytest.raises(GateRefused, match="increase in fallbacks"):
        registry.propose(new, old, "pipeline", "it passed the gate")


def test_a_proposal_during_a_rollout_waits_for_its_end(
    cluster, rollouts, registry, add, clock, old, new
):
    compare(rollouts, registry, old, new)
    later = add("later")
    registry.propose(later, old, "pipeline", "it passed the gate")
    assert rollouts.reconcile().bundle_id == new
    clock.now += timedelta(hours=1)
    assert rollouts.reconcile().phase == "rolled back"
    assert [d.action for d in registry.decisions()] == ["roll_back"]
    assert rollouts.reconcile().bundle_id == later


def test_the_comparison_lasts_the_whole_days_of_the_settings(cluster, registry, clock, old, new):
    settings = SETTINGS.model_copy(update={"min_days": 1, "deadline_hours": 48})
    rollouts = Rollouts(settings, cluster, registry, clock=clock)
    compare(rollouts, registry, old, new)
    cluster.serve(5000)
    clock.now += timedelta(hours=23)
    held = rollouts.reconcile()
    assert (held.phase, "whole days" in held.message) == ("comparing", True)
    clock.now += timedelta(hours=1)
    assert rollouts.reconcile().phase == "promoting"


def test_a_lost_champion_starts_no_rollout(cluster, rollouts, registry, old, new):
    registry.propose(new, "", "pipeline", "a first model")
    registry.fs.rm_file(f"{registry.root}/champion.json")
    with pytest.raises(RefitError, match="is lost"):
        rollouts.reconcile()
    assert cluster.served == {"main": old}


def test_a_candidate_that_never_becomes_ready_is_rolled_back_at_the_deadline(
    cluster, rollouts, registry, clock, old, new
):
    cluster.broken.add(new)
    registry.propose(new, old, "pipeline", "it passed the gate")
    rollouts.reconcile()
    held = rollouts.reconcile()
    assert (held.phase, held.message) == ("starting", f"0 of 1 pods of canary serve {new}")
    clock.now += timedelta(hours=1)
    assert rollouts.reconcile().phase == "rolled back"
    assert cluster.served == {"main": old}


def test_missing_metrics_hold_until_the_deadline(cluster, rollouts, registry, clock, old, new):
    compare(rollouts, registry, old, new)
    cluster.serve(5000)
    cluster.silent.add(new)
    held = rollouts.reconcile()
    assert held.phase == "comparing"
    assert "the value of the canary is missing" in held.message
    clock.now += timedelta(hours=2)
    assert rollouts.reconcile().phase == "rolled back"


def test_restarting_containers_roll_back(cluster, rollouts, registry, old, new):
    compare(rollouts, registry, old, new)
    cluster.running = [
        p.model_copy(update={"restarts": 4, "ready": False}) if p.predictor == "canary" else p
        for p in cluster.running
    ]
    cluster.running[-1] = cluster.running[-1].model_copy(update={"restarts": 1})
    assert rollouts.reconcile().phase == "comparing"
    assert cluster.routed == {"main": 100}  # no request is sent to an unready canary
    cluster.running[-1] = cluster.running[-1].model_copy(update={"restarts": 4})
    assert rollouts.reconcile().phase == "rolled back"
    assert "restarted 4 times" in registry.decisions()[0].verdict.reasons[0]


@pytest.mark.parametrize("split", ["istio", "gateway"])
@pytest.mark.parametrize("outcome", ["promote", "roll_back"])
def test_after_a_kill_at_any_call_the_next_process_continues(
    tmp_path, add, old, new, clock, outcome, split
):
    """Every call is killed before and after its effect, in all phases."""
    kill_at = 0
    finished = False
    while not finished:
        kill_at += 1
        cluster = SimulatedCluster(old)
        registry = KilledRegistry(tmp_path / f"registry-{kill_at}")
        registry.cluster = cluster
        for bundle_id in (old, new):
            registry.add(Registry(tmp_path / "registry").get(bundle_id))
        registry.promote(old, "ann", "first")
        registry.propose(new, old, "pipeline", "it passed the gate")
        cluster.calls, cluster.kill_at = 0, kill_at
        bad = {} if outcome == "promote" else {"errors": 5000}
        finished = True
        for _ in range(20):
            try:
                Rollouts(split_by(split), cluster, registry, clock=clock).reconcile()
            except Killed:
                finished = False
            state = RolloutState.of(cluster.live())
            if state and state.comparison_started_at:
                cluster.serve(5000, **bad)
        winner = new if outcome == "promote" else old
        assert cluster.served == {"main": winner}, kill_at
        assert registry.champion().bundle_id == winner
        assert [d.action for d in registry.decisions()] == [outcome]
        assert len(registry.history()) == (2 if outcome == "promote" else 1)
        assert not cluster.annotations
        assert all(sum(weights) == 100 and all(weights) for weights in cluster.weights)
        assert cluster.routed == {"main": 100}
    assert kill_at > 20


def test_the_first_bundle_needs_no_canary(tmp_path, registry, add, clock):
    first = add("first")
    cluster = SimulatedCluster("")
    rollouts = Rollouts(SETTINGS, cluster, registry, clock=clock)
    assert rollouts.reconcile().phase == "idle"
    registry.propose(first, "", "pipeline", "it passed the gate")
    assert rollouts.reconcile().phase == "promoted"
    assert cluster.served == {"main": first}
    assert registry.champion().bundle_id == first
    assert rollouts.reconcile().phase == "idle"


def test_a_bundle_that_its_gate_refused_cannot_be_proposed(registry, add, old):
    weak = add("weak", passed=False)
    with pytest.raises(GateRefused, match="not rolled out"):
        registry.propose(weak, old, "pipeline", "why not")


def test_a_candidate_compared_with_another_champion_is_rejected(
    cluster, rollouts, registry, add, old, new
):
    registry.propose(add("late"), "another", "pipeline", "it passed the gate")
    assert rollouts.reconcile().phase == "rolled back"
    assert cluster.served == {"main": old}
    assert rollouts.reconcile().phase == "idle"


def test_a_change_of_the_champion_ends_the_rollout(cluster, rollouts, registry, add, old, new):
    compare(rollouts, registry, old, new)
    other = add("other")
    registry.promote(other, "ann", "by hand")
    assert rollouts.reconcile().phase == "rolled back"
    assert cluster.served == {"main": other}


def test_applying_the_manifest_again_ends_the_rollout(cluster, rollouts, registry, old, new):
    compare(rollouts, registry, old, new)
    cluster.predictors = [main_of(cluster.read())]
    assert rollouts.reconcile().phase == "rolled back"
    assert registry.decisions()[0].verdict.reasons == ("the canary was removed",)
    assert cluster.served == {"main": old}


def test_roll_back_returns_to_the_predecessor(cluster, rollouts, registry, old, new):
    rollouts.promote(new, "ann", "by hand")
    assert cluster.served == {"main": new}
    rollouts.roll_back("bob", "worse")
    assert rollouts.wait_until_stable(1) == old
    assert registry.champion().action == "rollback"
    with pytest.raises(UsageError, match="no earlier champion"):
        rollouts.roll_back("bob", "and further")


def test_a_killed_roll_back_is_completed_and_not_repeated(
    cluster, rollouts, registry, add, old, new
):
    rollouts.promote(new, "ann", "by hand")
    rollouts.promote(add("newest"), "ann", "by hand")
    registry.rollback("bob", "killed after this")
    rollouts.roll_back("bob", "again")
    assert cluster.served == {"main": new}
    assert registry.champion().bundle_id == new


def test_roll_back_during_a_rollout_only_ends_the_rollout(cluster, rollouts, registry, old, new):
    compare(rollouts, registry, old, new)
    assert rollouts.roll_back("bob", "no").phase == "rolled back"
    assert cluster.served == {"main": old}
    assert len(registry.history()) == 1
    with pytest.raises(UsageError, match="no rollout is active"):
        rollouts.abort("bob", "no")


def test_a_roll_back_during_the_promotion_is_not_undone(cluster, rollouts, registry, old, new):
    compare(rollouts, registry, old, new)
    cluster.serve(5000)
    assert rollouts.reconcile().phase == "promoting"
    rollouts.roll_back("bob", "no")
    assert cluster.served == {"main": old}
    for _ in range(3):
        rollouts.reconcile()
    assert cluster.served == {"main": old}
    assert registry.champion().bundle_id == old


def test_a_canary_that_fails_during_the_promotion_gets_no_traffic(
    cluster, rollouts, registry, old, new
):
    compare(rollouts, registry, old, new)
    cluster.serve(5000)
    assert rollouts.reconcile().phase == "promoting"
    *others, last_of_main = cluster.running
    cluster.running = [
        *(p.model_copy(update={"ready": p.predictor == "main"}) for p in others),
        last_of_main.model_copy(update={"ready": False}),  # it is still being updated
    ]
    assert rollouts.reconcile().phase == "promoting"
    assert cluster.routed == {"main": 100}
    assert cluster.served == {"main": new, "canary": new}
    cluster.running = [p.model_copy(update={"ready": True}) for p in cluster.running]
    assert rollouts.reconcile().phase == "promoted"
    assert cluster.served == {"main": new}


def test_a_roll_back_of_the_registry_during_the_promotion(cluster, rollouts, registry, old, new):
    compare(rollouts, registry, old, new)
    cluster.serve(5000)
    assert rollouts.reconcile().phase == "promoting"
    registry.rollback("bob", "without the cluster")
    assert rollouts.reconcile().phase == "aligning"
    assert cluster.served == {"main": old}
    assert registry.champion().bundle_id == old


def test_without_routes_no_canary_starts_but_a_roll_back_works(
    cluster, registry, clock, old, new, monkeypatch
):
    def find_none(weights: Mapping[str, int]) -> None:
        raise NotFoundError("no routes")

    rollouts = Rollouts(split_by("gateway"), cluster, registry, clock=clock)
    compare(rollouts, registry, old, new)
    cluster.serve(10)
    monkeypatch.setattr(cluster, "split", find_none)
    rollouts.roll_back("ann", "the routes are gone")
    assert cluster.served == {"main": old}
    with pytest.raises(GateRefused, match="the routes are gone"):
        registry.propose(new, old, "pipeline", "once more")
    registry.unblock(new, "ann", "it was not the model")
    registry.propose(new, old, "pipeline", "once more")
    with pytest.raises(NotFoundError):
        rollouts.reconcile()
    assert cluster.served == {"main": old}


def test_a_canary_defined_in_git_is_not_changed(cluster, rollouts, registry, old, new):
    main = main_of(cluster.read())
    cluster.predictors = [{**main, "traffic": 90}, {**main, "name": "canary", "traffic": 10}]
    registry.propose(new, old, "pipeline", "it passed the gate")
    assert rollouts.reconcile().phase == "idle"
    assert set(cluster.served) == {"main", "canary"}


def test_a_main_predictor_without_a_bundle_is_pinned_to_the_champion(registry, clock, old, new):
    cluster = SimulatedCluster("")
    rollouts = Rollouts(SETTINGS, cluster, registry, clock=clock)
    compare(rollouts, registry, old, new)
    assert cluster.served == {"main": old, "canary": new}


def test_a_canary_is_removed_only_after_the_operator_lists_it(
    cluster, rollouts, registry, clock, old, new, monkeypatch
):
    registry.propose(new, old, "pipeline", "it passed the gate")
    rollouts.reconcile()
    read = cluster.read
    monkeypatch.setattr(cluster, "read", lambda: {**read(), "status": {}})
    assert rollouts.abort("bob", "at once").phase == "starting"
    assert "canary" in cluster.served
    clock.now += timedelta(minutes=2)
    assert rollouts.reconcile().phase == "rolled back"
    assert cluster.served == {"main": old}


def test_quality_that_cannot_be_measured_is_an_error_before_the_canary(
    cluster, registry, clock, old, new
):
    registry.propose(new, old, "pipeline", "it passed the gate")
    settings = SETTINGS.model_copy(update={"click_tolerance": 0.2})
    with pytest.raises(UsageError, match="click_tolerance: null"):
        Rollouts(settings, cluster, registry, clock=clock).reconcile()
    assert cluster.served == {"main": old}


def test_status_changes_nothing(cluster, rollouts, registry, old, new):
    assert "no rollout is active" in rollouts.status().message
    compare(rollouts, registry, old, new)
    cluster.serve(50)
    before = cluster.version
    progress = rollouts.status()
    assert progress.phase == "comparing"
    totals = {name: one.errors.total for name, one in progress.predictors.items()}
    assert totals == {"canary": 50, "main": 100}
    assert cluster.version == before
