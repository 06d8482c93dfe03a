"""What a run of the monitor measures, and until when."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from components.monitoring import sources
from components.monitoring.sources import end_of_last_window, find_index_times
from monitoring import tables
from refit.bundle import MANIFEST_FILE
from refit.registry import Registry
from tests.refit.conftest import make_bundle, make_parts  # noqa: F401 - fixtures

NOW = datetime(2026, 5, 3, 14, 47, 12, tzinfo=UTC)


class Clock(datetime):
    """Stands still."""

    @classmethod
    def now(cls, tz=None):
        """The time of these tests."""
        return NOW


@pytest.mark.parametrize(
    ("days", "end"),
    [
        (1, datetime(2026, 5, 3, tzinfo=UTC)),
        (7, datetime(2026, 5, 3, tzinfo=UTC)),
        (1 / 24, datetime(2026, 5, 3, 14, tzinfo=UTC)),
        (1 / 96, datetime(2026, 5, 3, 14, 45, tzinfo=UTC)),
    ],
)
def test_the_last_window_is_over(monkeypatch, days, end):
    monkeypatch.setattr(sources, "datetime", Clock)
    found = end_of_last_window("", days)
    assert abs(found - end) < timedelta(milliseconds=1)


def test_a_time_that_is_given_is_used():
    assert end_of_last_window(NOW.isoformat(), 1) == NOW


def test_the_age_of_an_index_counts_from_its_own_time(tmp_path, make_bundle):  # noqa: F811
    bundle = make_bundle()
    registry = Registry(tmp_path / "registry")
    registry.add(bundle)
    broken = tmp_path / "registry" / "bundles" / "20260503T000000000Z-broken"
    broken.mkdir()
    (broken / MANIFEST_FILE).write_text("{")
    assert find_index_times(registry) == {bundle.bundle_id: bundle.manifest.as_of}
    log = pa.table({"bundle_id": [bundle.bundle_id] * 2, "time": [bundle.manifest.as_of, NOW]})
    ages = tables.find_index_ages(log, find_index_times(registry))
    assert ages == pytest.approx([0.0, (NOW - bundle.manifest.as_of) / timedelta(days=1)])
    assert tables.find_index_ages(log).tolist() == [0.0, 0.0]  # built later, by today's clock
