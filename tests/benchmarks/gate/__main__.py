"""Attack the gate and the registry, and print one table.

    make bench-gate

On a simulated shop whose honest model passes, every attack must be refused for its own reason, or
gain nothing. Then the rates of the gate's decisions where the truth is known, and promotions at
the same moment. The exit code is 1 if anything is not as it should be.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.evaluation.data import EvaluationData
from components.evaluation.metrics import per_query
from components.evaluation.ranking import build_evaluation_set, rank
from components.evaluation.settings import EvaluationSettings
from components.evaluation.towers import load_model
from refit.progress import log_message, set_up_logging
from tests.benchmarks.gate.attacks import Attack
from tests.benchmarks.gate.looks import simulate_tries
from tests.benchmarks.gate.market import Judgement, judge, read_settings, write_market
from tests.benchmarks.gate.promotes import Race, race_everywhere
from tests.benchmarks.gate.rates import JudgedQueries, rate_identical, rate_twins, run_ratchet
from tests.benchmarks.gate.registry_attacks import build_bundles, try_attacks
from tests.benchmarks.gate.trials import judge_attacks, withstood

JUDGEMENTS = 200
WIDTH = 59


def main() -> int:
    """Run everything, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--promotes", type=int, default=1000, help="tries at the same moment")
    parser.add_argument("--only", default="", help="only attacks whose name contains this, no rest")
    parser.add_argument("--seed", type=int, default=7, help="of the simulated shop")
    options = parser.parse_args()
    set_up_logging()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder) / "honest"
        failures = list(_attack(Path(folder), parts, options.seed, options.only))
        if not options.only and (parts / "model").exists():
            failures += _measure_decisions(parts, options.promotes)
    took = f"{time.monotonic() - started:.0f} s, {_processor_seconds():.0f} s of processor time"
    _print(f"\n{took}, {len(failures)} not as they should be")
    for failure in failures:
        _print(f"  {failure}")
    return bool(failures)


def _attack(root: Path, parts: Path, seed: int, only: str) -> Iterator[str]:
    """Run the honest shop and the attacks; yields what is not as it should be."""
    market = root / "market"
    write_market(market, seed)
    honest = judge(market, {}, parts)
    _print(f"{'attack':{WIDTH}}  {'ended at':8}  {'metric':>6}  reason")
    _print_row(
        "(none: the honest shop)",
        honest.step,
        honest.metric,
        _find_part(honest.reasons, "") or "passed",
    )
    if not honest.passed or honest.metric is None:
        yield "the honest shop does not pass"
        return
    for attack, found in judge_attacks(root, market, parts, only):
        yield from _report(attack, found, honest.metric)
    if only:
        return
    bundles = build_bundles(parts, root / "bundles")
    for attempt, reason in try_attacks(bundles, root / "registries"):
        shown = _find_part((reason.replace(f"{root}/", ""),), attempt.names)
        _print_row(attempt.name, "registry", None, shown or "SUCCEEDED")
        if attempt.names not in reason or not reason:
            yield f"{attempt.name}: {reason or 'succeeded'}"


def _report(attack: Attack, found: Judgement, honest: float) -> Iterator[str]:
    reason = _find_part(found.reasons, attack.names)
    is_fine = withstood(attack, found, honest)
    shown = reason or ("passed" if is_fine else "PASSED")
    if found.passed and attack.compared in found.compared:
        shown += f", compared with {attack.compared}"
    elif found.passed and found.metric is not None:
        shown += f", {found.metric - honest:+.3f} of the honest model's"
    _print_row(attack.name, found.step, found.metric, shown)
    if not is_fine:
        yield f"{attack.name}: {reason or 'passed'}"


def _find_part(reasons: Sequence[str], names: str) -> str:
    """The part of a reason that contains some words, or else of the first reason."""
    parts = [" ".join(part.split()) for reason in reasons for part in reason.split("; ")]
    return ([part for part in parts if names in part] + parts + [""])[0]


def _measure_decisions(parts: Path, tries: int) -> Iterator[str]:
    """Measure rates, and let promotions race meanwhile, which mostly wait for each other."""
    with ThreadPoolExecutor(1) as thread:
        races = thread.submit(race_everywhere, tries)
        yield from _measure_rates(parts)
        yield from _report_races(races.result())


def _measure_rates(parts: Path) -> Iterator[str]:
    """Rates of verdicts on twins, on small losses, and on many tries on one window."""
    settings = read_settings({}).evaluation
    found = _read_queries(parts, settings)
    _print(f"\nverdicts on {JUDGEMENTS} resampled tests each: passed / cannot tell / refused")
    identical = rate_identical(found, 1000, settings, JUDGEMENTS)
    _print_rates("an identical model, 1,000 queries", identical)
    if identical["passed"] != JUDGEMENTS:
        yield "an identical model does not always pass"
    for n in (600, 2000, 10_000):
        twins = rate_twins(found, n, 0.1, settings, JUDGEMENTS)
        _print_rates(f"an equal model, other mistakes, {n:,} queries", twins)
    left = min(list(run_ratchet(found, 5000, 0.1, 0.017, 12, settings, s))[-1][1] for s in range(5))
    _print(f"{'12 refits, each 1.7% worse: quality left at worst':{WIDTH}}  {left:.3f}")
    if left < 1 - settings.champion_tolerance - 0.02:
        yield f"small losses add up: {left:.3f} is left"
    tries = simulate_tries()
    label = f"20 models that are no better, on each of {tries.windows} windows"
    _print(f"{label:{WIDTH}}  at least one passes: {tries.corrected:.0%}")
    _print(f"{'  the same without the ledger':{WIDTH}}  {tries.uncorrected:.0%}")
    if tries.corrected > 0.1:
        yield f"repeated tries pass: {tries.corrected:.0%}"


def _read_queries(parts: Path, settings: EvaluationSettings) -> JudgedQueries:
    data = EvaluationData(parts / "features")
    queries = build_evaluation_set(data, "test", settings.candidates)
    ranks = rank(load_model(data, parts / "model"), queries, settings.longest).rank
    hits = per_query(ranks, settings.cuts)[settings.metric]
    return JudgedQueries(data.log.user[queries.queries.rows].astype("int64"), hits)


def _report_races(races: Mapping[str, Race]) -> Iterator[str]:
    _print("\npromotions at the same moment: tries with exactly one winner")
    for place, race in races.items():
        _print(f"{place:{WIDTH}}  {race.one_winner:,} of {race.tries:,}")
        if not race.is_perfect:
            yield f"promotions at the same moment in {place}: {race}"


def _print_row(name: str, step: str, metric: float | None, reason: str) -> None:
    value = "" if metric is None else f"{metric:.3f}"
    _print(f"{name:{WIDTH}}  {step:8}  {value:>6}  {reason[:160]}")


def _print_rates(name: str, outcomes: dict[str, int]) -> None:
    counts = [str(outcomes.get(outcome, 0)) for outcome in ("passed", "cannot tell", "refused")]
    _print(f"{name:{WIDTH}}  {' / '.join(counts)}")


def _processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    log_message("a simulated shop is attacked; this takes minutes")
    sys.exit(main())
