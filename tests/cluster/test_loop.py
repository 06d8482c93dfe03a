"""The loop on a cluster: train, roll out, drift, alert, refit, roll out; with things that break.

Kubeflow Pipelines runs the pipelines, Seldon's operator the recommender, ``refit rollout
reconcile`` leads bundles to it, the monitor is a recurring run. The marketplace and its people
are simulated; its days are the ones before today, so that the monitor's windows are over.
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
from refit.registry import Registry
from serving.client import RecommenderClient
from tests.cluster.commands import CommandFailed, tell, wait_for
from tests.cluster.images import Images
from tests.cluster.kfp.backend import NAMESPACE as KUBEFLOW
from tests.cluster.kfp.backend import Backend
from tests.cluster.kfp.runs import Run, pods_of_runs, ran
from tests.cluster.kubernetes import Cluster, Manifest
from tests.cluster.market import CALM, CHANGED, MARKET, REQUESTS, Market
from tests.cluster.object_store import ObjectStore
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

pytestmark = [pytest.mark.kfp, pytest.mark.timeout(3600)]

LOG_SECONDS = 10.0
"""In which an answer gets into the log: a part is closed after five seconds."""
MONITORING = "/var/refit/monitoring"
ROLLOUT = {
    "split": "replicas",
    "min_requests": 50,
    "error_increase": 0.1,
    "fallback_increase": 0.1,
    "slow_ms": 5000,
    "slow_increase": 0.3,
    "quality_drop": None,
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
    """Everything of Refit installed, with an empty registry; the command."""
    images.serving()
    folder = tmp_path_factory.mktemp("kustomization")
    manifests = refit_manifests(seldon, folder, "kubeflow-steps", patches=patches())
    kfp_backend.cluster.apply([store_secret(object_store.key, object_store.secret, KUBEFLOW)])
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
    """People's way to the recommender: its Service."""
    address = seldon.get("service", "recommender", NAMESPACE)["spec"]["clusterIP"]
    with RecommenderClient(f"http://{address}:9000") as asked:
        yield asked


@pytest.fixture(scope="module")
def people(seldon: Cluster, images: Images, refit: RefitCommand) -> Iterator[SteadyLoad]:
    """A steady load beside the simulated people, by which the arms of a rollout are compared."""
    load = SteadyLoad(seldon, images.base(), 3.0, {"k": 5, "context": {"surface": "home"}})
    yield load
    load.end()


def patches() -> list[Manifest]:
    """What a simulation needs: the people's own time is now, and little proves a rollout."""
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


def test_a_training_that_was_killed_goes_on_and_its_bundle_goes_live(
    cluster: Cluster, refit: RefitCommand, registry: Registry, client: RecommenderClient
) -> None:
    started = refit.read("submit", "--config", CONFIG, "--run-id", "first")
    kill(cluster, wait_for_words(cluster, refit, "first", "train_towers", "epoch 2"))
    wait_for("the run's failure", lambda: state_of(refit, "first") == "FAILED", 120, pause=2)
    ended = refit("retry", "first", "--wait")
    assert ended.returncode == 0, ended.stderr
    assert "resuming after epoch" in refit("logs", "first", "train_towers").stdout
    assert refit.read("status", "first")["run_id"] == started["run_id"]
    bundle = wait_for("the first bundle, live", lambda: served(client), 240, pause=2)
    assert bundle == registry.champion_id()


def test_calm_days_set_nothing_off(
    refit: RefitCommand, cluster: Cluster, client: RecommenderClient, market: Market
) -> None:
    market.live(CALM, client)
    time.sleep(LOG_SECONDS)
    said = refit("submit", *monitoring(market), "--run-id", "calm", "--wait")
    assert said.returncode == 0, said.stderr
    store = alert_store(cluster)
    assert store.refits() == []
    (decision,) = store.decisions()
    assert decision.action is not Action.REFIT


def test_without_the_object_store_people_are_answered_and_no_answer_is_lost(
    client: RecommenderClient, market: Market, object_store: ObjectStore
) -> None:
    with away(object_store, seconds=20):
        market.live(1, client, publish=False)
    market.live(CHANGED - 1, client)
    assert market.answers == (CALM + CHANGED) * REQUESTS
    wait_for("every answer in the log", lambda: logged(object_store) == market.answers, 60, pause=2)


def test_a_monitor_that_dies_before_its_trigger_leaves_the_refit_to_the_next(
    refit: RefitCommand, cluster: Cluster, market: Market
) -> None:
    refit.read("submit", *monitoring(market), "--run-id", "dies")
    pod = wait_for_words(cluster, refit, "dies", "watch_drift", "[monitor] started")
    with frozen(cluster, "apiserver"):
        (due,) = wait_for("the refit's claim", alert_store(cluster).refits, 120)
        kill(cluster, pod)
    assert due.key not in names_of_runs(refit)


def test_recurring_monitors_start_it_once_and_the_new_bundle_goes_live(
    refit: RefitCommand,
    kfp_backend: Backend,
    cluster: Cluster,
    client: RecommenderClient,
    market: Market,
    registry: Registry,
    people: SteadyLoad,
) -> None:
    first = registry.champion_id()
    (due,) = alert_store(cluster).refits()
    schedule = ("schedule", *monitoring(market, recurring=True), "--cron", "*/30 * * * * *")
    assert refit(*schedule).returncode == 0
    refit.read("submit", *monitoring(market), "--run-id", "another")  # beside the recurring one
    wait_for("the refit's run", lambda: due.key in names_of_runs(refit), 300, pause=4)
    wait_for("a recurring look", lambda: recurring_looks(refit) > 0, 400, pause=8)
    end_schedule(refit)
    ended = Run(kfp_backend, refit.read("status", due.key)["run_id"]).wait(900)
    assert ended.state == "SUCCEEDED", refit("status", due.key).stdout
    assert refit("submit", *monitoring(market), "--run-id", "last", "--wait").returncode == 0
    (known,) = alert_store(cluster).refits()
    assert (known.key, known.state) == (due.key, "succeeded")
    assert names_of_runs(refit).count(due.key) == 1

    second = wait_for(
        "the new bundle, live", lambda: served(client, other_than=first), 400, pause=2
    )
    assert second == wait_for("the new champion", lambda: champion_after(registry, first), 240)
    assert f"drift alert {due.alert_id}" in registry.history()[-1].reason
    time.sleep(3)
    seen = people.seen()
    tell(f"{seen.total} answers meanwhile: {seen.answers}; slowest {seen.slowest_ms:.0f} ms")
    assert set(seen.answers) == {first, second}
    assert not seen.failures


