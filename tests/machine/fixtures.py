"""Fixtures of a running cluster; one pytest session starts at most one.

A plugin, not a conftest: tests of the machine and tests of Refit share the session's cluster.
"""

import os
from collections.abc import Iterator

import pytest

from tests.machine.host import UnsupportedHostError, check_permissions
from tests.machine.images import Images
from tests.machine.kfp.backend import Backend, deploy
from tests.machine.kubernetes import Cluster, attach, start_cluster
from tests.machine.object_store import ObjectStore, install_object_store
from tests.machine.seldon import install_seldon
from tests.machine.settings import CLUSTER_NUMBER, ROOT, NodeSettings

LOGS = ROOT / "build" / "cluster-logs"
TIERS = ("cluster", "gateway", "kfp")
"""Markers of the tests that need a cluster."""
TIMEOUT_SECONDS = 3600
"""Of one test, whose fixtures may have to build everything."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """If this host cannot run the selected cluster tests, fail with the reason."""
    selected = [item for item in items if any(map(item.get_closest_marker, TIERS))]
    for item in selected:
        item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))
    if selected:
        try:
            check_permissions()
        except UnsupportedHostError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster that is deleted at the end of the session.

    REFIT_TEST_CLUSTER=NUMBER uses a running cluster instead, which is kept. REFIT_CLUSTER_NUMBER
    is the number of the new cluster; it must differ between clusters that run at the same time.
    """
    if number := os.environ.get("REFIT_TEST_CLUSTER"):
        yield attach(NodeSettings(number=int(number)))
        return
    started = start_cluster(NodeSettings(number=int(os.environ.get(CLUSTER_NUMBER, 0))))
    yield started
    if request.session.testsfailed:
        started.save_logs(LOGS / started.settings.name)
    started.delete()


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> Images:
    """Refit's images; each is built and loaded when it is first requested."""
    return Images(cluster)


@pytest.fixture(scope="session")
def object_store(cluster: Cluster) -> ObjectStore:
    """An S3 store with a bucket."""
    return install_object_store(cluster)


@pytest.fixture(scope="session")
def seldon(cluster: Cluster) -> Cluster:
    """The cluster with Seldon's operator."""
    install_seldon(cluster)
    return cluster


@pytest.fixture(scope="session")
def kfp_backend(cluster: Cluster) -> Backend:
    """Kubeflow Pipelines 2.0.5 and Argo Workflows in namespace kubeflow."""
    return deploy(cluster)
