"""How often choices drift by chance in calm markets, and how surely a full shift of taste shows.

    python -m tests.benchmarks.drift.chosen

Nothing but ``choice:*`` is measured, in markets that no part of the bench lives.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from monitoring.choices import measure_choices
from monitoring.settings import MeasureSettings
from refit.drift import DriftResult
from simulation.settings import MarketChange
from tests.benchmarks.drift.calm import DAYS, REFRESH_EVERY
from tests.benchmarks.drift.incidents import MARKET
from tests.benchmarks.drift.lived import LivedMarket, LivedSettings
from tests.benchmarks.drift.pool import open_pool
from tests.benchmarks.drift.printing import print_row

CALM_SEED, SHIFT_SEED = 300, 400
RATES = (0.05, 0.01, 0.001)
POOLED = (1, 2, 3)
CALM_DAYS, SHIFTED_DAYS = 18, 2


def _live(seed: int, folder: str) -> LivedMarket:
    settings = LivedSettings(refresh_every=REFRESH_EVERY)
    return LivedMarket({**MARKET, "seed": seed}, Path(folder) / "market", settings)


def _measure(market: LivedMarket, pooled: int, days: int) -> list[DriftResult]:
    settings = MeasureSettings(choice_windows=pooled)
    return measure_choices(settings, market.data(), market.windows(days), "")[0]


def measure_calm(seed: int, pooled: int) -> list[DriftResult]:
    """The choices of every day of a calm market."""
    with tempfile.TemporaryDirectory() as folder:
        market = _live(seed, folder)
        market.live(DAYS)
        return _measure(market, pooled, DAYS)


def measure_shift(seed: int) -> dict[int, float]:
    """By pooled windows the probability of the pictures' choices, two days into a shift."""
    with tempfile.TemporaryDirectory() as folder:
        market = _live(seed, folder)
        market.live(CALM_DAYS)
        begin = {"name": "taste_shift", "strength": 1.0, "day": market.market.day}
        market.change(MarketChange.parse(begin))
        market.live(SHIFTED_DAYS)
        found = {}
        for pooled in POOLED:
            results = _measure(market, pooled, 1)
            (images,) = (r for r in results if r.subject == "choice:image_embedding")
            assert images.p_value is not None
            found[pooled] = images.p_value
        return found


def print_calm(results: Sequence[DriftResult]) -> None:
    """Print how often each probability came out below some rates, where nothing drifts."""
    found: dict[str, list[float]] = defaultdict(list)
    for result in results:
        if result.p_value is not None:
            found[result.subject].append(result.p_value)
    for subject, values in sorted(found.items()):
        p = np.array(values)
        shares = ", ".join(f"p < {rate:g}: {(p < rate).mean():.2%}" for rate in RATES)
        print_row(subject, shares, "the rate", f"{len(p)} windows, the smallest p {p.min():.0e}")


def print_shifts(found: Sequence[dict[int, float]]) -> None:
    """Print the probabilities of shifts by pooled windows, the largest last."""
    for pooled in POOLED:
        values = sorted(each[pooled] for each in found)
        told = ", ".join(f"{p:.0e}" for p in values)
        print_row(f"second day of a shift of taste, {pooled} pooled", told, "", "")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="calm markets")
    parser.add_argument("--shifts", type=int, default=6, help="markets whose taste shifts")
    options = parser.parse_args()
    pooled = MeasureSettings().choice_windows
    seeds = range(CALM_SEED, CALM_SEED + options.seeds)
    with open_pool(2) as pool:
        calm: Iterator[list[DriftResult]] = pool.map(partial(measure_calm, pooled=pooled), seeds)
        print_calm([result for results in calm for result in results])
        shifts = range(SHIFT_SEED, SHIFT_SEED + options.shifts)
        print_shifts(list(pool.map(measure_shift, shifts)))


if __name__ == "__main__":
    main()
