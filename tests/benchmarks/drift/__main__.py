"""Judge the monitor where the truth is known, and print one table.

    make bench-drift

Calm markets, power, cost, broken feeds, harmful changes and causes; the exit code is 1 if a goal is
missed. These are simulated, with seeds that nothing was chosen on. ``streams`` needs public data,
see ``streams``, and says so where there are none. What each part finds is kept below ``build``; the
table and its pictures are written into the documentation when every part ran, or with ``--page``.
All parts share the cores, and their rows come in the order of the table.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refit.progress import set_up_logging
from tests.benchmarks.drift.calm import live_calm, print_calm
from tests.benchmarks.drift.causes import print_causes, watch_all
from tests.benchmarks.drift.cost import measure_cost, print_cost
from tests.benchmarks.drift.faulty import live_faulty, print_faulty
from tests.benchmarks.drift.harmful import live_harmful, print_harmful
from tests.benchmarks.drift.parts import (
    HEAD,
    PartResult,
    group_evidence,
    keep_part,
    read_parts,
    write_page,
)
from tests.benchmarks.drift.pool import open_pool
from tests.benchmarks.drift.power import print_power, try_changes
from tests.benchmarks.drift.printing import PrintedRows, print_row
from tests.benchmarks.drift.streams import judge_streams, print_streams

DOCS = Path(__file__).parents[3] / "docs"
DRAWN = ("calm", "harmful")
"""Parts whose evidence by day is in the picture."""


def main() -> int:
    """Run every part, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="only the part of this name")
    parser.add_argument("--seeds", type=int, default=20, help="calm markets; others get fewer")
    parser.add_argument("--incidents", type=int, default=203, help="whose cause is judged")
    parser.add_argument("--page", action="store_true", help="write the page, also with --only")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the page is written")
    options = parser.parse_args()
    set_up_logging()
    few = max(2, options.seeds // 5)
    draws = options.page or not options.only
    picture = options.docs / "pictures" / "drift-streams.svg" if draws else None
    # Measured while nothing else runs, then the longest jobs, so that no core waits for one.
    parts = {
        "cost": Part(lambda _: measure_cost(), print_cost),
        "power": Part(lambda pool: try_changes(pool, 210), print_power),
        "faulty": Part(lambda pool: live_faulty(pool, max(2, few // 2)), print_faulty),
        "harmful": Part(lambda pool: live_harmful(pool, few), print_harmful),
        "causes": Part(lambda pool: watch_all(pool, options.incidents), print_causes),
        "streams": Part(judge_streams, lambda found: print_streams(found, picture)),
        "calm": Part(lambda pool: live_calm(pool, options.seeds, max(1, few // 4)), print_calm),
    }
    if options.only and options.only not in parts:
        parser.error(f"there are: {', '.join(parts)}")
    print_row(*HEAD)
    wanted = [options.only] if options.only else list(parts)
    missed = _run({name: parts[name] for name in wanted})
    print_row(f"{len(missed)} goals missed")
    for line in missed:
        print_row(f"  {line}")
    if draws:
        found = read_parts(list(parts))
        lacking = [name for name in parts if name not in {part.name for part in found}]
        write_page(options.docs, found, lacking)
    return bool(missed)


@dataclass(frozen=True)
class Part:
    """A part of the bench.

    Attributes:
        start: Starts its jobs in a pool; what they find comes one by one.
        print: Prints rows about what was found; yields what misses its goal.
    """

    start: Callable[[Executor], Iterable[Any]]
    print: Callable[[Sequence[Any]], Iterator[str]]


def _run(parts: Mapping[str, Part]) -> list[str]:
    """Run parts in one pool and keep what each found; returns the goals that were missed."""
    missed: list[str] = []
    began = time.monotonic()
    with open_pool() as pool, ExitStack() as stack:
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        started = {name: part.start(pool) for name, part in parts.items()}
        for name, part in parts.items():
            found = list(started[name])
            with PrintedRows() as printed:
                own = tuple(part.print(found))
            missed += own
            seconds = time.monotonic() - began
            began += seconds
            print_row(f"({name}: {seconds:.0f} s)")
            keep_part(
                PartResult(
                    name=name,
                    seconds=seconds,
                    rows=tuple(printed.rows),
                    missed=own,
                    evidence=group_evidence(found) if name in DRAWN else {},
                )
            )
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
