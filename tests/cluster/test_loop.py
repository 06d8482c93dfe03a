"""The loop on a cluster, with injected faults: train, roll out, drift, alert, refit, roll out.

Kubeflow Pipelines runs the pipelines, Seldon's operator runs the recommender, ``refit rollout
reconcile`` rolls bundles out, and the monitor is a recurring run. The marketplace and its shoppers
are simulated on the days before today, so that the monitor's windows are complete.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.dataset as ds
import pytest
import requests

from monitoring.store import SqlStore
from refit.alert import Action
from refit.errors import ServiceUnreachable
from refit.log_parts import LogParts
from refit.registry import Registry
from serving.client import RecommenderClient
from tests.cluster.alert_store import TOKEN, review_secret
from tests.cluster.market import (
    CHANGED_DAYS,
    MARKET,
    REQUESTS_PER_DAY,
    STABLE_DAYS,
    Market,
)
from tests.cluster.recommender import (
    NAMESPACE,
    PREDICTIONS,
    REGISTRY,
    SteadyLoad,
    install_recommender,
    refit_manifests,
)
from tests.cluster.refit_command import (
    CHECKPOINTS,
    CHECKPOINTS_CLAIM,
    CONFIG,
    RefitCommand,
    store_secret,
)
from tests.machine.commands import CommandError, report, wait_for
from tests.machine.images import Images
from tests.machine.kfp.backend import NAMESPACE as KUBEFLOW
from tests.machine.kfp.backend import Backend
from tests.machine.kfp.runs import PipelineRun, pods_of_runs, ran_step
from tests.machine.kubernetes import Cluster, Manifest
from tests.machine.object_store import ObjectStore

pytestmark = [pytest.mark.kfp, pytest.mark.timeout(3600)]

LOG_SECONDS = 10.0
"""Time until an answer is in the prediction log: a part is closed after five seconds."""
MONITORING = "/var/refit/monitoring"
ROLLOUT = {
    "split": "replicas",
    "min_requests": 50,
    "error_increase": 0.1,
    "fallback_increase": 0.1,
    "slow_ms": 5000,
    "slow_increase": 0.3,
    "min_days": 0,
    "click_tolerance": None,
    "purchase_tolerance": None,
    "poll_seconds": 2,
    "deadline_hours": 0.25,
}


@pytest.fixture(scope="module")
def refit(
    kfp_backend: Backend,
    seldon: Cluster,
    images: Images,
    object_store: ObjectStore,
    market: Market,
    tmp_path_factory: pytest.TempPathFactory,
) -> RefitCommand:
    """The ``refit`` command, with all of Refit installed and an empty registry."""
    images.serving()
    folder = tmp_path_factory.mktemp("kustomization")
    manifests = refit_manifests(seldon, folder, "kubeflow-steps", patches=patches())
    secret = store_secret(object_store.key, object_store.secret, KUBEFLOW)
    kfp_backend.cluster.apply([secret, review_secret(KUBEFLOW)])
    command = RefitCommand(
        kfp_backend,
        folder,
        images.main(),
        object_store.endpoint,
        registry=REGISTRY,
        predictions=PREDICTIONS,
        outcomes=f"{MARKET}/events.parquet",
        items=f"{MARKET}/items.parquet",
        monitoring=MONITORING,
        checkpoints=CHECKPOINTS,
        volumes=[
            {"claim": "refit-monitoring", "path": MONITORING, "steps": ["watch_drift"]},
            {"claim": CHECKPOINTS_CLAIM, "path": CHECKPOINTS, "steps": ["train_towers"]},
        ],
        service_accounts={
            "continuous_training": "refit-pipeline",
            "index_refresh": "refit-pipeline",
            "drift_monitoring": "refit-monitor",
        },
    )
    install_recommender(seldon, object_store, manifests)
    return command


@pytest.fixture(scope="module")
def client(seldon: Cluster, refit: RefitCommand) -> Iterator[RecommenderClient]:
    """A client of the recommender's Service."""
    address = seldon.get("service", "recommender", NAMESPACE)["spec"]["clusterIP"]
    with RecommenderClient(f"http://{address}:9000") as connected:
        yield connected


@pytest.fixture(scope="module")
def load(seldon: Cluster, images: Images, refit: RefitCommand) -> Iterator[SteadyLoad]:
    """A steady load in addition to the simulated shoppers, for the comparison of a rollout."""
    running = SteadyLoad(seldon, images.base(), 3.0, {"k": 5, "context": {"surface": "home"}})
    yield running
    running.stop()


def patches() -> list[Manifest]:
    """Patches for a simulation: requests carry their own time, rollouts need few requests."""
    replay = {"name": "allow_replay", "type": "BOOL", "value": "true"}
    add = {"op": "add", "path": "/spec/predictors/0/graph/parameters/-", "value": replay}
    settings = {
        "namespace": NAMESPACE,
        "registry": REGISTRY,
        "predictions": PREDICTIONS,
        "rollout": ROLLOUT,
    }
    text = {"op": "replace", "path": "/data/cluster.yaml", "value": json.dumps(settings)}
    return [
        {"target": {"kind": "SeldonDeployment"}, "patch": json.dumps([add])},
        {"target": {"name": "refit-cluster"}, "patch": json.dumps([text])},
    ]


