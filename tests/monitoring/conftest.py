import pytest

import monitoring.reports  # noqa: F401 - Evidently, imported after it, reports no usage
from monitoring.quality.settings import QualitySettings
from monitoring.reference import build_reference
from monitoring.settings import MeasureSettings
from tests.monitoring.marketplace import TOWERS, Market, Marketplace
from tests.refit.conftest import make_bundle, make_parts  # noqa: F401 - fixtures

SETTINGS = MeasureSettings()
QUALITY = QualitySettings(outcome_hours=1, feed_lag_hours=0, concept_hours=1)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A marketplace, and a reference folder built from its first ten days."""
    root = tmp_path_factory.mktemp("built")
    marketplace = Marketplace(root, Market())
    build_reference(
        SETTINGS,
        marketplace.predictions,
        marketplace.index,
        marketplace.dataset,
        TOWERS,
        root / "reference",
    )
    return marketplace


@pytest.fixture
def marketplace(built, tmp_path):
    """A new copy of that marketplace, which shares the reference."""
    fresh = Marketplace(tmp_path, Market())
    fresh.reference = built.root / "reference"
    return fresh
