"""Feeds on a cluster: what goes through Kafka reaches every pod's answers, and training.

The broker is the real one, beside the cluster; the recommenders are those of ``overlays/plain``.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from refit.registry import Registry
from serving.client import RecommenderClient
from tests.cluster.recommender import (
    SMALL,
    build_manifests,
    install_recommender,
    patch,
    without_main_image,
)
from tests.kafka.broker import Broker
from tests.machine.commands import report
from tests.machine.images import Images
from tests.machine.kubernetes import Cluster
from tests.machine.object_store import ObjectStore
from tests.serving import tiny

pytestmark = pytest.mark.cluster

SPACE = "feeds-tests"
REGISTRY = "s3://refit/feeds/registry"
PREDICTIONS = "s3://refit/feeds/predictions"
LANDED = f"s3://refit/feeds/activity-{time.time_ns()}"
"""Anew for each broker, whose positions are kept there."""
PODS, SALES, VIEWS = 2, 60, 20
GOAL_SECONDS, BROKEN_SECONDS = 1.0, 10.0
"""What is aimed at, which a busy host may miss, and what is no longer slow but broken."""
WAIT_SECONDS = 30.0
PAUSE = 0.005


class Topic:
    """Writes lines to a topic of the broker.

    Args:
        broker: The broker.
        name: The topic, which is made.
        key: The field of a line that is the message's key.
    """

    def __init__(self, broker: Broker, name: str, key: str) -> None:
        self.address = broker.make_topic(name, 3)
        self._name, self._key, self._producer = name, key, broker.producer()

    def write(self, **line: Any) -> float:
        """Write one line; return when the broker had acknowledged it."""
        self._producer.produce(self._name, json.dumps(line), line[self._key])
        assert self._producer.flush(WAIT_SECONDS) == 0
        return time.monotonic()

    def sell(self, item_id: str) -> float:
        """Write a sale."""
        return self.write(item_id=item_id, change="sold", at=now())

    def view(self, user_id: str, item_id: str) -> float:
        """Write a view."""
        return self.write(user_id=user_id, item_id=item_id, event_type="view", event_time=now())


class Pod:
    """One recommender, which is asked directly.

    Args:
        address: Its own address, not that of a Service.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = RecommenderClient(f"http://{address}:9000")

    def on_sale(self) -> set[str]:
        """Every item that it shows."""
        return {item["item_id"] for item in self._client.recommend(k=500)["items"]}

    def ranking(self, user_id: str) -> list[tuple[str, float]]:
        """What it shows a person, with scores."""
        items = self._client.recommend(user_id=user_id, k=10)["items"]
        return [(item["item_id"], item["score"]) for item in items]

    def first(self, is_there: Callable[["Pod"], bool]) -> float:
        """Ask until a condition holds; return when the answer that shows it had come."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_there(self):
            assert time.monotonic() < deadline, f"{self.address} does not know it yet"
            time.sleep(PAUSE)
        return time.monotonic()


@pytest.fixture(scope="module")
def broker(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker on this host, at the address by which the cluster's pods reach it."""
    started = Broker(tmp_path_factory.mktemp("kafka"), host=cluster.settings.host_ip)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def stock(broker: Broker) -> Topic:
    return Topic(broker, "stock", "item_id")


@pytest.fixture(scope="module")
def activity(broker: Broker) -> Topic:
    return Topic(broker, "activity", "user_id")


@pytest.fixture(scope="module")
def champion(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The champion's id; its query tower reads the running visit, so that a view counts at once."""
    root = tmp_path_factory.mktemp("bundle")
    spec = tiny.SPEC.model_copy(update={"history_within_visit": True})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tiny, "FEATURES", tiny.FEATURES.model_copy(update={"spec": spec}))
        bundle = registry.add(tiny.make_bundle(root, tiny.make_model(root / "model", 0)))
    registry.promote(bundle, "a test", "the only bundle")
    return bundle


