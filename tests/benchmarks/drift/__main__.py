"""Judge the monitor where the truth is known, and print one table.

    make bench-drift

Calm markets, power, cost, broken feeds, harmful changes and causes; the exit code is 1 if a goal is
missed. These are simulated, with seeds that nothing was chosen on. ``streams`` needs public data,
see ``streams``, and says so where there are none. When every part ran, the table and its pictures
are written into the documentation.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from refit.files import write_atomically
from refit.progress import set_up_logging
from tests.benchmarks.drift.calm import CalmRun, live_calm, print_calm
from tests.benchmarks.drift.causes import print_causes, watch_all
from tests.benchmarks.drift.cost import measure_cost
from tests.benchmarks.drift.faulty import measure_faulty
from tests.benchmarks.drift.harmful import HarmfulRun, live_harmful, print_harmful
from tests.benchmarks.drift.pictures import draw_evidence
from tests.benchmarks.drift.power import measure_power
from tests.benchmarks.drift.printing import PrintedRows, print_row
from tests.benchmarks.drift.streams import measure_streams

DOCS = Path(__file__).parents[3] / "docs"
HEAD = ("what", "measured", "goal", "")


def main() -> int:
    """Run every part, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="only the part of this name")
    parser.add_argument("--seeds", type=int, default=20, help="calm markets; others get fewer")
    parser.add_argument("--incidents", type=int, default=203, help="whose cause is judged")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the page is written")
    options = parser.parse_args()
    set_up_logging()
    few = max(2, options.seeds // 5)
    calm: list[CalmRun] = []
    harmful: list[HarmfulRun] = []

    def measure_calm() -> Iterator[str]:
        calm.extend(live_calm(options.seeds, max(1, few // 4)))
        yield from print_calm(calm)

    def measure_harmful() -> Iterator[str]:
        harmful.extend(live_harmful(few))
        yield from print_harmful(harmful)

    parts: dict[str, Callable[[], Iterator[str]]] = {
        "power": lambda: measure_power(210),
        "cost": lambda: measure_cost(),
        "faulty": lambda: measure_faulty(max(2, few // 2)),
        "harmful": measure_harmful,
        "calm": measure_calm,
        "causes": lambda: print_causes(watch_all(options.incidents, 57, 2, None)),
        "streams": lambda: measure_streams(
            picture=None if options.only else options.docs / "pictures" / "drift-streams.svg"
        ),
    }
    if options.only and options.only not in parts:
        parser.error(f"there are: {', '.join(parts)}")
    started, missed = time.monotonic(), []
    with PrintedRows() as printed:
        print_row(*HEAD)
        for name, measure in parts.items():
            if options.only in ("", name):
                began = time.monotonic()
                missed += list(measure())
                print_row(f"({name}: {time.monotonic() - began:.0f} s)")
    took = f"{time.monotonic() - started:.0f} s, {len(missed)} goals missed"
    print_row(took)
    for line in missed:
        print_row(f"  {line}")
    if not options.only:
        draw_evidence(calm, harmful, options.docs / "pictures" / "drift-evidence.svg")
        write_page(options.docs / "explanation" / "drift-measured.md", printed, took, missed)
    return bool(missed)


def write_page(path: Path, printed: PrintedRows, took: str, missed: Sequence[str]) -> None:
    """Write the table as a page of the documentation."""
    head, *rows = printed.to_markdown()
    lines = [
        "# Drift where the truth is known",
        "",
        f"What `make bench-drift` printed, on {os.cpu_count()} cores ({platform.machine()}): "
        f"{took}. Markets are simulated, but for the real streams, and the model is a linear "
        "stand-in for the towers; the monitor is the real one, with its defaults. A command for "
        "each part is in `tests/benchmarks/drift`; [What was measured](measurements.md) says more.",
        "",
        '<figure class="picture" markdown="0">',
        '--8<-- "pictures/drift-evidence.svg"',
        "<figcaption>Evidence that something drifts, by day, as a share of what an alert needs. "
        "Named faults of feeds do not wait for it.</figcaption>",
        "</figure>",
        "",
        head,
        "|---|---|---|---|",
        *rows,
        "",
        *(["Goals that were missed:", "", *(f"- {line}" for line in missed)] if missed else []),
    ]
    with write_atomically(path) as staging:
        staging.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
