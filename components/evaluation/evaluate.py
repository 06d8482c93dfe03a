"""The evaluation step: rank, measure, compare, apply the gate, write the results."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.advice import advise, find_wins
from components.evaluation.beyond_accuracy import BeyondAccuracy
from components.evaluation.bootstrap import Replicates
from components.evaluation.data import (
    DAY,
    CandidateSnapshot,
    EvaluationData,
    Flags,
    Floats,
    Ints,
    Longs,
    Queries,
)
from components.evaluation.earlier import EarlierChampion
from components.evaluation.examples import draw_examples
from components.evaluation.freshness import measure_freshness, read_seen_until
from components.evaluation.index_check import check_index
from components.evaluation.leaks import hunt_leaks
from components.evaluation.looks import judge
from components.evaluation.metrics import (
    coverage,
    exposure,
    gini,
    per_query,
)
from components.evaluation.own_features import open_own_features
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
from components.evaluation.recency import measure_positive_in_history
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
    read_kind,
)
from components.evaluation.tuning import Baseline, NotRun, load_baselines, tune_baselines
from refit.errors import RefitError
from refit.exposure import head_share, repetition
from refit.files import remove, write_atomically, write_json
from refit.model import ITEM_TOWER, QUERY_TOWER
from refit.progress import Meter, log_message, timed
from refit.subject import VerdictSubject
from refit.verdict import Verdict

METRICS_FILE = "metrics.json"
VERDICT_FILE = "verdict.json"
PREDICTIONS_FILE = "predictions.parquet"
SMOKE_ROWS = 16
EXCUSE = "; to compare without it, excuse it with a reason in evaluation.excused_bundles"


@dataclass(frozen=True)
class Champion:
    """A bundle that the model must not be worse than.

    Attributes:
        name: Its name in the results.
        folder: The bundle's folder; None if it cannot be read.
        why: Why it cannot be read.
        features: What the features step wrote for it; None if nothing.
    """

    name: str
    bundle_id: str
    folder: Path | None
    why: str = ""
    features: Path | None = None

    def load(self, data: EvaluationData) -> tuple[Scorer, datetime] | str:
        """Its towers, and the end of the data that it has seen; or why it is not comparable."""
        if self.folder is None:
            return self.why
        own = open_own_features(data, self.folder, self.features) if self.features else None
        scorer = own or load_champion(data, self.folder)
        if isinstance(scorer, str):
            return scorer
        seen_until = read_seen_until(self.folder)
        return (scorer, seen_until) if seen_until else "it does not say when its training ended"


def evaluate(
    settings: EvaluationSettings,
    features: Path,
    model: Path,
    index: Path,
    out: Path,
    champion: Path | None = None,
    champion_features: Path | None = None,
    earlier: EarlierChampion | None = None,
    registry: str = "",
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
        champion_features: What the features step wrote for a champion with another feature spec.
        earlier: A better one of the last champions, if there is one.
        registry: Folder or URL of the registry, whose ledger counts the looks at the test window
            and keeps this one. Without it nothing is counted, and the report says so.

    Raises:
        DataValidationError: A split is empty, or the features are incomplete.
        UsageError: Model and features do not match, or a baseline is unknown.
        RefitError: A baseline failed.
    """
    baselines = load_baselines(settings.baselines)
    with ExitStack() as stack:
        smoke = {
            tower: stack.enter_context(SmokeTest(settings, model, tower))
            for tower in (QUERY_TOWER, ITEM_TOWER)
        }
        champions = []
        if champion:
            champions.append(
                Champion(CHAMPION, champion.name, champion, features=champion_features)
            )
        if earlier:
            name = f"the best of the last {settings.best_of_last}"
            champions.append(Champion(name, earlier.bundle_id, earlier.folder, earlier.why))
        verdict = _evaluate(
            settings, baselines, features, model, index, out, champions, smoke, registry
        )
    log_message(f"the gate: {verdict.outcome}")
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
    champions: Sequence[Champion],
    smoke: Mapping[str, SmokeTest],
    registry: str,
) -> Verdict:
    with timed("read the features"):
        data = EvaluationData(features, settings.relevant)
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
    embedded = towers.run_query_tower(evaluation_set.queries)
    few = np.arange(min(SMOKE_ROWS, len(evaluation_set.queries)))
    query_inputs = towers.query_inputs(evaluation_set.queries.take(few))
    smoke[QUERY_TOWER].send(query_inputs, embedded.outputs(few))
    snapshot = evaluation_set.groups[-1].snapshot
    item_inputs = towers.item_inputs(snapshot.take(np.arange(min(SMOKE_ROWS, len(snapshot.items)))))
    smoke[ITEM_TOWER].send(item_inputs, towers.run_item_tower(item_inputs))
    methods, rankings = _rank_all(settings, baselines, data, evaluation_set, towers, champions)
    with timed("bootstrapped the intervals"):
        measured, slices, n_users = _measure(settings, evaluation_set, methods, rankings)
    with timed("measured what each group of inputs is worth"):
        leaks = hunt_leaks(settings, evaluation_set, towers, rankings)
    results = Results(
        protocol=_describe(settings, data, evaluation_set),
        n_queries=len(evaluation_set.queries),
        n_users=n_users,
        queries_per_day=_queries_per_day(evaluation_set),
        left_out=evaluation_set.left_out,
        removed=dict(rankings[MODEL].removed),
        embedding_version=read_embedding_version(model),
        methods=measured,
        slices=slices,
        index=check_index(index, data, towers, embedded.vectors),
        freshness=measure_freshness(
            settings, data, model, index, data.log.time[evaluation_set.queries.rows]
        ),
        smoke={tower: test.result() for tower, test in smoke.items()},
        leaks=leaks,
        positive_in_history=measure_positive_in_history(evaluation_set),
        undeclared=data.manifest.undeclared,
        kind=read_kind(model),
    )
    champion = champions[0].folder if champions else None
    subject = VerdictSubject.of_folders(model, index, settings)
    results, verdict = judge(settings, results, data, subject, registry, champion)
    if not verdict.passed and results.kind == "model":
        wins = find_wins(results, settings)
        advice = advise(results, wins, data.spec, model)
        results = results.model_copy(update={"wins": wins, "advice": advice})
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
    champions: Sequence[Champion],
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
    for champion in champions:
        method = Method(name=champion.name, kind="champion", extension=champion.bundle_id)
        loaded = champion.load(data)
        if isinstance(loaded, str):
            way_out = "" if champion.name == CHAMPION else EXCUSE
            why = f"not comparable: {loaded}{way_out}"
            add(method.model_copy(update={"not_run": why}), None)
        else:
            scorer, seen_until = loaded
            method = method.model_copy(update={"seen_until": seen_until.isoformat()})
            add(method, scorer)
    for baseline, outcome in tune_baselines(baselines, data, settings):
        method = Method(name=baseline.name, kind="baseline", extension=baseline.extension)
        if isinstance(outcome, NotRun):
            excused = settings.baselines.excused.get(baseline.extension, "")
            add(method.model_copy(update={"not_run": outcome.reason, "excused": excused}), None)
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
    values = {name: per_query(r.rank, settings.cuts, r.starts) for name, r in rankings.items()}
    slices = cut_slices(evaluation_set, settings)
    users = evaluation_set.data.log.user[evaluation_set.queries.rows]
    unseen = {m.name: _unseen(evaluation_set, m) for m in methods if m.seen_until}
    columns: dict[str, Any] = {"n": np.ones(len(evaluation_set.queries))}
    for name, metrics in values.items():
        columns |= {f"{name}/{metric}": value for metric, value in metrics.items()}
    for part, flags in slices.items():
        columns[f"{part}/n"] = flags.astype(np.float64)
        for name, metrics in values.items():
            columns[f"{part}/{name}"] = metrics[settings.metric] * flags
            columns[f"{part}/{name}/guard"] = metrics[settings.guard_metric] * flags
    for name, flags in unseen.items():
        columns |= dict(_unseen_columns(name, flags, values, slices, settings.metric))
    replicates = Replicates(users, columns, settings.replicates, settings.seed)
    beyond = BeyondAccuracy(settings, evaluation_set)

    def finish(method: Method) -> Method:
        if method.name not in rankings:
            return method
        found: dict[str, Any] = {
            "metrics": {m: replicates.mean(f"{method.name}/{m}", "n") for m in values[method.name]},
            "exposure": _exposure(settings, evaluation_set, rankings[method.name].top),
            "beyond": beyond.measure(rankings[method.name]),
        }
        if method.kind == "champion":
            found |= _compare_unseen(method.name, values[method.name], replicates)
            found["n_compared"] = int(unseen[method.name].sum())
            found["users_compared"] = len(np.unique(users[unseen[method.name]]))
        elif method.name != MODEL:
            found["gain"] = {
                m: replicates.difference(f"{MODEL}/{m}", f"{method.name}/{m}", "n")
                for m in values[method.name]
            }
        return method.model_copy(update=found)

    slice_results = tuple(
        SliceResult(
            name=part,
            n=int(flags.sum()),
            n_users=len(np.unique(users[flags])),
            metrics={name: replicates.mean(f"{part}/{name}", f"{part}/n") for name in values},
            gain={
                name: _gain_on_slice(replicates, part, name, name in unseen)
                for name in values
                if name != MODEL
            },
            guard={name: replicates.mean(f"{part}/{name}/guard", f"{part}/n") for name in values},
            guard_gain={
                name: replicates.difference(
                    f"{part}/{MODEL}/guard", f"{part}/{name}/guard", f"{part}/n"
                )
                for name in values
                if name != MODEL and name not in unseen
            },
        )
        for part, flags in slices.items()
    )
    return tuple(finish(method) for method in methods), slice_results, replicates.n_users


