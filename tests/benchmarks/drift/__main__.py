"""Judge the monitor where the truth is known, and print one table.

    make bench-drift

Calm markets, power, cost, broken feeds, harmful changes and causes; the exit code is 1 if a goal is
missed. Everything is simulated, with seeds that nothing was chosen on.
"""

import argparse
import time
from collections.abc import Callable, Iterator

from refit.progress import set_up_logging
from tests.benchmarks.drift.calm import measure_calm
from tests.benchmarks.drift.causes import print_causes, watch_all
from tests.benchmarks.drift.cost import measure_cost
from tests.benchmarks.drift.faulty import measure_faulty
from tests.benchmarks.drift.harmful import measure_harmful
from tests.benchmarks.drift.power import measure_power
from tests.benchmarks.drift.printing import print_row


def main() -> int:
    """Run every part, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only the part of this name")
    parser.add_argument("--seeds", type=int, default=20, help="calm markets; others get a fourth")
    parser.add_argument("--incidents", type=int, default=210, help="whose cause is judged")
    options = parser.parse_args()
    set_up_logging()
    few = max(2, options.seeds // 5)
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "power": lambda: measure_power(210),
        "cost": lambda: measure_cost(),
        "faulty": lambda: measure_faulty(few),
        "harmful": lambda: measure_harmful(2 * few),
        "calm": lambda: measure_calm(options.seeds, max(2, few - 1)),
        "causes": lambda: print_causes(watch_all(options.incidents, 7, 2, None)),
    }
    if options.only and options.only not in parts:
        parser.error(f"there are: {', '.join(parts)}")
    started, missed = time.monotonic(), []
    print_row("what", "measured", "goal", "")
    for name, measure in parts.items():
        if options.only in ("", name):
            began = time.monotonic()
            missed += list(measure())
            print_row("", f"({name}: {time.monotonic() - began:.0f} s)")
    print_row("", f"{time.monotonic() - started:.0f} s, {len(missed)} goals missed")
    for line in missed:
        print_row(f"  {line}")
    return bool(missed)


if __name__ == "__main__":
    raise SystemExit(main())