def test_a_killed_training_resumes_and_its_bundle_goes_live(
    cluster: Cluster, refit: RefitCommand, registry: Registry, client: RecommenderClient
) -> None:
    started = refit.read("submit", "--config", CONFIG, "--run-id", "first", "--first-model")
    kill(cluster, wait_for_log(cluster, refit, "first", "train_towers", "epoch 2"))
    wait_for("the run's failure", lambda: state_of(refit, "first") == "FAILED", 120, pause=2)
    retried = refit("retry", "first", "--wait")
    assert retried.returncode == 0, retried.stderr
    assert "resuming after epoch" in refit("logs", "first", "train_towers").stdout
    assert refit.read("status", "first")["run_id"] == started["run_id"]
    bundle = wait_for("the first bundle to be served", lambda: served(client), 240, pause=2)
    assert bundle == registry.champion_id()


def test_stable_days_start_no_refit(
    refit: RefitCommand, cluster: Cluster, client: RecommenderClient, market: Market
) -> None:
    market.simulate(STABLE_DAYS, client)
    time.sleep(LOG_SECONDS)
    completed = refit("submit", *monitoring(market), "--run-id", "stable", "--wait")
    assert completed.returncode == 0, completed.stderr
    store = alert_store(cluster)
    assert store.refits() == []
    (decision,) = store.decisions()
    assert decision.action is not Action.REFIT


def test_without_the_object_store_requests_are_answered_and_no_answer_is_lost(
    client: RecommenderClient, market: Market, object_store: ObjectStore
) -> None:
    with stopped(object_store, seconds=20):
        market.simulate(1, client, publish=False)
    market.simulate(CHANGED_DAYS - 1, client)
    assert market.answers == (STABLE_DAYS + CHANGED_DAYS) * REQUESTS_PER_DAY
    wait_for("every answer in the log", lambda: logged(object_store) == market.answers, 60, pause=2)


def test_a_monitor_killed_before_it_starts_the_refit_leaves_it_to_the_next_monitor(
    refit: RefitCommand, cluster: Cluster, market: Market
) -> None:
    refit.read("submit", *monitoring(market), "--run-id", "killed")
    pod = wait_for_log(cluster, refit, "killed", "watch_drift", "[monitor] started")
    with suspended(cluster, "apiserver"):
        (due,) = wait_for("the refit's claim", alert_store(cluster).refits, 120)
        kill(cluster, pod)
    assert due.key not in names_of_runs(refit)


def test_recurring_monitors_start_the_refit_once_and_the_new_bundle_goes_live(
    refit: RefitCommand,
    kfp_backend: Backend,
    cluster: Cluster,
    client: RecommenderClient,
    market: Market,
    registry: Registry,
    load: SteadyLoad,
) -> None:
    first = registry.champion_id()
    (due,) = alert_store(cluster).refits()
    schedule = ("schedule", *monitoring(market, recurring=True), "--cron", "*/30 * * * * *")
    assert refit(*schedule).returncode == 0
    refit.read("submit", *monitoring(market), "--run-id", "another")  # beside the recurring one
    wait_for("the refit's run", lambda: due.key in names_of_runs(refit), 300, pause=4)
    wait_for("a recurring run", lambda: succeeded_recurring_runs(refit) > 0, 400, pause=8)
    remove_schedule(refit)
    run = PipelineRun(kfp_backend, refit.read("status", due.key)["run_id"]).wait(900)
    assert run.state == "SUCCEEDED", refit("status", due.key).stdout
    assert refit("submit", *monitoring(market), "--run-id", "last", "--wait").returncode == 0
    (recorded,) = alert_store(cluster).refits()
    assert (recorded.key, recorded.state) == (due.key, "succeeded")
    assert names_of_runs(refit).count(due.key) == 1

    second = wait_for(
        "the new bundle to be served", lambda: served(client, other_than=first), 400, pause=2
    )
    assert second == wait_for("the new champion", lambda: champion_after(registry, first), 240)
    assert f"drift alert {due.alert_id}" in registry.history()[-1].reason
    time.sleep(3)
    results = load.read()
    report(f"{results.total} answers: {results.answers}; slowest {results.slowest_ms:.0f} ms")
    assert set(results.answers) == {first, second}
    assert not results.failures