def _gain_on_slice(replicates: Replicates, part: str, name: str, is_champion: bool) -> Interval:
    """The model's metric minus a method's, on a slice; of a champion on what it has not seen."""
    prefix = f"{name}, unseen/{part}" if is_champion else part
    return replicates.difference(f"{prefix}/{MODEL}", f"{prefix}/{name}", f"{prefix}/n")


def _unseen(evaluation_set: EvaluationSet, champion: Method) -> Flags:
    """[n] whether the query comes after everything that the champion was trained and tuned on."""
    seen_until = datetime.fromisoformat(champion.seen_until).timestamp() * 1e6
    flags: Flags = evaluation_set.data.log.time[evaluation_set.queries.rows] >= seen_until
    return flags


def _unseen_columns(
    champion: str,
    flags: Flags,
    values: Mapping[str, Mapping[str, Any]],
    slices: Mapping[str, Flags],
    metric: str,
) -> Iterator[tuple[str, Any]]:
    """The model's and a champion's metrics on the queries that the champion has not seen."""
    yield f"{champion}, unseen/n", flags.astype(np.float64)
    for name in (MODEL, champion):
        for each, value in values[name].items():
            yield f"{champion}, unseen/{name}/{each}", value * flags
    for part, of_part in slices.items():
        both = flags & of_part
        yield f"{champion}, unseen/{part}/n", both.astype(np.float64)
        for name in (MODEL, champion):
            yield f"{champion}, unseen/{part}/{name}", values[name][metric] * both


