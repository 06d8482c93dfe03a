"""What counts as flat memory, and what does not."""

import numpy as np
import pytest

from tests.benchmarks.live.memory import find_slope, judge

MEGABYTE = 1_000_000


def sample(per_minute: float, noise: float, minutes: float = 30.0) -> list[tuple[float, int]]:
    """Sizes of a process of 500 MB that first grows by 100 MB."""
    rng = np.random.default_rng(0)
    x = np.arange(0, minutes, 1 / 12)
    warm = 100 * (1 - np.exp(-x * 3))
    sizes = (400 + warm + per_minute * x + rng.normal(0, noise, len(x))) * MEGABYTE
    return list(zip(x.tolist(), sizes.astype(int).tolist(), strict=True))


@pytest.mark.parametrize(
    ("per_minute", "noise", "is_flat"),
    [(0.0, 2.0, True), (0.2, 2.0, True), (0.8, 2.0, False), (5.0, 2.0, False), (0.0, 80.0, False)],
)
def test_growth_of_more_than_a_hundredth_in_ten_minutes_is_found(per_minute, noise, is_flat):
    assert judge("a process", sample(per_minute, noise), 30.0).met is is_flat


def test_the_slope_is_that_of_the_line():
    slope = find_slope(*zip(*sample(5.0, 0.0)[60:], strict=True))
    assert slope.share == pytest.approx(10 * 5 / slope.start * MEGABYTE, rel=1e-3)
    with pytest.raises(ValueError, match="3 minutes"):
        find_slope([0.1, 0.2], [1, 1])