@pytest.fixture(scope="module")
def pods(
    cluster: Cluster,
    images: Images,
    object_store: ObjectStore,
    champion: str,
    stock: Topic,
    activity: Topic,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[Pod]]:
    """Two ready recommenders that follow both topics."""
    images.serving_plain()
    requests = {f"/spec/template/spec/containers/{n}/resources/requests": SMALL for n in (0, 1)}
    feeds = {
        "/data/REFIT_STOCK_FEED": stock.address,
        "/data/REFIT_ACTIVITY_FEED": activity.address,
        "/data/REFIT_ACTIVITY_TABLES": LANDED,
    }
    urls = {"/data/REFIT_REGISTRY": REGISTRY, "/data/REFIT_PREDICTIONS": PREDICTIONS}
    manifests = build_manifests(
        cluster,
        tmp_path_factory.mktemp("kustomization"),
        "overlays/plain",
        ["model-server-stand-in"],
        namespace=SPACE,
        patches=[
            patch("Deployment", "recommender", {**requests, "/spec/replicas": PODS}),
            patch("ConfigMap", "refit-feeds", feeds),
            patch("ConfigMap", "refit-config", urls),
            patch("CronJob", "landing", {"/spec/suspend": True}),  # tests start it themselves
        ],
    )
    install_recommender(cluster, object_store, without_main_image(manifests), SPACE)
    cluster.wait_for_rollout("deployment/recommender", SPACE, 300)
    selector = ("-l", "app.kubernetes.io/name=recommender")
    found = cluster.kubectl("get", "pods", *selector, "-n", SPACE, "-o", "json")
    addresses = [one["status"]["podIP"] for one in json.loads(found)["items"]]
    assert len(set(addresses)) == PODS
    yield [Pod(address) for address in addresses]
    cluster.kubectl("delete", "namespace", SPACE, "--wait=false")


def test_a_sale_is_gone_from_every_pod(pods: list[Pod], stock: Topic) -> None:
    """Time: from the broker's acknowledgement to the first answer without the item, by pod."""
    sold = [tiny.item_id(row) for row in range(SALES)]
    assert all(set(sold) <= pod.on_sale() for pod in pods)
    seconds = []
    with ThreadPoolExecutor(PODS) as pool:
        for item in sold:
            asked = [
                pool.submit(pod.first, lambda pod, i=item: i not in pod.on_sale()) for pod in pods
            ]
            acknowledged = stock.sell(item)
            seconds += [one.result() - acknowledged for one in asked]
    describe(f"a sale through Kafka, {SALES} sales and {PODS} pods: gone", seconds)
    left = tiny.LIVE - set(sold)
    assert all(pod.on_sale() == left for pod in pods)
    assert max(seconds) < BROKEN_SECONDS


def test_a_view_changes_the_next_answer_of_every_pod(pods: list[Pod], activity: Topic) -> None:
    seconds = []
    with ThreadPoolExecutor(PODS) as pool:
        for person in range(VIEWS):
            user, item = viewed(person)
            before = [pod.ranking(user) for pod in pods]
            assert before == [pod.ranking(user) for pod in pods], "it changes without a view, too"
            asked = [
                pool.submit(pod.first, lambda pod, u=user, b=old: pod.ranking(u) != b)
                for pod, old in zip(pods, before, strict=True)
            ]
            acknowledged = activity.view(user, item)
            seconds += [one.result() - acknowledged for one in asked]
            shown = [[item for item, _ in pod.ranking(user)] for pod in pods]
            assert shown == shown[:1] * PODS
    describe(f"a view through Kafka, {VIEWS} views and {PODS} pods: the answer changes", seconds)
    assert max(seconds) < BROKEN_SECONDS


def test_activity_lands_where_ingestion_reads(
    cluster: Cluster, object_store: ObjectStore, pods: list[Pod], activity: Topic
) -> None:
    """Each run of the landing writes what came since the last, and nothing else."""
    activity.view("lander", "item-100")
    run_landing(cluster, "landing-1")
    first = landed(object_store)
    assert {*map(viewed, range(VIEWS)), ("lander", "item-100")} <= set(first)
    assert len(first) == len(set(first))
    activity.view("lander", "item-101")
    run_landing(cluster, "landing-2")
    assert sorted(landed(object_store)) == sorted([*first, ("lander", "item-101")])


def run_landing(cluster: Cluster, name: str) -> None:
    cluster.kubectl("create", "job", name, "--from=cronjob/landing", "-n", SPACE)
    cluster.wait(f"job/{name}", "condition=Complete", SPACE, 180)


def landed(store: ObjectStore) -> list[tuple[str, str]]:
    """Person and item of every event that has landed."""
    files = store.files()
    rows = []
    for part in files.glob(f"{LANDED.removeprefix('s3://')}/events/*.parquet"):
        with files.open(part) as file:
            rows += pq.read_table(file).to_pylist()
    assert {row["event_type"] for row in rows} == {"view"}
    return [(row["user_id"], row["item_id"]) for row in rows]


def viewed(person: int) -> tuple[str, str]:
    """A person that no bundle knows, and an item that is still on sale."""
    return f"person-{person}", tiny.item_id(SALES + person)


def describe(what: str, seconds: list[float]) -> None:
    p50, most = np.percentile(seconds, [50, 100])
    within = sum(one <= GOAL_SECONDS for one in seconds)
    report(
        f"{what} after {p50:.3f} s (p50), at most {most:.3f} s; {within} of {len(seconds)} within "
        f"{GOAL_SECONDS:.0f} s"
    )


def now() -> str:
    return datetime.now(UTC).isoformat()
