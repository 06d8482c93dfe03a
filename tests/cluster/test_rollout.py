"""Rollouts on a real cluster: real API server, Seldon's operator, recommenders, an S3 store."""

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from components.deployment.cluster import SeldonCluster
from components.deployment.manifests import STATE_ANNOTATION
from components.deployment.rollout import Progress, Rollouts
from components.deployment.settings import RolloutSettings
from refit.errors import RefitError
from refit.registry import Registry
from tests.cluster.commands import run, tell, wait_for
from tests.cluster.images import Images
from tests.cluster.kubernetes import Cluster
from tests.cluster.object_store import ObjectStore
from tests.cluster.recommender import (
    NAMESPACE,
    PREDICTIONS,
    REGISTRY,
    SteadyLoad,
    deployer,
    install_recommender,
    recommender_manifests,
)
from tests.serving import tiny

pytestmark = pytest.mark.cluster

SETTINGS = RolloutSettings(
    split="replicas",
    min_requests=100,
    error_increase=0.05,
    fallback_increase=0.05,
    slow_ms=2000,
    slow_increase=0.3,
    quality_drop=0.5,
    outcome_minutes=0,
    deadline_hours=0.25,
)
RATE = 10.0
OUTCOMES = "s3://refit/outcomes.parquet"
ASKED = {"k": 5, "context": {"occasion": "party"}}


