"""Show that what happens now reaches the next answer, whatever fails meanwhile: one table.

    make test-live
    make test-live ARGS="--only latency --feed kafka"
    make test-live ARGS="--only memory --minutes 60"
    make test-live ARGS="--only workers --only servers --resume build/kills"

Each part starts real processes on this machine, with a market whose towers are made at random, and
prints its figures beside their goals. All of it takes about two hours. The exit code is 1
if a goal was missed; a part that cannot run here, such as the broker without Java, has missed its.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from refit.progress import log_message, set_up_logging
from tests.benchmarks.live import hostile, kills, landed, latency, memory, states, stores, swaps
from tests.benchmarks.live.figures import Figure, format_table, not_shown

Part = Callable[[argparse.Namespace, Path], Iterator[Figure]]
PARTS: dict[str, Part] = {
    "latency": latency.run,
    "swaps": swaps.run,
    "workers": kills.run_workers,
    "model-server": kills.run_model_server,
    "servers": kills.run_pair,
    "landing": landed.run,
    "broker": latency.run_broker,
    "stores": stores.run,
    "states": states.run,
    "hostile": hostile.run,
    "memory": memory.run,
}


def run_part(name: str, options: argparse.Namespace) -> list[Figure]:
    """Run one part in a folder of its own; one that fails has not shown anything."""
    log_message(f"live: {name}")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix=f"refit-live-{name}-") as folder:
        try:
            figures += PARTS[name](options, Path(folder))
        except pytest.skip.Exception as error:
            figures.append(not_shown(name, str(error)))
        except Exception as error:
            figures.append(not_shown(name, f"{type(error).__name__}: {error}"))
    return figures


def main() -> int:
    """Run the parts, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; repeat it for more")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--feed", choices=("folder", "kafka"), default="folder", help="of latency")
    parser.add_argument("--sales", type=int, default=6000)
    parser.add_argument("--listings", type=int, default=2000)
    parser.add_argument("--views", type=int, default=3000)
    parser.add_argument("--lines", type=float, default=500.0, help="lines of stock a second")
    parser.add_argument("--requests", type=float, default=150.0, help="further requests a second")
    parser.add_argument("--clients", type=int, default=4, help="people who look at the same time")
    parser.add_argument("--away", type=float, default=60.0, help="seconds without broker or store")
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--kills", type=int, default=50, help="of each process")
    parser.add_argument("--resume", type=Path, help="folder that notes each kill, to go on there")
    parser.add_argument("--states", type=int, default=2000, help="random states")
    parser.add_argument("--minutes", type=float, default=30.0, help="of the memory's watch")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second meanwhile")
    options = parser.parse_args()
    set_up_logging()
    figures: list[Figure] = []
    for name in options.only or PARTS:
        figures += run_part(name, options)
        sys.stdout.write(format_table(figures) + "\n\n")
        sys.stdout.flush()
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
