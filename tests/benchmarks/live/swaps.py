"""Hot swaps: another bundle is promoted again and again while people ask."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from refit.registry import Registry
from tests.benchmarks.live.figures import Figure, at_most, count
from tests.benchmarks.live.market import make_bundles
from tests.benchmarks.live.memory import resident
from tests.benchmarks.live.served import MODEL_SERVER, WORKER, Load, Replica, wait_until
from tests.serving import tiny

PART = "hot swaps"
WARM_UPS = 5
"""Swaps after which memory is measured for the first time."""


def run(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Promote two bundles in turn; a swap is over when every worker and asker has the new one."""
    bundles = make_bundles(folder)
    registry = folder / "registry"
    for bundle in reversed(bundles):
        tiny.promote(registry, bundle)
    recommender = {"unload_after_seconds": 1.0, "poll_seconds": 0.5, "tower_deadline_ms": 2000}
    store, took, memory = Registry(registry), [], {}
    with Replica(folder / "home", str(registry), recommender) as server, Load([server]) as tally:
        for number in range(options.swaps):
            bundle = bundles[(number + 1) % 2]
            store.promote(bundle.bundle_id, by="a test", reason=f"turn {number}", force=True)
            new = {bundle.bundle_id}
            took.append(wait_until(lambda n=new: set(tally.newest.values()) == n, "a swap"))
            swapped = 2 * (number + 1)
            wait_until(
                lambda n=swapped: server.counted("refit_swaps_total") >= n, "both workers' swap"
            )
            if number + 1 == min(WARM_UPS, options.swaps):
                memory = _measure(server)
        grown = {name: size - memory[name] for name, size in _measure(server).items()}
    yield count(PART, "failed at the first try", tally.answers, len(tally.first))
    yield count(PART, "answers without the towers", tally.answers, tally.fallbacks)
    p50, most = np.percentile(took, [50, 100])
    yield Figure(PART, "promoted to seen by all, p50", len(took), f"{p50:.2f} s")
    yield at_most(PART, "the same, the longest", len(took), float(most), 30.0)
    swaps = options.swaps - WARM_UPS
    for name, size in grown.items() if swaps > 0 else ():
        yield Figure(PART, f"memory of a {name} per swap", swaps, f"{size / swaps / 1e6:+.2f} MB")


def _measure(server: Replica) -> dict[str, float]:
    kinds = {"worker": WORKER, "model server": MODEL_SERVER}
    return {
        name: float(np.mean([resident(pid) for pid in server.pids(command)]))
        for name, command in kinds.items()
    }