def test_the_review_page_tells_it(cluster: Cluster) -> None:
    (due,) = alert_store(cluster).refits()
    service = cluster.get("service", "review", KUBEFLOW)["spec"]
    root = f"http://{service['clusterIP']}:{service['ports'][0]['port']}"
    index = requests.get(root, timeout=10)
    assert due.alert_id in index.text
    page = requests.get(f"{root}/{due.alert_id}.html", timeout=10)
    assert (page.status_code, "input:events.wanted_category" in page.text) == (200, True)
    assert "refit_" in requests.get(f"{root}/metrics", timeout=10).text


def monitoring(market: Market, recurring: bool = False) -> list[str]:
    """The words of a look at the last days; a recurring one finds out which those are."""
    words = ["drift_monitoring", "--config", str(CONFIG), "--windows", "3"]
    return words if recurring else [*words, "--until", market.now.isoformat()]


def state_of(refit: RefitCommand, run: str) -> str:
    """What the API says of a run."""
    return str(refit.read("status", run)["state"])


def names_of_runs(refit: RefitCommand) -> list[str]:
    """Of all runs, as often as there are any."""
    return [run["name"] for run in refit.read("status")]


def recurring_looks(refit: RefitCommand) -> int:
    """Runs of the monitor that its schedule made and that succeeded."""
    runs = refit.read("status")
    return sum(bool(run["schedule_id"]) and run["state"] == "SUCCEEDED" for run in runs)


def wait_for_words(cluster: Cluster, refit: RefitCommand, run: str, step: str, words: str) -> str:
    """Wait until a step has said something; returns its pod."""

    selector = f"pipeline/runid={refit.read('status', run)['run_id']}"

    def find_pod() -> str:
        found = pods_of_runs(cluster, selector)
        return next((pod["metadata"]["name"] for pod in found if ran(pod, step)), "")

    def has_said() -> bool:
        with suppress(CommandFailed):  # its container is not there yet
            return words in cluster.kubectl("logs", pod, "-n", KUBEFLOW, "-c", "main")
        return False

    pod = wait_for(f"the pod of {step} in {run}", find_pod, 300, pause=1)
    wait_for(f"{step} to say {words!r}", has_said, 120, pause=0.5)
    return pod


def kill(cluster: Cluster, pod: str) -> None:
    """End a step's pod as a drained node does; Python does not survive the first signal.

    Argo 3.5.14 is not told of a pod that is removed by force, and looks after 20 minutes only.
    """
    cluster.kubectl("delete", "pod", pod, "-n", KUBEFLOW, "--grace-period=5", "--wait=false")


@contextmanager
def away(store: ObjectStore, seconds: float) -> Iterator[None]:
    """The object store is away for so long, at least."""
    store.take_away()
    until = time.monotonic() + seconds
    try:
        yield
        time.sleep(max(until - time.monotonic(), 0))
    finally:
        store.bring_back()


@contextmanager
def frozen(cluster: Cluster, program: str) -> Iterator[None]:
    """A program of the cluster does not move: it takes connections and answers nothing."""
    cluster.node.run("pkill", "-STOP", "-x", program)
    try:
        yield
    finally:
        cluster.node.run("pkill", "-CONT", "-x", program)


def alert_store(cluster: Cluster) -> SqlStore:
    """The monitor's store, on its volume; only once the monitor has made it."""
    volume = cluster.get("pvc", "refit-monitoring", KUBEFLOW)["spec"]["volumeName"]
    place = cluster.get("pv", volume)["spec"]["hostPath"]["path"]
    file = Path(place) / "alerts.sqlite"
    assert file.exists(), "the monitor has not run"
    return SqlStore(file)


def served(client: RecommenderClient, other_than: str = "") -> str:
    """The bundle that answers; "" when there is no answer, or it is that one."""
    with suppress(ServiceUnreachable):
        bundle = str(client.recommend(context={"surface": "home"}, k=1)["bundle_id"])
        return "" if bundle == other_than else bundle
    return ""


def champion_after(registry: Registry, former: str) -> str:
    """The champion, once it is another one."""
    champion = registry.champion_id()
    return "" if champion == former else champion


def logged(store: ObjectStore) -> int:
    """Answers of the simulated days in the prediction log."""
    files, until = store.files(), datetime.now(UTC).date()
    parts = files.glob(f"{PREDICTIONS.removeprefix('s3://')}/**/*.parquet")
    lived = [part for part in parts if f"date={until}" not in part]
    return int(ds.dataset(lived, filesystem=files).count_rows()) if lived else 0


def end_schedule(refit: RefitCommand) -> None:
    """End the monitor's schedule, and what is left of it after its last run."""

    def is_gone() -> bool:
        refit("schedule", "--remove", "drift_monitoring")
        return "drift_monitoring" not in refit("schedule", "--list").stdout

    wait_for("the schedule's end", is_gone, 180, pause=3)
