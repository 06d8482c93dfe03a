"""Name the cause of incidents whose cause is known: a row for each kind, by size.

    python -m tests.benchmarks.drift.causes --count 203 --seed 57 --cache /tmp/causes

Every incident is lived, measured day by day and explained at its end. An alert that was open before
it began counts as resolved then. With ``--cache`` what was measured is kept, so that the same seed
is explained again within a minute; ``--signs`` prints how often each sign shows with each cause,
beside the words of ``monitoring/explain/causes``.
"""

import argparse
import pickle
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from monitoring.budget import Evidence, collect_evidence
from monitoring.decide import PolicyState, find_drift
from monitoring.explain import ExplainContext, advise_action, collect_context, explain
from monitoring.explain.causes import CAUSES, UNNAMED
from monitoring.explain.moves import Moves
from monitoring.explain.signs import SIGNS, Observed, find_signs
from monitoring.measure import measure
from monitoring.reference import Reference
from monitoring.settings import MeasureSettings, PolicySettings
from monitoring.summary import WindowSummary
from refit.drift import DriftResult
from refit.incident import Cause, Incident
from tests.benchmarks.drift.incidents import (
    SIZES,
    WORLDS,
    KnownIncident,
    draw_incidents,
    live_incidents,
)
from tests.benchmarks.drift.lived import LivedMarket, LivedSettings
from tests.benchmarks.drift.pool import open_pool
from tests.benchmarks.drift.printing import find_interval, print_row

GOAL = 0.9
SEED = 57
MEASURE, POLICY = MeasureSettings(), PolicySettings()
LIVED = LivedSettings(holdout=0.1)
REFERENCE = "reference"


@dataclass(frozen=True)
class Watched:
    """An incident as the monitor saw it.

    Attributes:
        incident: What happened.
        began: When it began.
        results: Of the calm days and its own; those of alerts that were resolved left out.
        context: What the cause depends on besides.
        resolved: Results that moved before it began.
    """

    incident: KnownIncident
    began: datetime
    results: tuple[DriftResult, ...]
    context: ExplainContext
    resolved: tuple[str, ...]

    @property
    def evidence(self) -> Evidence:
        """Of the results of the towers in service."""
        newest = max(self.results, key=lambda r: r.window.end)
        own = [r for r in self.results if r.embedding_version == newest.embedding_version]
        return collect_evidence(POLICY, MEASURE, own)

    @property
    def alerted(self) -> bool:
        """Whether there is an alert at the end about what happened, by the rules of ``decide``.

        An alert about what was never measured is none: it was there before.
        """
        now = max(result.window.end for result in self.results)
        newest = max(self.results, key=lambda r: r.window.end)
        own = [r for r in self.results if r.embedding_version == newest.embedding_version]
        state = PolicyState(now=now, evidence=self.evidence)
        found = find_drift(POLICY, own, state)
        measured = {r.name for r in own if r.value is not None}
        return bool(found.drifting or found.named or measured & set(found.unmeasured))

    def explain(self) -> Incident:
        """The story."""
        return explain(self.results, self.evidence, self.context)


def watch(
    incident: KnownIncident,
    market: LivedMarket,
    reference: Reference,
    calm: tuple[list[DriftResult], list[WindowSummary]],
) -> Watched:
    """Live through an incident that begins now, and measure every day of it.

    Args:
        incident: It has begun.
        market: Where.
        reference: Of the towers that were fitted first.
        calm: Results and summaries of the days before; the days that it lacks are added.
    """
    began, results, history = market.now, *calm
    lived = len({result.window for result in results})
    if incident.calm_days > lived:
        windows = market.windows(incident.calm_days)[lived:]
        measured = measure(MEASURE, reference, market.data(), windows, history=history)
        results += measured.results
        history += measured.summaries
    before = list(results)
    if market.embedding_version != reference.manifest.embedding_version:
        reference = Reference.read(market.build_reference(MEASURE, REFERENCE))
        history = []
    own: list[DriftResult] = []
    history = list(history)
    for _ in range(incident.days):
        market.live(1)
        data = replace(market.data(), reencoded=market.encoded)
        measured = measure(MEASURE, reference, data, market.windows(1), history=history)
        own += measured.results
        history += measured.summaries
    resolved = set(Moves.of(before).list_moved())
    kept = (*(r for r in before if r.name not in resolved), *own)
    context = collect_context(MEASURE, reference, data, kept, history)
    return Watched(incident, began, kept, context, tuple(sorted(resolved)))


def watch_world(job: tuple[Sequence[KnownIncident], Path | None]) -> list[Watched]:
    """Live through the incidents of one market; those that are in the cache are read from it."""
    incidents, cache = job
    found = {i.seed: _read(cache, i) for i in incidents}
    lacking = [i for i in incidents if found[i.seed] is None]
    calm: tuple[list[DriftResult], list[WindowSummary]] = [], []
    references: list[Reference] = []

    def prepare(market: LivedMarket) -> None:
        references.append(Reference.read(market.build_reference(MEASURE, REFERENCE)))

    with TemporaryDirectory() as root:
        lived = live_incidents(lacking, Path(root), prepare, settings=LIVED, live=False)
        for incident, market in lived:
            watched = watch(incident, market, references[-1], calm)
            found[incident.seed] = watched
            if cache is not None:
                _place(cache, incident).write_bytes(pickle.dumps(watched))
    return [watched for watched in found.values() if watched is not None]


