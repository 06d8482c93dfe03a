"""Broken feeds under the monitor: named, quarantined, and never refitted on.

python -m tests.benchmarks.drift.faulty
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from refit.alert import Action
from simulation.feed_faults import FeedFault
from tests.benchmarks.drift.incidents import MARKET
from tests.benchmarks.drift.lived import LivedMarket
from tests.benchmarks.drift.operated import OperatedMarket
from tests.benchmarks.drift.pool import open_pool
from tests.benchmarks.drift.printing import print_row

CALM_DAYS, DAYS = 6, 4
FAULTS: dict[str, dict[str, Any]] = {
    "image encoder replaced": {"name": "encoder_replaced"},
    "encoder half rolled": {"name": "encoder_half_rolled", "share": 0.5},
    "price x100": {"name": "number_scaled", "factor": 100.0},
    "renamed categories": {"name": "values_renamed", "column": "category_1", "words": "upper"},
    "nulls mended on day 3": {
        "name": "column_null",
        "column": "brand",
        "days": 3.0,
        "mended": True,
    },
    "items feed away": {"name": "feed_stale"},
    "doubled feed": {"name": "rows_doubled", "table": "items", "new_ids": True},
    "swapped columns": {"name": "columns_swapped", "column": "brand", "other": "category_2"},
    "wrong time zone": {"name": "clock_shifted", "hours": 8.0},
}


@dataclass(frozen=True)
class FaultyRun:
    """What the monitor did about one broken feed.

    Attributes:
        name: The fault.
        named: Faulty windows in which a fault was named.
        windows: Faulty windows.
        quarantined: Whether days were quarantined.
        refits: Refits that were started.
        told: The names that were given.
    """

    name: str
    named: int
    windows: int
    quarantined: bool
    refits: int
    told: tuple[str, ...]


def run_faulty(seed: int) -> list[FaultyRun]:
    """Live some calm days of a market, and after them days of every broken feed."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        market = LivedMarket({**MARKET, "seed": seed}, root / "market")
        calm = OperatedMarket(market, root / "home")
        calm.live(CALM_DAYS)
        return [
            _break_feed(name, seed, calm.fork(root / f"fault-{number}"))
            for number, name in enumerate(FAULTS)
        ]


def _break_feed(name: str, seed: int, operated: OperatedMarket) -> FaultyRun:
    market = operated.market
    fault = FeedFault.parse({**FAULTS[name], "since": market.now, "seed": seed})
    market.faults = (*market.faults, fault)
    operated.live(DAYS)
    # What is mended on the third day is no longer there when that day is measured.
    last = int(FAULTS[name].get("days", DAYS + 1)) - 1
    faulty = operated.decisions[CALM_DAYS : CALM_DAYS + last]
    found = [
        {r.name for r in day.results if r.subject.startswith("feed:") and r.state == "drift"}
        for day in faulty
    ]
    return FaultyRun(
        name,
        sum(map(bool, found)),
        len(faulty),
        bool(operated.store.quarantines()),
        sum(day.decision.action is Action.REFIT for day in operated.decisions),
        tuple(sorted({name for names in found for name in names})),
    )


def live_faulty(pool: Executor, seeds: int) -> Iterator[FaultyRun]:
    """Begin to live markets with every broken feed."""
    return chain.from_iterable(pool.map(run_faulty, range(300, 300 + seeds)))


def print_faulty(runs: Sequence[FaultyRun]) -> Iterator[str]:
    """Print a row for each fault; yields what misses its goal."""
    for name in FAULTS:
        own = [run for run in runs if run.name == name]
        named, windows = sum(run.named for run in own), sum(run.windows for run in own)
        refits = sum(run.refits for run in own)
        quarantined = sum(run.quarantined for run in own)
        told = sorted({name for run in own for name in run.told})
        print_row(
            name,
            f"{named} of {windows} windows named",
            "every, 0 refits",
            f"{quarantined} of {len(own)} quarantined, {refits} refits: {', '.join(told[:3])}",
        )
        if named < windows or refits or quarantined < len(own):
            yield f"{name}: {named} of {windows} windows, {refits} refits"


def main() -> int:
    """Print the table; the exit code is 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    with open_pool() as pool:
        runs = list(live_faulty(pool, options.seeds))
    return bool(list(print_faulty(runs)))


if __name__ == "__main__":
    raise SystemExit(main())
