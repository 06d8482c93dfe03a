"""Fixtures for tests of Refit on a cluster; the cluster itself: ``tests/machine/fixtures.py``."""

from collections.abc import Iterator

import pytest

from refit.registry import Registry
from tests.cluster.market import Market
from tests.machine.object_store import ObjectStore


@pytest.fixture(scope="module")
def registry(
    request: pytest.FixtureRequest,
    object_store: ObjectStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Registry]:
    """The registry at the test module's REGISTRY in the object store, reachable from the host."""
    with object_store.reachable():
        yield Registry(request.module.REGISTRY, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def market(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Market:
    """The simulated marketplace with its history."""
    return Market(object_store, tmp_path_factory.mktemp("market"))