def _compare_unseen(
    champion: str, metrics: Iterable[str], replicates: Replicates
) -> dict[str, Any]:
    prefix = f"{champion}, unseen"
    n = f"{prefix}/n"
    return {
        "gain": {
            m: replicates.difference(f"{prefix}/{MODEL}/{m}", f"{prefix}/{champion}/{m}", n)
            for m in metrics
        },
        "compared": {m: replicates.mean(f"{prefix}/{champion}/{m}", n) for m in metrics},
    }


def _queries_per_day(evaluation_set: EvaluationSet) -> float | None:
    """Queries that a day of the test window gave, before they were thinned out."""
    data = evaluation_set.data
    times = data.log.time[data.queries["test"].rows]
    days = float(times.max() - times.min()) / DAY
    judged = len(evaluation_set.queries)
    left_out = sum(evaluation_set.left_out.values())
    return len(times) * judged / (judged + left_out) / days if days > 0 else None


def _exposure(settings: EvaluationSettings, evaluation_set: EvaluationSet, top: Ints) -> Exposure:
    """How widely lists are spread over the items, and the sellers, that were candidates at all."""
    catalogue = evaluation_set.data.catalogue
    candidates = np.unique(np.concatenate([g.snapshot.items for g in evaluation_set.groups]))
    items = exposure(top, np.arange(catalogue.size, dtype=np.int32), catalogue.size)[candidates]
    codes = catalogue.sellers.codes.astype(np.int32, copy=False)
    sellers = np.unique(codes[candidates])
    sellers = sellers[sellers >= 0]
    by_seller = exposure(top, codes, int(codes.max()) + 1)[sellers]
    first = top[:, : settings.shortest]
    log, rows = evaluation_set.data.log, evaluation_set.queries.rows
    shown_first = exposure(first, np.arange(catalogue.size, dtype=np.int32), catalogue.size)
    in_time = np.argsort(log.time[rows], kind="stable").tolist()
    lists = ((log.user[rows[row]], first[row][first[row] >= 0].tolist()) for row in in_time)
    return Exposure(
        coverage=coverage(items),
        item_gini=gini(items),
        seller_gini=gini(by_seller),
        head_share=head_share(shown_first[candidates], len(candidates)),
        repetition=repetition(lists),
    )


def _describe(
    settings: EvaluationSettings, data: EvaluationData, evaluation_set: EvaluationSet
) -> dict[str, Any]:
    snapshots = data.manifest.snapshots
    times = data.log.time[evaluation_set.queries.rows]
    train, validation, test, end = data.log.starts
    return {
        "candidates": settings.candidates,
        "relevant": settings.relevant,
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
