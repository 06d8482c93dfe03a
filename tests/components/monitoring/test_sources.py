"""What a run of the monitor measures, and until when."""

from datetime import UTC, datetime, timedelta

import pytest

from components.monitoring import sources
from components.monitoring.sources import end_of_last_window

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
