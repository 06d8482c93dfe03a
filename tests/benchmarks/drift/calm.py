"""Calm markets under the monitor: every alert in them is false, and every refit is needless.

python -m tests.benchmarks.drift.calm
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refit.alert import Action
from refit.progress import log_message, set_up_logging
from tests.benchmarks.drift.incidents import CALM
from tests.benchmarks.drift.lived import LivedMarket, LivedSettings
from tests.benchmarks.drift.operated import OperatedMarket
from tests.benchmarks.drift.pool import open_pool
from tests.benchmarks.drift.printing import print_row

DAYS = 45
REFRESH_EVERY = 5


@dataclass(frozen=True)
class CalmRun:
    """What the monitor did in one calm market.

    Attributes:
        name: One of ``CALM``.
        seed: Of the market.
        alerts: How many it raised; all of them are false.
        refits: How many it started.
        why: A sentence for each alert.
        evidence: By day, as a share of what an alert needs.
    """

    name: str
    seed: int
    alerts: int
    refits: int
    why: tuple[str, ...]
    evidence: tuple[float, ...]


def run_calm(job: tuple[str, dict[str, Any], int, int]) -> CalmRun:
    """Live a calm market for some days under the monitor's defaults."""
    name, simulation, seed, days = job
    with tempfile.TemporaryDirectory() as folder:
        settings = LivedSettings(refresh_every=REFRESH_EVERY)
        market = LivedMarket({**simulation, "seed": seed}, Path(folder) / "market", settings)
        operated = OperatedMarket(market, Path(folder) / "home")
        operated.live(days)
        told = tuple(
            f"{alert.decision.action}: {', '.join(result.name for result in alert.results[:4])}"
            for alert in operated.alerts
        )
        alerts, refits = len(operated.alerts), operated.count(Action.REFIT)
        log_message(f"{name}, seed {seed}: {alerts} alerts, {refits} refits")
        return CalmRun(name, seed, alerts, refits, told, operated.evidence)


def live_calm(pool: Executor, seeds: int, few: int, days: int = DAYS) -> Iterator[CalmRun]:
    """Begin to live calm markets.

    Args:
        pool: Where they live.
        seeds: How many markets with weekdays, season and growth.
        few: How many of each other calm market.
        days: Live days.
    """
    jobs = [
        (name, simulation, 100 + seed, days)
        for name, simulation in CALM.items()
        for seed in range(seeds if name == "living" else few)
    ]
    return pool.map(run_calm, jobs)


def print_calm(runs: Sequence[CalmRun]) -> Iterator[str]:
    """Print a row for each calm market; yields what misses its goal."""
    for name in CALM:
        own = [run for run in runs if run.name == name]
        alerts, refits = (
            np.array([getattr(run, kind) for run in own]) for kind in ("alerts", "refits")
        )
        print_row(
            f"{len(own[0].evidence)} calm days, {name}",
            f"{alerts.mean():.2f} alerts ({_interval(alerts)})",
            "<= 1, 0 refits",
            f"{refits.sum()} refits in {len(own)} seeds",
        )
        for run in own:
            for line in run.why:
                print_row("", f"seed {run.seed}", "", line)
        if refits.sum():
            yield f"{name}: {refits.sum()} refits in {len(own)} seeds"
        if name == "living" and alerts.mean() > 1:
            yield f"{name}: {alerts.mean():.2f} alerts"


def _interval(counts: Sequence[int] | np.ndarray) -> str:
    """95% interval of a mean, by bootstrap over seeds."""
    random = np.random.default_rng(0)
    means = random.choice(np.asarray(counts), (2000, len(counts))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{low:.2f} to {high:.2f}"


def main() -> int:
    """Print the table; the exit code is 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--few", type=int, default=4, help="seeds of the other calm markets")
    parser.add_argument("--days", type=int, default=DAYS)
    options = parser.parse_args()
    set_up_logging()
    with open_pool() as pool:
        runs = list(live_calm(pool, options.seeds, options.few, options.days))
    return bool(list(print_calm(runs)))


if __name__ == "__main__":
    raise SystemExit(main())
