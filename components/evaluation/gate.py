"""The gate: every requirement on a model is a check, and a check without a measurement fails.

A missing measurement does not remove its check: the check is then created with None.
"""

from collections.abc import Iterator

from components.evaluation.choice import check_choice
from components.evaluation.results import Interval, Method, Results, SliceResult
from components.evaluation.settings import EvaluationSettings
from refit.verdict import Check, Verdict


def apply_gate(settings: EvaluationSettings, results: Results) -> Verdict:
    """Compare every measurement with its threshold."""
    return Verdict.of(
        [
            *_sample_size(settings, results),
            *check_choice(settings, results),
            *_against_baselines(settings, results),
            *_against_champion(settings, results),
            *_slices(settings, results),
            *_exposure(settings, results),
            *_index(settings, results),
            Check(
                name="model server: largest difference from the model",
                measured=results.smoke.gap,
                at_most=settings.max_smoke_test_gap,
                n=results.smoke.n,
                needs_n=1,
                why=results.smoke.why,
            ),
        ]
    )


def _sample_size(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    yield Check(name="test queries", measured=results.n_queries, at_least=settings.min_queries)
    yield Check(name="test users", measured=results.n_users, at_least=settings.min_users)
    contradictions = sum(n for why, n in results.left_out.items() if why != "item not seen")
    n_queries = results.n_queries + contradictions
    yield Check(
        name="share of queries whose positive was not eligible",
        measured=contradictions / n_queries if n_queries else None,
        at_most=settings.max_unanswerable,
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
    for baseline in results.of_kind("baseline"):
        yield _low_end(
            f"gain over {baseline.name}",
            baseline.gain.get(settings.metric),
            settings,
            results,
            above=0.0,
        )
    best = results.best_baseline(settings.metric)
    value = _metric(best, settings.metric)
    yield Check(
        name=f"gain over the best baseline, {_plain(settings.metric)}",
        measured=best.gain.get(settings.metric, Interval()).value if best else None,
        at_least=settings.margin * (value or 0.0),
        n=results.n_queries,
        needs_n=settings.min_queries,
        why="" if best else "no baseline was run",
    )
    best_on_guard = results.best_baseline(settings.guard_metric)
    yield _low_end(
        f"gain over the best baseline, {_plain(settings.guard_metric)}",
        best_on_guard.gain.get(settings.guard_metric) if best_on_guard else None,
        settings,
        results,
        at_least=-settings.guard_tolerance * (_metric(best_on_guard, settings.guard_metric) or 0.0),
    )


def _against_champion(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    for champion in (m for m in results.methods if m.kind == "champion"):
        value = _metric(champion, settings.metric)
        check = _low_end(
            "gain over the champion",
            champion.gain.get(settings.metric) if value is not None else None,
            settings,
            results,
            at_least=-settings.champion_tolerance * (value or 0.0),
        )
        why = champion.not_run or f"the champion has no {settings.metric}"
        yield check.model_copy(update={"why": why}) if check.measured is None else check


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


def _low_end(
    name: str,
    gain: Interval | None,
    settings: EvaluationSettings,
    results: Results,
    at_least: float | None = None,
    above: float | None = None,
) -> Check:
    """A check of the lower end of a paired difference's interval."""
    measured = gain.low if gain is not None and gain.value is not None else None
    return Check(
        name=f"{name} (low end of 95%)",
        measured=measured,
        at_least=at_least,
        above=above,
        n=results.n_queries,
        needs_n=settings.min_queries,
    )


def _find_baseline(results: Results, name: str) -> Method | None:
    """The baseline with this name, either in the results or in the settings."""
    baselines = (m for m in results.methods if m.kind == "baseline")
    return next((m for m in baselines if name in (m.name, m.extension)), None)


def _plain(metric: str) -> str:
    return metric.replace("_", " ")


def _model(results: Results) -> Method:
    return next(
        (m for m in results.methods if m.kind == "model"),
        Method(name="model", kind="model", not_run="the model was not ranked"),
    )


def _metric(method: Method | None, name: str) -> float | None:
    return method.metrics.get(name, Interval()).value if method else None
