"""The gate: every requirement on a model is a check, and a check without a measurement fails.

A missing measurement does not remove its check: the check is then created with None.
"""

from collections.abc import Iterator

from components.evaluation.choice import check_choice
from components.evaluation.leak_checks import check_leaks
from components.evaluation.power import SampleSize, chance_of_equal, needed_factor
from components.evaluation.results import (
    CHAMPION,
    Interval,
    Method,
    Results,
    SliceResult,
    SmokeResult,
)
from components.evaluation.settings import EvaluationSettings, SliceFloor
from refit.model import ITEM_TOWER, QUERY_TOWER
from refit.subject import VerdictSubject
from refit.verdict import Check, Verdict

POPULARITY_BASELINES = ("popularity", "popularity_in_context")
"""Baselines that towers of the kind ``baseline`` are, by their name in the settings."""


def apply_gate(
    settings: EvaluationSettings, results: Results, subject: VerdictSubject | None = None
) -> Verdict:
    """Compare every measurement with its threshold.

    Args:
        settings: The thresholds.
        results: The measurements.
        subject: What was measured, recorded in the verdict.
    """
    results = _at_level_of_look(results)
    if results.kind == "baseline":
        return Verdict.of([*_baseline_as_itself(settings, results)], subject)
    return Verdict.of(
        [
            *_looks(settings, results),
            *_sample_size(settings, results),
            *check_choice(settings, results),
            *_against_baselines(settings, results),
            *_against_champion(settings, results),
            *_slices(settings, results),
            *_freshness(settings, results),
            *_exposure(settings, results),
            *_bounds(settings, results),
            *_index(settings, results),
            *check_leaks(settings, results),
            *_smoke_tests(settings, results),
        ],
        subject,
    )