def _place(cache: Path, incident: KnownIncident) -> Path:
    return cache / f"{incident.world}-{incident.seed}.pkl"


def _read(cache: Path | None, incident: KnownIncident) -> Watched | None:
    if cache is None or not _place(cache, incident).is_file():
        return None
    watched: Watched = pickle.loads(_place(cache, incident).read_bytes())
    return watched if watched.incident == incident else None


def watch_all(
    pool: Executor,
    count: int,
    seed: int = SEED,
    cache: Path | None = None,
    kinds: Sequence[str] = (),
) -> Iterator[Watched]:
    """Begin to live through incidents of one seed, in one process for each market."""
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    drawn = draw_incidents(count, seed, kinds)
    worlds = [[i for i in drawn if i.world % 1000 == world] for world in range(WORLDS)]
    return chain.from_iterable(pool.map(watch_world, [(own, cache) for own in worlds if own]))


def judge(watched: Watched) -> str:
    """``right``, ``unknown``, ``no alert``, or the wrong cause."""
    if not watched.alerted:
        return "no alert"
    told = watched.explain().cause
    if told is watched.incident.cause:
        return "right"
    return "unknown" if told is Cause.UNKNOWN else str(told)


def print_causes(every: Sequence[Watched]) -> Iterator[str]:
    """Print a row for each kind, and the totals; yields what misses the goal."""
    verdicts = [(each, judge(each)) for each in every]
    print_row("kind", "right / alerts, by size", "no alert", "unknown and wrong")
    by_kind: dict[str, list[tuple[Watched, str]]] = defaultdict(list)
    for each, verdict in verdicts:
        by_kind[each.incident.kind].append((each, verdict))
    for kind, own in sorted(by_kind.items(), key=lambda p: (p[1][0][0].incident.cause, p[0])):
        sizes = []
        for size in SIZES:
            told = [v for each, v in own if each.incident.size == size and v != "no alert"]
            sizes.append(f"{told.count('right')}/{len(told)}")
        others = Counter(v for _, v in own if v not in ("right", "no alert"))
        print_row(
            f"{kind} ({own[0][0].incident.cause})",
            "  ".join(sizes),
            str(sum(v == "no alert" for _, v in own) or ""),
            ", ".join(f"{n} {name}" for name, n in others.items()),
        )
    alerts = [(each, v) for each, v in verdicts if v != "no alert"]
    right = sum(v == "right" for _, v in alerts)
    unknown = sum(v == "unknown" for _, v in alerts)
    low, high = find_interval(right, len(alerts))
    share = right / max(len(alerts), 1)
    print_row(
        f"cause named right, of {len(alerts)} alerts of {len(every)} incidents",
        f"{share:.3f} ({low:.3f} to {high:.3f})",
        f">= {GOAL}",
        f"{unknown} unknown, {len(alerts) - right - unknown} wrong",
    )
    _print_more(alerts)
    if share < GOAL:
        yield f"cause named right: {share:.3f}"


def _print_more(alerts: Sequence[tuple[Watched, str]]) -> None:
    stories = [(each, each.explain()) for each, _ in alerts]
    helped = [
        advise_action(story).action in (each.incident.action, *each.incident.also)
        for each, story in stories
    ]
    low, high = find_interval(sum(helped), len(helped))
    print_row(
        "action that helps, or is no mistake",
        f"{sum(helped)}/{len(helped)}",
        "",
        f"{low:.3f} to {high:.3f}",
    )
    feeds = [
        story.feed.split(".")[0] == each.incident.feed.split(".")[0]
        for each, story in stories
        if story.cause is Cause.UPSTREAM_FAULT is each.incident.cause
    ]
    print_row("table of a broken feed named right", f"{sum(feeds)}/{len(feeds)}")
    days = [abs((story.began - each.began).days) <= 1 for each, story in stories]
    print_row("beginning right within a day", f"{sum(days)}/{len(days)}")
    resolved = sum(bool(each.resolved) for each, _ in alerts)
    print_row("results moved before the incident began", f"{resolved}/{len(alerts)}")


def print_signs(every: Sequence[Watched]) -> None:
    """Print how often each sign shows with each cause, of the alerts in which it is known."""
    shown: dict[tuple[str, Cause], list[bool]] = defaultdict(list)
    for each in every:
        if each.alerted:
            states = find_signs(Observed(Moves.of(each.results), each.context))
            for name, state in states.items():
                if state is not None:
                    shown[name, each.incident.cause].append(state)
    for sign in SIGNS:
        for cause in CAUSES:
            own = shown[sign.name, cause.cause]
            word = cause.shows.get(sign.name, UNNAMED)
            print_row(f"{sign.name}, {cause.cause}", f"{sum(own)}/{len(own)}", word)


def main() -> int:
    """Print the table; the exit code is 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=203)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--kinds", nargs="*", default=())
    parser.add_argument("--signs", action="store_true")
    options = parser.parse_args()
    with open_pool(options.processes) as pool:
        asked = options.count, options.seed, options.cache, options.kinds
        every = list(watch_all(pool, *asked))
    if options.signs:
        print_signs(every)
    return bool(list(print_causes(every)))


if __name__ == "__main__":
    # What is kept names its class by this module, whichever module was started.
    from tests.benchmarks.drift import causes

    raise SystemExit(causes.main())
