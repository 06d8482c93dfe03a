import pytest

from monitoring.reference import build_reference
from monitoring.settings import MeasureSettings
from tests.monitoring.marketplace import TOWERS, Market, World

SETTINGS = MeasureSettings(trials=99)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A marketplace and a reference folder made of its first ten days."""
    root = tmp_path_factory.mktemp("built")
    world = World(root, Market())
    build_reference(
        SETTINGS, world.predictions, world.index, world.dataset, TOWERS, root / "reference"
    )
    return world


@pytest.fixture
def world(built, tmp_path):
    """A fresh copy of that marketplace, with the reference shared."""
    fresh = World(tmp_path, Market())
    fresh.reference = built.root / "reference"
    return fresh
