"""One cluster for all cluster tests of a run; what it needs is built when first asked for."""

import os
from collections.abc import Iterator

import pytest

from refit.registry import Registry
from tests.cluster.images import Images

# Fixtures are found by their names in a conftest.
from tests.cluster.kfp.fixtures import kfp_backend, package, step_image  # noqa: F401
from tests.cluster.kubernetes import Cluster, attach, raise_cluster
from tests.cluster.machine import CannotRun, check_rights
from tests.cluster.market import Market
from tests.cluster.object_store import ObjectStore, install_object_store
from tests.cluster.seldon import install_seldon
from tests.cluster.settings import CLUSTER_NUMBER, ROOT, NodeSettings

LOGS = ROOT / "build" / "cluster-logs"
LONGEST_SECONDS = 3600
"""For a test whose fixtures build everything."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cluster tests were asked for: say why they cannot run here instead of skipping them."""
    ours = [item for item in items if any(map(item.get_closest_marker, ("cluster", "kfp")))]
    for item in ours:
        item.add_marker(pytest.mark.timeout(LONGEST_SECONDS))
    if ours:
        try:
            check_rights()
        except CannotRun as error:
            raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster that ends with this run; REFIT_TEST_CLUSTER=NUMBER uses one that stands.

    REFIT_CLUSTER_NUMBER keeps it apart from others, as those of other shards.
    """
    if number := os.environ.get("REFIT_TEST_CLUSTER"):
        yield attach(NodeSettings(number=int(number)))
        return
    raised = raise_cluster(NodeSettings(number=int(os.environ.get(CLUSTER_NUMBER, 0))))
    yield raised
    if request.session.testsfailed:
        raised.save_logs(LOGS / raised.settings.name)
    raised.end()


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> Images:
    """Refit's images, each built and loaded when first asked for."""
    return Images(cluster)


@pytest.fixture(scope="session")
def object_store(cluster: Cluster) -> ObjectStore:
    """An S3 store with a bucket."""
    return install_object_store(cluster)


@pytest.fixture(scope="module")
def registry(
    request: pytest.FixtureRequest,
    object_store: ObjectStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Registry]:
    """The registry in the cluster's store that a test module names, as this machine reaches it."""
    with object_store.reachable():
        yield Registry(request.module.REGISTRY, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def seldon(cluster: Cluster) -> Cluster:
    """The cluster, with Seldon's operator."""
    install_seldon(cluster)
    return cluster


@pytest.fixture(scope="session")
def market(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Market:
    """The simulated marketplace, after its past."""
    return Market(object_store, tmp_path_factory.mktemp("market"))
