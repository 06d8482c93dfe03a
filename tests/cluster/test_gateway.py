"""A canary's share of the traffic, seen through a Gateway: Traefik splits by the routes' weights.

The routes, Services and pods are those of ``overlays/kserve`` with ``components/kserve-canary``.
KServe itself is not there: a Deployment for each InferenceService stands in for its controller.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import cast

import pytest
from scipy.stats import binom

from components.deployment.cluster import SeldonCluster
from components.deployment.manifests import CANARY, MAIN
from refit.errors import RefitError
from refit.registry import Registry
from serving.client import GrpcRecommenderClient, RecommenderClient
from serving.request import Request
from tests.cluster.recommender import (
    SMALL,
    build_manifests,
    install_recommender,
    patch,
    without_main_image,
)
from tests.kustomize.pods import pod_specs
from tests.machine.commands import report, wait_for
from tests.machine.images import Images
from tests.machine.kubernetes import Cluster, Manifest
from tests.machine.object_store import ObjectStore
from tests.machine.traefik import Gateway, install_gateway
from tests.serving import tiny

pytestmark = pytest.mark.gateway

SPACE = "gateway-tests"
REGISTRY = "s3://refit/gateway/registry"
PREDICTIONS = "s3://refit/gateway/predictions"
OF_KSERVE = "InferenceService"
SERVED_BY = "serving.kserve.io/inferenceservice"
REQUESTS, OVER_GRPC = 2000, 1000
CLIENTS = 8
EVERY_PREDICTOR = 20
"""Requests in a row of which each predictor gets one, dealt out by the weights."""
CONFIDENCE = 0.9999
"""Of the interval for the canary's share, if each request were drawn by the weights."""

Ask = Callable[[], str]


class Recommenders:
    """The recommenders of the overlay, and the bundles that its two predictors serve.

    Args:
        cluster: The cluster.
        store: Its object store.
        folder: An empty folder for kustomizations.
        bundles: Ids of the bundles, by predictor.
    """

    def __init__(
        self, cluster: Cluster, store: ObjectStore, folder: Path, bundles: Mapping[str, str]
    ) -> None:
        self.bundles = bundles
        self._cluster, self._store, self._folder = cluster, store, folder
        self._numbers = count()
        self._routes = SeldonCluster(SPACE, "refit", client=cluster.client())

    def apply(self, main: str, canary: str = "") -> None:
        """Apply the overlay with bundles for its predictors, and wait until their pods are ready.

        Without a canary it is the overlay alone, and what is left of the canary is deleted.
        """
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        containers = {f"/spec/predictor/containers/{n}/resources/requests": SMALL for n in (0, 1)}
        one_pod = {**containers, "/spec/predictor/minReplicas": 1}
        bundle = "/spec/predictor/annotations/refit~1bundle-id"
        urls = {"/data/REFIT_REGISTRY": REGISTRY, "/data/REFIT_PREDICTIONS": PREDICTIONS}
        patches = [
            patch(OF_KSERVE, "refit", {**containers, bundle: main}),
            patch("ConfigMap", "refit-config", urls),
        ]
        if canary:
            patches.append(patch(OF_KSERVE, "refit-canary", {**one_pod, bundle: canary}))
        names = ["model-server-stand-in", *(["kserve-canary"] if canary else [])]
        manifests = build_manifests(
            self._cluster, folder, "overlays/kserve", names, namespace=SPACE, patches=patches
        )
        served = [one for one in manifests if one["kind"] == OF_KSERVE]
        others = [one for one in without_main_image(manifests) if one["kind"] != OF_KSERVE]
        deployments = [as_deployment(one) for one in served]
        install_recommender(self._cluster, self._store, [*others, *deployments], SPACE)
        for one in deployments:
            name = one["metadata"]["name"]
            self._cluster.wait_for_rollout(f"deployment/{name}", SPACE, 300)
        if not canary:
            gone = ("deployment/refit-canary-predictor", "service/refit-canary")
            self._cluster.kubectl("delete", *gone, "-n", SPACE, "--ignore-not-found")

    def split(self, weights: Mapping[str, int]) -> None:
        """Change the routes' weights, with the code with which a rollout does."""
        self._routes.split(weights)

    def wait_for_split(self, ask: Ask, weights: Mapping[str, int]) -> None:
        """Wait until the Gateway asks the predictors that have a weight, and no other."""
        expected = {self.bundles[name] for name, weight in weights.items() if weight}
        wait_for(f"a split by {weights}", lambda: {*ask_often(ask, 100)} == expected, 60)


def as_deployment(service: Manifest) -> Manifest:
    """What KServe makes of an InferenceService in Standard mode: a Deployment of its pods."""
    predictor, name = service["spec"]["predictor"], service["metadata"]["name"]
    ((_, pods),) = pod_specs([service])
    labels = {**predictor["labels"], SERVED_BY: name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{name}-predictor", "namespace": SPACE},
        "spec": {
            "replicas": predictor["minReplicas"],
            "selector": {"matchLabels": {SERVED_BY: name}},
            "strategy": predictor["deploymentStrategy"],
            "template": {
                "metadata": {"labels": labels, "annotations": predictor["annotations"]},
                "spec": pods,
            },
        },
    }