def test_the_review_page_shows_the_alert(cluster: Cluster) -> None:
    (due,) = alert_store(cluster).refits()
    service = cluster.get("service", "review", KUBEFLOW)["spec"]
    root = f"http://{service['clusterIP']}:{service['ports'][0]['port']}"
    assert requests.get(root, timeout=10).status_code == 401
    signed_in = {"Authorization": f"Bearer {TOKEN}"}
    index = requests.get(root, headers=signed_in, timeout=10)
    assert due.alert_id in index.text
    page = requests.get(f"{root}/alerts/{due.alert_id}", headers=signed_in, timeout=10)
    assert (page.status_code, "input:events.wanted_category" in page.text) == (200, True)
    assert "refit_" in requests.get(f"{root}/metrics", timeout=10).text


def monitoring(market: Market, recurring: bool = False) -> list[str]:
    """Arguments of a monitoring run over the last days; a recurring run determines the days."""
    arguments = ["drift_monitoring", "--config", str(CONFIG), "--windows", "3"]
    return arguments if recurring else [*arguments, "--until", market.now.isoformat()]


def state_of(refit: RefitCommand, run: str) -> str:
    """A run's state as reported by the API."""
    return str(refit.read("status", run)["state"])


def names_of_runs(refit: RefitCommand) -> list[str]:
    """The names of all runs; they need not be unique."""
    return [run["name"] for run in refit.read("status")]


def succeeded_recurring_runs(refit: RefitCommand) -> int:
    """The number of runs that a schedule started and that succeeded."""
    runs = refit.read("status")
    return sum(bool(run["schedule_id"]) and run["state"] == "SUCCEEDED" for run in runs)


def wait_for_log(cluster: Cluster, refit: RefitCommand, run: str, step: str, text: str) -> str:
    """Wait until a step has logged a text; return the name of its pod."""

    selector = f"pipeline/runid={refit.read('status', run)['run_id']}"

    def find_pod() -> str:
        pods = pods_of_runs(cluster, selector)
        return next((pod["metadata"]["name"] for pod in pods if ran_step(pod, step)), "")

    def has_logged() -> bool:
        with suppress(CommandError):  # its container does not exist yet
            return text in cluster.kubectl("logs", pod, "-n", KUBEFLOW, "-c", "main")
        return False

    pod = wait_for(f"the pod of {step} in {run}", find_pod, 300, pause=1)
    wait_for(f"{text!r} in the log of {step}", has_logged, 120, pause=0.5)
    return pod


def kill(cluster: Cluster, pod: str) -> None:
    """Delete a step's pod as draining a node does; Python ends at the first signal.

    With ``--force`` Argo 3.5.14 would notice the deletion only after 20 minutes.
    """
    cluster.kubectl("delete", "pod", pod, "-n", KUBEFLOW, "--grace-period=5", "--wait=false")


@contextmanager
def stopped(store: ObjectStore, seconds: float) -> Iterator[None]:
    """Stop the object store for the block, and for at least so many seconds."""
    store.stop()
    until = time.monotonic() + seconds
    try:
        yield
        time.sleep(max(until - time.monotonic(), 0))
    finally:
        store.start()


@contextmanager
def suspended(cluster: Cluster, program: str) -> Iterator[None]:
    """Suspend a program of the cluster: it accepts connections but does not respond."""
    cluster.node.run("pkill", "-STOP", "-x", program)
    try:
        yield
    finally:
        cluster.node.run("pkill", "-CONT", "-x", program)


def alert_store(cluster: Cluster) -> SqlStore:
    """The monitor's store on its volume, which exists after the monitor's first run."""
    volume = cluster.get("pvc", "refit-monitoring", KUBEFLOW)["spec"]["volumeName"]
    folder = cluster.get("pv", volume)["spec"]["hostPath"]["path"]
    file = Path(folder) / "alerts.sqlite"
    assert file.exists(), "the monitor has not run"
    return SqlStore(file)


def served(client: RecommenderClient, other_than: str = "") -> str:
    """Id of the bundle that is served; "" without an answer, or if it equals ``other_than``."""
    with suppress(ServiceUnreachable):
        bundle = str(client.recommend(context={"surface": "home"}, k=1)["bundle_id"])
        return "" if bundle == other_than else bundle
    return ""


def champion_after(registry: Registry, previous: str) -> str:
    """Id of the champion; "" while it is still the previous one."""
    champion = registry.champion_id()
    return "" if champion == previous else champion


def logged(store: ObjectStore) -> int:
    """Number of answers of the simulated days in the prediction log."""
    files, today = store.files(), datetime.now(UTC).date()
    parts = LogParts(PREDICTIONS, files, PREDICTIONS.removeprefix("s3://")).find()
    simulated = [part for part in parts if f"date={today}" not in part]
    return int(ds.dataset(simulated, filesystem=files).count_rows()) if simulated else 0


def remove_schedule(refit: RefitCommand) -> None:
    """Remove the monitor's schedule, which is possible when its last run is over."""

    def is_removed() -> bool:
        refit("schedule", "--remove", "drift_monitoring")
        return "drift_monitoring" not in refit("schedule", "--list").stdout

    wait_for("the schedule's removal", is_removed, 180, pause=3)