@pytest.fixture(scope="module")
def bundles(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ids of three bundles; ``broken`` answers every warm-up but no party."""
    root = tmp_path_factory.mktemp("bundles")
    made = {
        "old": tiny.make_model(root / "old", 0),
        "new": tiny.make_model(root / "new", 1),
        "broken": tiny.make_model(root / "broken", 2, nan_at="party"),
    }
    return {name: registry.add(tiny.make_bundle(root, model)) for name, model in made.items()}


@pytest.fixture(scope="module")
def outcomes(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Every third answer leads to something, whoever gave it."""
    soon = datetime.now(UTC) + timedelta(hours=1)  # after any answer of this test
    rows = [
        {"request_id": f"people-{n}", "event_type": "view", "event_time": soon}
        for n in range(0, 300_000, 3)
    ]
    path = tmp_path_factory.mktemp("outcomes") / "outcomes.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    object_store.files().put_file(str(path), OUTCOMES.removeprefix("s3://"))
    return OUTCOMES


@pytest.fixture(scope="module")
def rollouts(
    seldon: Cluster,
    images: Images,
    object_store: ObjectStore,
    registry: Registry,
    bundles: dict[str, str],
    outcomes: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Rollouts:
    """The recommender installed, following the champion; rollouts as the deployer's account."""
    images.serving()
    registry.promote(bundles["old"], "a test", "the first one")
    folder = tmp_path_factory.mktemp("kustomization")
    install_recommender(seldon, object_store, recommender_manifests(seldon, folder))
    cluster = SeldonCluster(NAMESPACE, "refit", client=deployer(seldon), reads_pods=True)
    made = Rollouts(SETTINGS, cluster, registry, PREDICTIONS, outcomes)
    wait_for("the recommender", lambda: _is_settled(made), 240)
    return made


@pytest.fixture(scope="module")
def people(seldon: Cluster, images: Images, rollouts: Rollouts) -> Iterator[SteadyLoad]:
    """A steady load over the plain Service, for all that follows."""
    load = SteadyLoad(seldon, images.base(), RATE, ASKED)
    yield load
    load.end()


def test_a_canary_proves_itself_and_is_promoted(
    seldon: Cluster, rollouts: Rollouts, people: SteadyLoad, bundles: dict[str, str]
) -> None:
    old, new = bundles["old"], bundles["new"]
    rollouts.registry.propose(new, old, "a test", "it passed the gate")
    lead(rollouts, "comparing")
    assert weights(seldon) == {"main": 90, "canary": 10}
    before = people.seen()
    seldon.restart("kube-apiserver")
    ended = lead(rollouts, "promoted")
    assert ended.decision.verdict.passed
    assert all(check.measured is not None for check in ended.decision.verdict.checks)
    during = people.seen()
    share = during.answers[new] - before.answers.get(new, 0)
    share /= during.total - before.total
    tell(f"the canary's share with one pod beside one: {share:.2f}; {ended.decision.counts}")
    assert rollouts.wait_until_stable(120) == new
    assert weights(seldon) == {"main": 100}
    assert rollouts.registry.champion().bundle_id == new
    assert_no_failure(people)


def test_a_broken_bundle_is_rolled_back_by_itself(
    seldon: Cluster, rollouts: Rollouts, people: SteadyLoad, bundles: dict[str, str]
) -> None:
    new, broken = bundles["new"], bundles["broken"]
    rollouts.registry.propose(broken, new, "a test", "its gate was fooled")
    ended = lead(rollouts, "rolled back")
    assert "increase of fallbacks is at least" in ended.message
    assert rollouts.wait_until_stable(120) == new
    live = seldon.get("seldondeployment", "refit", NAMESPACE)
    assert [one["name"] for one in live["spec"]["predictors"]] == ["main"]
    assert STATE_ANNOTATION not in live["metadata"].get("annotations", {})
    assert weights(seldon) == {"main": 100}
    assert_no_failure(people)


def test_roll_back_is_one_command(
    seldon: Cluster,
    rollouts: Rollouts,
    people: SteadyLoad,
    bundles: dict[str, str],
    tmp_path: Path,
) -> None:
    settings = {"namespace": NAMESPACE, "registry": REGISTRY, "predictions": PREDICTIONS}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "pipelines.cli", "bundles", "rollback", "--by", "a test"]
    command += ["--reason", "it was better before", "--cluster", str(tmp_path / "cluster.yaml")]
    said = run(command, environment={"KUBECONFIG": str(seldon.kubeconfig)})
    assert said.strip() == f"champion: {bundles['old']}"
    assert rollouts.registry.champion().action == "rollback"
    assert rollouts.reconcile().phase == "idle"
    # Until nobody is answered by the other one any more.
    wait_for("the old bundle alone", lambda: _only(people, bundles["old"]), 60)
    assert_no_failure(people)


def test_what_everybody_saw(people: SteadyLoad, bundles: dict[str, str]) -> None:
    seen = people.seen()
    tell(f"{seen.total} answers, slowest {seen.slowest_ms:.0f} ms: {seen.answers}")
    tell(f"fallbacks: {seen.fallbacks}; failures: {seen.failures}")
    assert set(seen.answers) == set(bundles.values())
    assert not seen.failures
    for healthy in (bundles["old"], bundles["new"]):
        # On a busy machine a new pod's first answers may be late, for a breaker's two seconds.
        assert seen.fallbacks[healthy] <= 0.1 * seen.answers[healthy]


def lead(rollouts: Rollouts, phase: str, seconds: float = 400) -> Progress:
    """Reconcile until a phase is reached."""
    deadline, last = time.monotonic() + seconds, ""
    while True:
        try:
            progress = rollouts.reconcile()
            told = f"{progress.phase}: {progress.message}"
        except RefitError as error:
            progress, told = None, str(error)
        if told != last:
            tell(f"rollout: {told[:300]}")
            last = told
        if progress and progress.phase == phase:
            return progress
        assert time.monotonic() < deadline, f"not {phase} in time: {told}"
        time.sleep(2.0)


def weights(cluster: Cluster) -> dict[str, int]:
    """What the operator wrote for a mesh, once it says so for HTTP and gRPC alike."""

    def agreed() -> dict[str, int]:
        (service,) = cluster.get("virtualservice", namespace=NAMESPACE)["items"]
        routes = [
            {place["destination"]["subset"]: place["weight"] for place in http["route"]}
            for http in service["spec"]["http"]
        ]
        predictors = cluster.get("seldondeployment", "refit", NAMESPACE)["spec"]["predictors"]
        wanted = {one["name"]: one["traffic"] for one in predictors}
        return wanted if all(route == wanted for route in routes) else {}

    return wait_for("the weights", agreed, 60)


def assert_no_failure(people: SteadyLoad) -> None:
    time.sleep(3)  # what went wrong last is told after a moment
    assert people.seen().failures == []


def _is_settled(rollouts: Rollouts) -> bool:
    try:
        return rollouts.wait_until_stable(0) is not None
    except RefitError:
        return False


def _only(people: SteadyLoad, bundle: str) -> bool:
    before = people.seen()
    time.sleep(5)
    after = people.seen()
    grown = {name for name, n in after.answers.items() if n > before.answers.get(name, 0)}
    return grown == {bundle}
