"""Harmful changes under the monitor: when it alerts, and whether a refit helps.

python -m tests.benchmarks.drift.harmful
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from refit.alert import Action
from simulation.settings import MarketChange
from tests.benchmarks.drift.incidents import MARKET
from tests.benchmarks.drift.lived import LivedMarket
from tests.benchmarks.drift.operated import OperatedMarket
from tests.benchmarks.drift.pool import open_pool
from tests.benchmarks.drift.printing import find_interval, print_row

CALM_DAYS, DAYS, AFTER = 7, 4, 4
WITHIN = 2
CHANGES = {
    "category wave 10%": ("new_category_wave", 0.2),
    "category wave 20%": ("new_category_wave", 0.4),
    "category wave 50%": ("new_category_wave", 1.0),
    "taste shift": ("taste_shift", 1.0),
}
"""``new_category_wave`` of strength 1 takes half of the listings and visits."""
NOT_ABOUT_IT = (Action.NOTHING, Action.QUARANTINE, Action.REFRESH)
"""No alert, or one that blames a feed or the age of the index, which are as they should be."""


@dataclass(frozen=True)
class HarmfulRun:
    """What became of one harmful change.

    Attributes:
        name: The change.
        alerted: Days from its begin to the first alert about it; None if there was none.
        gain: How much more a refit sells than the old towers, relative, four days after it.
        evidence: By day, calm days first, as a share of what an alert needs.
    """

    name: str
    alerted: int | None
    gain: float
    evidence: tuple[float, ...]


def run_harmful(job: tuple[int, Sequence[str]]) -> list[HarmfulRun]:
    """Live a market through harmful changes; then compare a refit with the old towers."""
    seed, names = job
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        market = LivedMarket({**MARKET, "seed": seed}, root / "market")
        calm = OperatedMarket(market, root / "home")
        calm.live(CALM_DAYS)
        return [
            _change(name, calm.fork(root / f"change-{number}")) for number, name in enumerate(names)
        ]


def _change(name: str, operated: OperatedMarket) -> HarmfulRun:
    market, root = operated.market, operated.folder.parent
    change, strength = CHANGES[name]
    begin = {"name": change, "strength": strength, "day": market.market.day}
    market.change(MarketChange.parse(begin))
    alerted = None
    for day in range(1, DAYS + 1):
        operated.live(1)
        if alerted is None and operated.decisions[-1].decision.action not in NOT_ABOUT_IT:
            alerted = day
    old, new = market.fork(root / "old"), market.fork(root / "new")
    new.refit()
    return HarmfulRun(name, alerted, _sell(new) / _sell(old) - 1, operated.evidence)


def _sell(market: LivedMarket) -> float:
    market.live(AFTER)
    return float(pc.mean(market.quality()["chance_of_sale"][-AFTER:]).as_py())


def live_harmful(
    pool: Executor, seeds: int, first: int = 200, names: Sequence[str] = tuple(CHANGES)
) -> Iterator[HarmfulRun]:
    """Begin to live markets with one harmful change each; ``first`` is the first seed."""
    jobs = [(first + seed, names) for seed in range(seeds)]
    return chain.from_iterable(pool.map(run_harmful, jobs))


def print_harmful(runs: Sequence[HarmfulRun]) -> Iterator[str]:
    """Print a row for each change; yields what misses its goal."""
    for name in dict.fromkeys(run.name for run in runs):
        own = [run for run in runs if run.name == name]
        soon = sum(run.alerted is not None and run.alerted <= WITHIN for run in own)
        late = sum(run.alerted is not None for run in own) - soon
        low, high = find_interval(soon, len(own))
        gains = np.array([run.gain for run in own])
        print_row(
            f"{name}: alert within {WITHIN} windows",
            f"{soon / len(own):.2f} ({low:.2f} to {high:.2f})",
            ">= 0.9",
            f"{late} later; a refit sells {gains.mean():+.1%} ({gains.min():+.1%} to "
            f"{gains.max():+.1%})",
        )
        if soon / len(own) < 0.9:
            yield f"{name}: {soon} of {len(own)} within {WITHIN} windows"


def main() -> int:
    """Print the table; the exit code is 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=200, help="the first seed")
    parser.add_argument("--only", nargs="*", choices=list(CHANGES), default=list(CHANGES))
    options = parser.parse_args()
    with open_pool() as pool:
        runs = list(live_harmful(pool, options.seeds, options.first, options.only))
    return bool(list(print_harmful(runs)))


if __name__ == "__main__":
    raise SystemExit(main())
