"""Judge the monitor where the truth is known, and print one table.

    make bench-drift

Calm markets, power, cost, broken feeds, harmful changes and causes; the exit code is 1 if a goal is
missed. These are simulated, with seeds that nothing was chosen on. ``streams`` needs public data,
see ``streams``, and says so where there are none. What each part finds is kept below ``build``; the
table and its pictures are written into the documentation when every part ran, or with ``--page``.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from refit.progress import set_up_logging
from tests.benchmarks.drift.calm import CalmRun, live_calm, print_calm
from tests.benchmarks.drift.causes import print_causes, watch_all
from tests.benchmarks.drift.cost import measure_cost
from tests.benchmarks.drift.faulty import measure_faulty
from tests.benchmarks.drift.harmful import HarmfulRun, live_harmful, print_harmful
from tests.benchmarks.drift.parts import (
    HEAD,
    PartResult,
    group_evidence,
    keep_part,
    read_parts,
    write_page,
)
from tests.benchmarks.drift.power import measure_power
from tests.benchmarks.drift.printing import PrintedRows, print_row
from tests.benchmarks.drift.streams import measure_streams

DOCS = Path(__file__).parents[3] / "docs"


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
    runs: dict[str, Sequence[CalmRun | HarmfulRun]] = {}

    def measure_calm() -> Iterator[str]:
        runs["calm"] = calm = live_calm(options.seeds, max(1, few // 4))
        yield from print_calm(calm)

    def measure_harmful() -> Iterator[str]:
        runs["harmful"] = harmful = live_harmful(few)
        yield from print_harmful(harmful)

    parts: dict[str, Callable[[], Iterator[str]]] = {
        "power": lambda: measure_power(210),
        "cost": lambda: measure_cost(),
        "faulty": lambda: measure_faulty(max(2, few // 2)),
        "harmful": measure_harmful,
        "calm": measure_calm,
        "causes": lambda: print_causes(watch_all(options.incidents, 57, 2, None)),
        "streams": lambda: measure_streams(
            picture=options.docs / "pictures" / "drift-streams.svg"
            if options.page or not options.only
            else None
        ),
    }
    if options.only and options.only not in parts:
        parser.error(f"there are: {', '.join(parts)}")
    print_row(*HEAD)
    wanted = [options.only] if options.only else list(parts)
    missed = [line for name in wanted for line in _run(name, parts[name], runs)]
    print_row(f"{len(missed)} goals missed")
    for line in missed:
        print_row(f"  {line}")
    if options.page or not options.only:
        found = read_parts(list(parts))
        lacking = [name for name in parts if name not in {part.name for part in found}]
        write_page(options.docs, found, lacking)
    return bool(missed)


def _run(
    name: str,
    measure: Callable[[], Iterator[str]],
    runs: Mapping[str, Sequence[CalmRun | HarmfulRun]],
) -> tuple[str, ...]:
    """Run a part and keep what it found; returns the goals that it missed."""
    began = time.monotonic()
    with PrintedRows() as printed:
        missed = tuple(measure())
    seconds = time.monotonic() - began
    print_row(f"({name}: {seconds:.0f} s)")
    evidence = group_evidence(runs.get(name, ()))
    rows = tuple(printed.rows)
    keep_part(PartResult(name=name, seconds=seconds, rows=rows, missed=missed, evidence=evidence))
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
