"""Rollouts on a cluster with the real API server, Seldon's operator, recommenders and S3 store."""

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
from components.deployment.rollout import RolloutProgress, Rollouts
from components.deployment.settings import RolloutSettings
from refit.errors import RefitError
from refit.registry import Registry
from tests.cluster.recommender import (
    NAMESPACE,
    PREDICTIONS,
    REGISTRY,
    SteadyLoad,
    deployer,
    install_recommender,
    recommender_manifests,
)
from tests.machine.commands import report, run, wait_for
from tests.machine.images import Images
from tests.machine.kubernetes import Cluster
from tests.machine.object_store import ObjectStore
from tests.serving import tiny

pytestmark = pytest.mark.cluster

SETTINGS = RolloutSettings(
    split="replicas",
    min_requests=100,
    error_increase=0.05,
    fallback_increase=0.05,
    slow_ms=2000,
    slow_increase=0.3,
    min_users=2,
    min_days=0,
    click_tolerance=0.5,
    purchase_tolerance=None,
    outcome_minutes=0,
    deadline_hours=0.25,
)
RATE = 10.0
OUTCOMES = "s3://refit/outcomes.parquet"
REQUEST = {"k": 5, "context": {"occasion": "party"}}


@pytest.fixture(scope="module")
def bundles(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ids of three bundles; ``broken`` works for warm-up requests, but fails for parties."""
    root = tmp_path_factory.mktemp("bundles")
    models = {
        "old": tiny.make_model(root / "old", 0),
        "new": tiny.make_model(root / "new", 1),
        "broken": tiny.make_model(root / "broken", 2, nan_at="party"),
    }
    return {name: registry.add(tiny.make_bundle(root, model)) for name, model in models.items()}


@pytest.fixture(scope="module")
def outcomes(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Events for every third answer, regardless of the predictor."""
    later = datetime.now(UTC) + timedelta(hours=1)  # after all answers of this module
    rows = [
        {"request_id": f"load-{n}", "event_type": "view", "event_time": later}
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
    """Rollouts with the deployer's account, on an installed recommender that serves ``old``."""
    images.serving()
    registry.promote(bundles["old"], "a test", "the first bundle")
    folder = tmp_path_factory.mktemp("kustomization")
    install_recommender(seldon, object_store, recommender_manifests(seldon, folder))
    cluster = SeldonCluster(NAMESPACE, "refit", client=deployer(seldon), reads_pods=True)
    running = Rollouts(SETTINGS, cluster, registry, PREDICTIONS, outcomes)
    wait_for("the recommender", lambda: _is_stable(running), 240)
    return running


@pytest.fixture(scope="module")
def load(seldon: Cluster, images: Images, rollouts: Rollouts) -> Iterator[SteadyLoad]:
    """A steady load on the plain Service during all tests of this module."""
    running = SteadyLoad(seldon, images.base(), RATE, REQUEST)
    yield running
    running.stop()


def test_a_good_canary_is_promoted(
    seldon: Cluster, rollouts: Rollouts, load: SteadyLoad, bundles: dict[str, str]
) -> None:
    old, new = bundles["old"], bundles["new"]
    rollouts.registry.propose(new, old, "a test", "it passed the gate")
    reconcile_until(rollouts, "comparing")
    assert weights(seldon) == {"main": 90, "canary": 10}
    before = load.read()
    seldon.restart("kube-apiserver")
    progress = reconcile_until(rollouts, "promoted")
    assert progress.decision.verdict.passed
    assert all(check.measured is not None for check in progress.decision.verdict.checks)
    during = load.read()
    share = during.answers[new] - before.answers.get(new, 0)
    share /= during.total - before.total
    report(f"the canary's share with one of two pods: {share:.2f}; {progress.decision.counts}")
    assert rollouts.wait_until_stable(120) == new
    assert weights(seldon) == {"main": 100}
    assert rollouts.registry.champion().bundle_id == new
    assert_no_failure(load)


def test_a_broken_bundle_is_rolled_back_automatically(
    seldon: Cluster, rollouts: Rollouts, load: SteadyLoad, bundles: dict[str, str]
) -> None:
    new, broken = bundles["new"], bundles["broken"]
    rollouts.registry.propose(broken, new, "a test", "its gate did not notice")
    progress = reconcile_until(rollouts, "rolled back")
    assert "increase in fallbacks is at least" in progress.message
    assert rollouts.wait_until_stable(120) == new
    live = seldon.get("seldondeployment", "refit", NAMESPACE)
    assert [one["name"] for one in live["spec"]["predictors"]] == ["main"]
    assert STATE_ANNOTATION not in live["metadata"].get("annotations", {})
    assert weights(seldon) == {"main": 100}
    assert_no_failure(load)


def test_a_roll_back_is_one_command(
    seldon: Cluster,
    rollouts: Rollouts,
    load: SteadyLoad,
    bundles: dict[str, str],
    tmp_path: Path,
) -> None:
    settings = {"namespace": NAMESPACE, "registry": REGISTRY, "predictions": PREDICTIONS}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "pipelines.cli", "bundles", "rollback", "--by", "a test"]
    command += ["--reason", "it was better before", "--cluster", str(tmp_path / "cluster.yaml")]
    output = run(command, environment={"KUBECONFIG": str(seldon.kubeconfig)})
    assert output.strip() == f"champion: {bundles['old']}"
    assert rollouts.registry.champion().action == "rollback"
    assert rollouts.reconcile().phase == "idle"
    wait_for("answers of the old bundle only", lambda: _answers_only(load, bundles["old"]), 60)
    assert_no_failure(load)


def test_no_request_failed(load: SteadyLoad, bundles: dict[str, str]) -> None:
    results = load.read()
    report(f"{results.total} answers, slowest {results.slowest_ms:.0f} ms: {results.answers}")
    report(f"fallbacks: {results.fallbacks}; failures: {results.failures}")
    assert set(results.answers) == set(bundles.values())
    assert not results.failures
    for healthy in (bundles["old"], bundles["new"]):
        # On a busy host a new pod's first answers may be slow, which opens the breaker for 2 s.
        assert results.fallbacks[healthy] <= 0.1 * results.answers[healthy]


def reconcile_until(rollouts: Rollouts, phase: str, seconds: float = 400) -> RolloutProgress:
    """Reconcile until a phase is reached."""
    deadline, last = time.monotonic() + seconds, ""
    while True:
        try:
            progress = rollouts.reconcile()
            message = f"{progress.phase}: {progress.message}"
        except RefitError as error:
            progress, message = None, str(error)
        if message != last:
            report(f"rollout: {message[:300]}")
            last = message
        if progress and progress.phase == phase:
            return progress
        assert time.monotonic() < deadline, f"timed out: not {phase}: {message}"
        time.sleep(2.0)


def weights(cluster: Cluster) -> dict[str, int]:
    """The weights in the operator's VirtualService, once they equal the predictors' weights."""

    def agreed() -> dict[str, int]:
        (service,) = cluster.get("virtualservice", namespace=NAMESPACE)["items"]
        routes = [
            {place["destination"]["subset"]: place["weight"] for place in http["route"]}
            for http in service["spec"]["http"]
        ]
        predictors = cluster.get("seldondeployment", "refit", NAMESPACE)["spec"]["predictors"]
        expected = {one["name"]: one["traffic"] for one in predictors}
        return expected if all(route == expected for route in routes) else {}

    return wait_for("the weights", agreed, 60)


def assert_no_failure(load: SteadyLoad) -> None:
    time.sleep(3)  # results are reported once a second
    assert load.read().failures == []


def _is_stable(rollouts: Rollouts) -> bool:
    try:
        return rollouts.wait_until_stable(0) is not None
    except RefitError:
        return False


def _answers_only(load: SteadyLoad, bundle: str) -> bool:
    before = load.read()
    time.sleep(5)
    after = load.read()
    active = {name for name, n in after.answers.items() if n > before.answers.get(name, 0)}
    return active == {bundle}
