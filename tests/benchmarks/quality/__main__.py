"""Train and evaluate on public sets and the simulated market, and print one table.

    make bench-quality REFIT_DATA=<folder of public sets>

Each row is a metric of a set: what was published, the goal, what was seen (the mean over the seeds,
and the spread from the lowest to the highest), the best baseline, minutes and memory; then the same
of known users and of new ones, with the lower end of the 95% interval of the gain. Everything
runs through Refit's own steps, with the settings of the set's config; they were chosen on
validation. Results are kept below ``--out``, so that a run that was killed goes on where it was.
The exit code is 1 if a goal is missed; a set that is not there, or has no baseline to be above, has
missed its own. Where the goal is to be above every baseline, known and new users have to be above
them too, by more than chance. Of the simulated market the truth is known: two more rows say what a
perfect recommender finds, and what share of that was reached.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.quality.runs import Found, run_seed
from tests.benchmarks.quality.sets import SETS, PublicSet

HEAD = ("set", "metric", "published", "goal", "seen", "best baseline", "minutes", "GB")
WIDTHS = (32, 15, 9, 6, 26, 30, 7, 5)


def main() -> int:
    """Run the sets that are there, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("REFIT_DATA"))
    parser.add_argument("--only", default="", help="only sets whose name begins with this")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("build/bench-quality"))
    options = parser.parse_args()
    chosen = [public for public in SETS if public.name.startswith(options.only)]
    if options.data is None and any(public.folder for public in chosen):
        parser.error("REFIT_DATA is not set: name the folder that holds amazon_beauty/ ...")
    data = Path(options.data or "").resolve()
    if not chosen:
        parser.error(f"--only {options.only}: no such set; {', '.join(s.name for s in SETS)}")
    missed = 0
    _print(HEAD)
    for public in chosen:
        if not (data / public.folder).is_dir():
            _print((public.title, f"not run: no {data / public.folder}"))
            missed += 1
            continue
        found = [run_seed(public, seed, data, options.out.resolve()) for seed in options.seeds]
        for row in describe_rows(public, found):
            _print(row)
        missed += count_missed(public, found)
    return bool(missed)


def describe_rows(public: PublicSet, found: Sequence[Found]) -> Iterator[tuple[str, ...]]:
    """The table's rows of a set: each metric with a goal, then known and new users."""
    for metric, goal in public.goals.items():
        values = [run.metrics[metric] for run in found]
        published = public.published.get(metric)
        name, best = found[0].best_baseline.get(metric, ("none", 0.0))
        yield (
            public.title,
            metric,
            "-" if published is None else f"{published:.4f}",
            f"{goal:.4f}".rstrip("0") if goal else "-",
            _spread(values),
            f"{best:.4f} {name}",
            f"{_mean([run.minutes for run in found]):.1f}",
            f"{max(run.peak_gb for run in found):.1f}",
        )
    for parts in zip(*(run.parts for run in found), strict=True):
        name, best = parts[0].best_baseline
        yield (
            f"  {parts[0].queries}, n = {parts[0].n:,}",
            parts[0].metric,
            "",
            "",
            _spread([part.value for part in parts]),
            f"{best:.4f} {name}",
            f"gain {_mean([part.gain_low for part in parts]):+.4f} at least",
        )
    for measure in found[0].lists.get("perfect", {}):
        perfect = found[0].lists["perfect"][measure]
        values = [run.lists["model"][measure] for run in found]
        share = f"share {_mean(values) / perfect:.3f}"
        yield (
            "  truth is known",
            measure,
            "",
            "",
            _spread(values),
            f"{perfect:.4f} a perfect recommender",
            share,
        )


def count_missed(public: PublicSet, found: Sequence[Found]) -> int:
    """How many metrics are below their goal, or not above every baseline, on average."""
    missed = 0
    for metric, goal in public.goals.items():
        seen = _mean([run.metrics[metric] for run in found])
        baseline = found[0].best_baseline.get(metric)
        missed += baseline is None or seen < goal or seen <= baseline[1]
    if not any(public.goals.values()):
        apart = list(zip(*(run.parts for run in found), strict=True))
        missed += sum(_mean([part.gain_low for part in parts]) <= 0 for parts in apart)
        missed += not apart  # known and new users were not measured apart
    return missed


def _print(row: Sequence[str]) -> None:
    padded = [cell.ljust(width) for cell, width in zip(row, WIDTHS, strict=False)]
    sys.stdout.write("  ".join(padded).rstrip() + "\n")
    sys.stdout.flush()


def _spread(values: Sequence[float]) -> str:
    return f"{_mean(values):.4f} ({min(values):.4f}-{max(values):.4f}) x{len(values)}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    sys.exit(main())
