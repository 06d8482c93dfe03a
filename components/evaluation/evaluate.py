"""The evaluation step: rank, measure, compare, apply the gate, write the results."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.bootstrap import Replicates
from components.evaluation.data import (
    CandidateSnapshot,
    EvaluationData,
    Floats,
    Ints,
    Longs,
    Queries,
)
from components.evaluation.examples import draw_examples
from components.evaluation.gate import apply_gate
from components.evaluation.index_check import check_index
from components.evaluation.metrics import coverage, exposure, gini, per_query
from components.evaluation.pictures import draw_pictures
from components.evaluation.predictions import write_predictions
from components.evaluation.ranking import (
    EvaluationSet,
    Ranking,
    ScoreBlock,
    Scorer,
    build_evaluation_set,
    rank,
)
from components.evaluation.report import write_report
from components.evaluation.results import (
    CHAMPION,
    MODEL,
    Exposure,
    Interval,
    Method,
    Results,
    SliceResult,
)
from components.evaluation.settings import EvaluationSettings
from components.evaluation.slices import cut_slices
from components.evaluation.smoke import SmokeTest
from components.evaluation.towers import (
    TowerScorer,
    load_champion,
    load_model,
    read_embedding_version,
)
from components.evaluation.tuning import Baseline, NotRun, load_baselines, tune_baselines
from refit.errors import RefitError
from refit.files import remove, write_atomically, write_json
from refit.progress import Meter, log_message, timed
from refit.verdict import Verdict

METRICS_FILE = "metrics.json"
VERDICT_FILE = "verdict.json"
PREDICTIONS_FILE = "predictions.parquet"
SMOKE_QUERIES = 16


def evaluate(
    settings: EvaluationSettings,
    features: Path,
    model: Path,
    index: Path,
    out: Path,
    champion: Path | None = None,
) -> Verdict:
    """Evaluate a model on the test split and write the evaluation folder, atomically.

    The folder holds metrics.json, verdict.json, report.html, report.md, health.json, pictures/ and
    predictions.parquet. Item features are those of the snapshots in the features folder: one at the
    start of the test, or several in the course of it.

    Args:
        settings: How to evaluate, and every threshold.
        features: Features folder that the model was trained on.
        model: Model folder.
        index: Index folder that was built with the model.
        out: The evaluation folder; an existing one is replaced.
        champion: Bundle folder of the champion to compare with, if there is one.

    Raises:
        DataValidationError: A split is empty, or the features are incomplete.
        UsageError: Model and features do not match, or a baseline is unknown.
        RefitError: A baseline failed.
    """
    baselines = load_baselines(settings.baselines)
    with SmokeTest(settings, model) as smoke:
        verdict = _evaluate(settings, baselines, features, model, index, out, champion, smoke)
    log_message("the gate passed the model" if verdict.passed else "the gate refused the model")
    for reason in verdict.reasons:
        log_message(f"  {reason}")
    return verdict


def _evaluate(
    settings: EvaluationSettings,
    baselines: list[Baseline],
    features: Path,
    model: Path,
    index: Path,
    out: Path,
    champion: Path | None,
    smoke: SmokeTest,
) -> Verdict:
    with timed("read the features"):
        data = EvaluationData(features)
    evaluation_set = build_evaluation_set(
        data,
        "test",
        settings.candidates,
        max_queries=settings.max_queries,
    )
    log_message(
        f"{len(evaluation_set.queries):,} test queries over {len(evaluation_set.groups)} snapshots"
    )
    towers = load_model(data, model)
    vectors = towers.embed_queries(evaluation_set.queries)
    few = np.arange(min(SMOKE_QUERIES, len(evaluation_set.queries)))
    smoke.send(towers.query_inputs(evaluation_set.queries.take(few)), vectors[few])
    methods, rankings = _rank_all(settings, baselines, data, evaluation_set, towers, champion)
    with timed("bootstrapped the intervals"):
        measured, slices, n_users = _measure(settings, evaluation_set, methods, rankings)
    results = Results(
        protocol=_describe(settings, data, evaluation_set),
        n_queries=len(evaluation_set.queries),
        n_users=n_users,
        left_out=evaluation_set.left_out,
        removed=dict(rankings[MODEL].removed),
        embedding_version=read_embedding_version(model),
        methods=measured,
        slices=slices,
        index=check_index(index, data, towers, vectors),
        smoke=smoke.result(),
    )
    verdict = apply_gate(settings, results)
    examples = draw_examples(evaluation_set, rankings, MODEL, settings.examples, settings.seed)
    with write_atomically(out) as folder:
        folder.mkdir()
        write_json(folder / METRICS_FILE, results.model_dump(mode="json"))
        write_json(folder / VERDICT_FILE, verdict.model_dump(mode="json"))
        write_predictions(
            folder / PREDICTIONS_FILE,
            data,
            towers,
            results.embedding_version or "",
            settings,
        )
        pictures = draw_pictures(folder / "pictures", settings, results)
        write_report(folder, settings, results, verdict, examples, pictures, data.manifest)
        remove(out)
    return verdict


def _rank_all(
    settings: EvaluationSettings,
    baselines: list[Baseline],
    data: EvaluationData,
    evaluation_set: EvaluationSet,
    towers: TowerScorer,
    champion: Path | None,
) -> tuple[list[Method], dict[str, Ranking]]:
    """Rank with the model, the champion and every baseline, all by the same code.

    Raises:
        RefitError: A baseline failed.
    """
    methods: list[Method] = []
    rankings: dict[str, Ranking] = {}

    def add(method: Method, scorer: Scorer | None) -> None:
        if scorer is not None:
            n = len(evaluation_set.queries)
            with (
                timed(f"ranked with {method.name}"),
                Meter(f"rank with {method.name}", n, "queries") as progress,
            ):
                ranking = rank(_Counted(scorer, progress), evaluation_set, settings.longest)
            rankings[method.name] = ranking
            method = method.model_copy(update={"not_finite": ranking.not_finite})
        methods.append(method)

    add(Method(name=MODEL, kind="model"), towers)
    if champion is not None:
        loaded = load_champion(data, champion)
        if isinstance(loaded, str):
            add(Method(name=CHAMPION, kind="champion", not_run=f"not comparable: {loaded}"), None)
        else:
            add(Method(name=CHAMPION, kind="champion"), loaded)
    for baseline, outcome in tune_baselines(baselines, data, settings):
        method = Method(name=baseline.name, kind="baseline", extension=baseline.extension)
        if isinstance(outcome, NotRun):
            add(method.model_copy(update={"not_run": outcome.reason}), None)
            continue
        add(method.model_copy(update={"tuned": dict(outcome.chosen)}), outcome.scorer)
        broken = rankings[baseline.name].not_finite
        if broken:  # it would be easy to beat
            raise RefitError(
                f"baseline {baseline.extension!r}: {broken:,} of its scores are no finite numbers"
            )
    return methods, rankings


@dataclass(frozen=True)
class _Counted:
    """A scorer that reports each block of queries as it is scored."""

    scorer: Scorer
    progress: Meter

    def at(self, queries: Queries, snapshot: CandidateSnapshot) -> ScoreBlock:
        """Score as the scorer does."""
        score = self.scorer.at(queries, snapshot)

        def counted(block: Longs) -> Floats:
            scores = score(block)
            self.progress.advance(len(block))
            return scores

        return counted


def _measure(
    settings: EvaluationSettings,
    evaluation_set: EvaluationSet,
    methods: list[Method],
    rankings: Mapping[str, Ranking],
) -> tuple[tuple[Method, ...], tuple[SliceResult, ...], int]:
    """Metrics, paired gains and slices from the same bootstrap replicates; the number of users."""
    values = {name: per_query(r.rank, settings.cuts) for name, r in rankings.items()}
    slices = cut_slices(evaluation_set, settings)
    columns: dict[str, Any] = {"n": np.ones(len(evaluation_set.queries))}
    for name, metrics in values.items():
        columns |= {f"{name}/{metric}": value for metric, value in metrics.items()}
    for part, flags in slices.items():
        columns[f"{part}/n"] = flags.astype(np.float64)
        for name, metrics in values.items():
            columns[f"{part}/{name}"] = metrics[settings.metric] * flags
    users = evaluation_set.data.log.user[evaluation_set.queries.rows]
    replicates = Replicates(users, columns, settings.replicates, settings.seed)

    def finish(method: Method) -> Method:
        if method.name not in rankings:
            return method
        names = values[method.name]
        gain: dict[str, Interval] = {}
        if method.name != MODEL:
            gain = {
                m: replicates.difference(f"{MODEL}/{m}", f"{method.name}/{m}", "n") for m in names
            }
        return method.model_copy(
            update={
                "metrics": {m: replicates.mean(f"{method.name}/{m}", "n") for m in names},
                "gain": gain,
                "exposure": _exposure(evaluation_set, rankings[method.name].top),
            }
        )

    slice_results = tuple(
        SliceResult(
            name=part,
            n=int(flags.sum()),
            metrics={name: replicates.mean(f"{part}/{name}", f"{part}/n") for name in values},
        )
        for part, flags in slices.items()
    )
    return tuple(finish(method) for method in methods), slice_results, replicates.n_users


def _exposure(evaluation_set: EvaluationSet, top: Ints) -> Exposure:
    """How widely lists are spread over the items, and the sellers, that were candidates at all."""
    catalogue = evaluation_set.data.catalogue
    candidates = np.unique(np.concatenate([g.snapshot.items for g in evaluation_set.groups]))
    items = exposure(top, np.arange(catalogue.size, dtype=np.int32), catalogue.size)[candidates]
    codes = catalogue.sellers.codes
    sellers = np.unique(codes[candidates])
    sellers = sellers[sellers >= 0]
    by_seller = exposure(top, codes, int(codes.max()) + 1)[sellers]
    return Exposure(coverage=coverage(items), item_gini=gini(items), seller_gini=gini(by_seller))


def _describe(
    settings: EvaluationSettings, data: EvaluationData, evaluation_set: EvaluationSet
) -> dict[str, Any]:
    snapshots = data.manifest.snapshots
    times = data.log.time[evaluation_set.queries.rows]
    train, validation, test, end = data.log.starts
    return {
        "candidates": settings.candidates,
        "frozen": len(np.unique(data.log.snapshot[data.queries["test"].rows])) == 1,
        "market": data.manifest.market.model_dump(mode="json"),
        "snapshots": len(evaluation_set.groups),
        "candidates_per_snapshot": float(
            np.mean([len(g.snapshot.items) for g in evaluation_set.groups])
        ),
        "items": data.catalogue.size,
        "examples": {
            "train": validation - train,
            "validation": test - validation,
            "test": end - test,
        },
        "target_events": list(data.spec.target_events),
        "context": list(data.log.table.column_names),
        "from": str(times.min().astype("datetime64[us]")),
        "until": str(times.max().astype("datetime64[us]")),
        "features_until": str(snapshots[-1]),
        "dataset_fingerprint": data.manifest.dataset_fingerprint,
        "metric": settings.metric,
        "seed": settings.seed,
        "replicates": settings.replicates,
        "max_queries": settings.max_queries,
    }