def _baseline_as_itself(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    """The checks of a baseline that is to be served as itself, while there is no model.

    It must be what it says, and nothing must be wrong with data, index and server. It cannot beat
    itself, and it shows popular items: neither is asked of it.
    """
    yield Check(
        name="a baseline may be served as itself (1 = yes)",
        measured=float(settings.serve_baseline),
        at_least=1.0,
        more="" if settings.serve_baseline else "evaluation.serve_baseline: true allows it",
    )
    yield Check(
        name="champions that the baseline would take the place of",
        measured=sum(method.kind == "champion" for method in results.methods),
        at_most=0,
    )
    popular = [m for m in results.of_kind("baseline") if m.extension in POPULARITY_BASELINES]
    values = [v for m in popular if (v := _metric(m, settings.metric)) is not None]
    yield Check(
        name=f"{_plain(settings.metric)}, against the best popularity baseline",
        measured=_metric(_model(results), settings.metric) if values else None,
        at_least=settings.baseline_share * max(values, default=0.0),
        above=0.0,
        n=results.n_queries,
        needs_n=settings.min_queries,
        why="evaluation.baselines runs none",
    )
    yield from _looks(settings, results)
    yield from _sample_size(settings, results)
    yield from check_choice(settings, results)
    yield from _freshness(settings, results)
    yield from _bounds(settings, results)
    yield from _index(settings, results)
    gain = results.leaks.gain.value
    if gain is not None and gain <= 0:
        name = "gain over popularity, which a leak would raise"
        yield Check(name=name, measured=gain, at_most=0.0)
    else:
        yield from check_leaks(settings, results)
    yield from _smoke_tests(settings, results)


def _at_level_of_look(results: Results) -> Results:
    """The results with the intervals of gains at the level that this look has to clear."""

    def widen(gain: Interval) -> Interval:
        if gain.value is None or gain.low is None or gain.high is None:
            return gain
        low, high = (results.looks.widen(gain.value, end) for end in (gain.low, gain.high))
        return gain.model_copy(update={"low": low, "high": high})

    widened = [
        method.model_copy(
            update={"gain": {name: widen(gain) for name, gain in method.gain.items()}}
        )
        for method in results.methods
    ]
    return results.model_copy(update={"methods": tuple(widened)})


def _looks(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    if settings.looks.refuse:
        yield Check(
            name="looks at this test window",
            measured=results.looks.number,
            at_most=settings.looks.most,
            why="no ledger was kept: the evaluation was given no registry",
        )


def _sample_size(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    for name, n, needed in (
        ("test queries", results.n_queries, settings.min_queries),
        ("test users", results.n_users, settings.min_users),
    ):
        more = "" if n >= needed else _size(results).describe_more(needed / max(n, 1))
        yield Check(name=name, measured=n, at_least=needed, undecided=True, more=more)
    left_out = sum(results.left_out.values())
    every = results.n_queries + left_out
    yield Check(
        name="share of queries that were left out",
        measured=left_out / every if every else None,
        at_most=settings.max_left_out,
        why="there is no query",
    )
    contradictions = sum(n for why, n in results.left_out.items() if why != "item not seen")
    n_queries = results.n_queries + contradictions
    yield Check(
        name="share of queries whose positive was not eligible",
        measured=contradictions / n_queries if n_queries else None,
        at_most=settings.max_unanswerable,
    )
    known = results.positive_in_history
    yield Check(
        name="share of queries whose positive was in the history within the hour",
        measured=known.within_hour,
        at_most=settings.max_positive_in_history,
        n=known.n,
        needs_n=1,
        why="the histories were not looked at",
    )
    named = f" ({', '.join(results.undeclared)})" if results.undeclared else ""
    yield Check(
        name=f"columns of today's values that features.spec.static does not name{named}",
        measured=None if results.undeclared is None else len(results.undeclared),
        at_most=0,
        why="the features do not say; build them again",
    )
    model = _model(results)
    yield Check(
        name="non-finite scores of the model",
        measured=model.not_finite,
        at_most=0,
        why=model.not_run,
    )


def _against_baselines(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    for name in settings.required_baselines:
        required = _find_baseline(results, name)
        if required is None or required.not_run:
            why = required.not_run if required else "evaluation.baselines does not name it"
            yield Check(name=f"gain over {name}", measured=None, why=why)
    for silent in (m for m in results.methods if m.kind == "baseline" and m.not_run):
        is_required = {silent.name, silent.extension} & {*settings.required_baselines}
        if not silent.excused and not is_required:
            why = f"{silent.not_run}; if it need not run, say why in evaluation.baselines.excused"
            yield Check(name=f"gain over {silent.name}", measured=None, why=why)
    size, level = _size(results), results.looks.level
    for baseline in results.of_kind("baseline"):
        gain = baseline.gain.get(settings.metric, Interval())
        yield _better(f"gain over {baseline.name}", gain, settings, size, level)
    best = results.best_baseline(settings.metric)
    value = _metric(best, settings.metric)
    gain = best.gain.get(settings.metric, Interval()) if best else Interval()
    needed = settings.margin * (value or 0.0)
    yield Check(
        name=f"gain over the best baseline, {_plain(settings.metric)}",
        measured=gain.value,
        at_least=needed,
        n=results.n_queries,
        needs_n=settings.min_queries,
        why="" if best else "no baseline was run",
        undecided=gain.high is not None and gain.high >= needed,
    )
    best = results.best_baseline(settings.guard_metric)
    yield _not_worse(
        f"gain over the best baseline, {_plain(settings.guard_metric)}",
        best.gain.get(settings.guard_metric, Interval()) if best else Interval(),
        settings.guard_tolerance * (_metric(best, settings.guard_metric) or 0.0),
        settings,
        size,
        level,
    )


def _against_champion(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    for champion in (m for m in results.methods if m.kind == "champion"):
        yield from decide_against_champion(
            settings, champion, results.queries_per_day, results.looks.level
        )


def decide_against_champion(
    settings: EvaluationSettings,
    champion: Method,
    queries_per_day: float | None = None,
    level: float = 0.95,
) -> Iterator[Check]:
    """The checks of the comparison with the champion, or with an earlier one.

    Args:
        settings: The tolerance and the power.
        champion: The measured comparison.
        queries_per_day: Queries that a day of the test window gave.
        level: Confidence level of the gain's interval.
    """
    name = f"gain over {_the(champion)}"
    size = SampleSize(champion.n_compared or 0, queries_per_day)
    short = champion.n_compared is not None and champion.n_compared < settings.min_queries
    if short:
        yield Check(
            name=f"{name}: queries that it has not seen",
            measured=champion.n_compared,
            at_least=settings.min_queries,
            undecided=True,
            more=size.describe_more(settings.min_queries / max(size.n_queries, 1)),
        )
    value = champion.compared.get(settings.metric, Interval()).value
    if value is None or champion.n_compared is None:
        why = champion.not_run or f"the champion has no {settings.metric}"
        if not short:
            yield Check(name=name, measured=None, why=why)
        return
    gain = champion.gain.get(settings.metric, Interval())
    margin = settings.champion_tolerance * value
    yield _not_worse(name, gain, margin, settings, size, level)
    yield Check(
        name=f"users compared with {_the(champion)}",
        measured=champion.users_compared,
        at_least=settings.min_users,
        undecided=True,
    )


def _slices(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    by_name = {s.name: s for s in results.slices}
    model = _model(results).name
    baselines = [m.name for m in results.of_kind("baseline")]
    for floor in settings.slice_floors:
        part = by_name.get(floor.slice, SliceResult(name=floor.slice, n=0))
        reached = part.metrics.get(model, Interval())
        values = [part.metrics.get(name, Interval()).value for name in baselines]
        best = None if not values or None in values else max(v for v in values if v is not None)
        needed = None if best is None else floor.of_best_baseline * best
        yield Check(
            name=f"{floor.slice}: {_plain(settings.metric)}",
            measured=None if needed is None else reached.value,
            at_least=needed,
            above=0.0,
            n=part.n,
            needs_n=floor.needs_n,
            why="" if part.n else "no test query is in this slice",
        )
        if floor.at_least:
            yield Check(
                name=f"{floor.slice}: {_plain(settings.metric)} (low end of 95%)",
                measured=reached.low,
                at_least=floor.at_least,
                n=part.n,
                needs_n=floor.needs_n,
            )
        yield Check(
            name=f"{floor.slice}: users",
            measured=float(part.n_users),
            at_least=float(floor.needs_users),
            undecided=True,
        )
        for champion in results.of_kind("champion"):
            yield _slice_against(champion, floor, part, settings)


def _slice_against(
    champion: Method, floor: SliceFloor, part: SliceResult, settings: EvaluationSettings
) -> Check:
    """A slice is refused when it is shown to be worse than the champion's by more than allowed.

    Slices are many and small: to demand proof that each is as good would refuse equal models.
    """
    value = part.metrics.get(champion.name, Interval()).value
    gain = part.gain.get(champion.name, Interval())
    return Check(
        name=f"{floor.slice}: gain over {_the(champion)} (high end of 95%)",
        measured=None if value is None else gain.high,
        at_least=-(1.0 - floor.of_champion) * (value or 0.0),
        n=part.n,
        needs_n=floor.needs_n,
        why="" if part.n else "no test query is in this slice",
    )


def _freshness(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    fresh, limits = results.freshness, settings.freshness
    why = "model.json does not say until when it was trained"
    yield Check(
        name="days of the test window that the model was trained on",
        measured=fresh.overlap_days,
        at_most=0.0,
        why=why,
    )
    yield Check(
        name="age of the model's newest example in days",
        measured=fresh.model_days,
        at_most=limits.max_model_days,
        why=why,
    )
    yield Check(
        name="age of the index's items in days",
        measured=fresh.index_days,
        at_most=limits.max_index_days,
        why="the index cannot be read",
    )
    yield Check(
        name="age of the last test query in days",
        measured=fresh.test_days,
        at_most=limits.max_test_days,
        why="there is no test query",
    )


def _smoke_tests(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    for tower in (QUERY_TOWER, ITEM_TOWER):
        smoke = results.smoke.get(tower, SmokeResult(why="it was not tested"))
        yield Check(
            name=f"model server, {_plain(tower)}: largest difference from the model",
            measured=smoke.gap,
            at_most=settings.max_smoke_test_gap,
            n=smoke.n,
            needs_n=1,
            why=smoke.why,
        )


def _exposure(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    exposure = _model(results).exposure
    k = settings.longest
    yield Check(
        name=f"coverage of the stock at {k}",
        measured=exposure.coverage,
        at_least=settings.min_coverage,
    )
    yield Check(
        name=f"Gini of item exposure at {k}",
        measured=exposure.item_gini,
        at_most=settings.max_item_gini,
    )
    if settings.max_seller_gini is not None:
        yield Check(
            name=f"Gini of seller exposure at {k}",
            measured=exposure.seller_gini,
            at_most=settings.max_seller_gini,
            why="the items have no sellers; if that is correct, set max_seller_gini to null",
        )


def _bounds(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    model = _model(results)
    measured = model.beyond.values | {name: m.value for name, m in model.metrics.items()}
    for name, bound in settings.bounds.items():
        yield Check(
            name=_plain(name),
            measured=measured.get(name),
            at_least=bound.at_least,
            at_most=bound.at_most,
            n=results.n_queries,
            needs_n=settings.min_queries,
            why=model.beyond.why.get(name, "it is not among the measurements"),
        )


def _index(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    index = results.index
    known = index.embedding_version and results.embedding_version
    yield Check(
        name="index built with the model's towers (1 = yes)",
        measured=float(index.embedding_version == results.embedding_version) if known else None,
        at_least=1.0,
        why=index.why or "index.json or model.json has no embedding_version",
    )
    yield Check(
        name="index recall@100, as recorded",
        measured=index.recorded_recall,
        at_least=settings.min_index_recall,
        why=index.why,
    )
    yield Check(
        name="index recall@100, on test queries",
        measured=index.recall,
        at_least=settings.min_index_recall,
        n=index.n,
        needs_n=1,
        why=index.why,
    )
    yield Check(
        name="index search, 99th percentile in ms",
        measured=index.p99_ms,
        at_most=settings.max_index_p99_ms,
        n=index.n,
        needs_n=1,
        why=index.why,
    )
    yield Check(
        name="index vectors: largest difference from the item tower",
        measured=index.vector_gap,
        at_most=settings.max_vector_gap,
        why=index.why or "index and features do not have the same live items",
    )


def _better(
    name: str, gain: Interval, settings: EvaluationSettings, size: SampleSize, level: float
) -> Check:
    """The gain must be shown to be above zero; while it may still be, the data cannot tell."""
    undecided = gain.high is not None and gain.high > 0.0
    factor = needed_factor(gain, gain.value or 0.0, settings.power)
    more = size.describe_more(factor) if undecided and factor else ""
    return Check(
        name=f"{name} (low end of {100 * level:.4g}%)",
        measured=None if gain.value is None else gain.low,
        above=0.0,
        n=size.n_queries,
        needs_n=settings.min_queries,
        undecided=undecided,
        more=more if (gain.low or 0.0) <= 0.0 else "",
    )


def _not_worse(
    name: str,
    gain: Interval,
    margin: float,
    settings: EvaluationSettings,
    size: SampleSize,
    level: float,
) -> Check:
    """The gain must be shown to be above ``-margin``, by a test that can show it.

    In a test in which an equal model would pass by luck only, the model must be shown to be better.
    A model that is shown to be worse is refused, and in between the data cannot tell.
    """
    chance = chance_of_equal(gain, margin)
    can_show = chance is not None and chance >= settings.equal_passes
    needed = -margin if can_show else 0.0
    undecided = gain.high is not None and gain.high >= 0.0
    more = ""
    if undecided and gain.low is not None and gain.low < needed:
        # For a larger test, what counts is an equal model; for this model, where it seems to be.
        distance = margin if not can_show else (gain.value or 0.0) + margin
        factor = needed_factor(gain, distance, settings.equal_passes)
        more = size.describe_more(factor) if factor else ""
        if not can_show and chance is not None:
            too_small = f"with the tolerance of {margin:.4g} an equal model passes in {chance:.0%}"
            more = f"{too_small} of such tests; {more}" if more else too_small
    return Check(
        name=f"{name} (low end of {100 * level:.4g}%)",
        measured=None if gain.value is None else gain.low,
        at_least=needed,
        n=size.n_queries,
        needs_n=settings.min_queries,
        undecided=undecided,
        more=more,
    )


def _size(results: Results) -> SampleSize:
    return SampleSize(results.n_queries, results.queries_per_day)


def _find_baseline(results: Results, name: str) -> Method | None:
    """The baseline with this name, either in the results or in the settings."""
    baselines = (m for m in results.methods if m.kind == "baseline")
    return next((m for m in baselines if name in (m.name, m.extension)), None)


def _the(champion: Method) -> str:
    return "the champion" if champion.name == CHAMPION else champion.name


def _plain(metric: str) -> str:
    return metric.replace("_", " ")


def _model(results: Results) -> Method:
    return next(
        (m for m in results.methods if m.kind == "model"),
        Method(name="model", kind="model", not_run="the model was not ranked"),
    )


def _metric(method: Method | None, name: str) -> float | None:
    return method.metrics.get(name, Interval()).value if method else None