@pytest.fixture(scope="module")
def gateway(cluster: Cluster) -> Gateway:
    return install_gateway(cluster)


@pytest.fixture(scope="module")
def recommenders(
    cluster: Cluster,
    images: Images,
    object_store: ObjectStore,
    registry: Registry,
    gateway: Gateway,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Recommenders]:
    """Two pods that serve one bundle, and one canary that serves another."""
    images.serving_plain()
    root = tmp_path_factory.mktemp("bundles")
    bundles = {
        name: registry.add(tiny.make_bundle(root, tiny.make_model(root / name, seed)))
        for seed, name in enumerate((MAIN, CANARY))
    }
    registry.promote(bundles[MAIN], "a test", "the first bundle")
    folder = tmp_path_factory.mktemp("kustomizations")
    running = Recommenders(cluster, object_store, folder, bundles)
    running.apply(bundles[MAIN], bundles[CANARY])
    yield running
    cluster.kubectl("delete", "namespace", SPACE, "--wait=false")


@pytest.fixture
def over_http(gateway: Gateway) -> Iterator[Ask]:
    """Asks through the Gateway, and returns the id of the bundle that answered."""
    with connect(lambda: RecommenderClient(gateway.http)) as client:
        yield lambda: client.ask(Request(k=5)).bundle_id


@pytest.fixture
def over_grpc(gateway: Gateway) -> Iterator[Ask]:
    with connect(lambda: GrpcRecommenderClient(gateway.grpc)) as client:
        yield lambda: client.ask(Request(k=5)).bundle_id


def test_the_canary_gets_its_share_of_the_requests(
    recommenders: Recommenders, over_http: Ask
) -> None:
    """With two pods and one, a share of the pods would be a third."""
    weights = {MAIN: 90, CANARY: 10}
    recommenders.wait_for_split(over_http, weights)
    check_split(recommenders, over_http, weights, REQUESTS)


def test_the_canary_gets_its_share_over_grpc(recommenders: Recommenders, over_grpc: Ask) -> None:
    weights = {MAIN: 90, CANARY: 10}
    recommenders.wait_for_split(over_grpc, weights)
    check_split(recommenders, over_grpc, weights, OVER_GRPC)


def test_the_split_follows_the_weights(
    recommenders: Recommenders, over_http: Ask, over_grpc: Ask
) -> None:
    """A step of a rollout, and back: no request fails on the way."""
    half = {MAIN: 50, CANARY: 50}
    recommenders.split({MAIN: 0, CANARY: 100})
    recommenders.wait_for_split(over_http, {CANARY: 100})
    recommenders.split(half)
    for ask, requests in ((over_http, REQUESTS), (over_grpc, OVER_GRPC)):
        recommenders.wait_for_split(ask, half)
        check_split(recommenders, ask, half, requests)
    recommenders.split({MAIN: 100})
    for ask in (over_http, over_grpc):
        recommenders.wait_for_split(ask, {MAIN: 100})


def test_a_promoted_canary_takes_over(recommenders: Recommenders, over_http: Ask) -> None:
    """As ``components/kserve-canary`` says: the overlay without it, with the canary's bundle."""
    promoted = recommenders.bundles[CANARY]
    with ThreadPoolExecutor(1) as pool:
        applied = pool.submit(recommenders.apply, promoted)
        served: list[str] = []
        while not applied.done():
            served.append(over_http())
        applied.result()
    report(f"{len(served)} requests while the pods were replaced: {dict(Counter(served))}")
    wait_for(
        "answers of the promoted bundle", lambda: {*ask_often(over_http, 100)} == {promoted}, 60
    )


def connect[C: RecommenderClient | GrpcRecommenderClient](make: Callable[[], C]) -> C:
    """A client, once the Gateway knows the route that it needs and the pods of each predictor."""

    def try_to() -> C | None:
        client = make()
        try:
            for _ in range(EVERY_PREDICTOR):
                client.ask(Request(k=5))
        except RefitError:
            client.close()
            return None
        return client

    return cast(C, wait_for("an answer through the Gateway", try_to, 60))


def check_split(
    recommenders: Recommenders, ask: Ask, weights: Mapping[str, int], requests: int
) -> None:
    """Check that the canary's share lies where draws by the weights put it."""
    counts = ask_often(ask, requests)
    assert set(counts) == set(recommenders.bundles.values())
    shown = {name: counts[bundle] for name, bundle in recommenders.bundles.items()}
    low, high = binom.interval(CONFIDENCE, requests, weights[CANARY] / 100)
    report(
        f"weights {dict(weights)}: {shown} of {requests} answers; {low:.0f} to {high:.0f} expected"
    )
    assert low <= shown[CANARY] <= high


def ask_often(ask: Ask, requests: int) -> Counter[str]:
    """Ask with several clients at once; return the number of answers by bundle."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        return Counter(pool.map(lambda _: ask(), range(requests)))
