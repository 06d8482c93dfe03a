"""Baselines: loading them, tuning them on the validation split, and what they implement.

A baseline is a module, or an object, with the attributes of ``BaselineExtension``. The built-in
ones are the modules of ``components.evaluation.baselines``; installed packages and dotted names can
provide others (``refit.extensions``). docs/how-to/add-a-baseline.md shows a complete one.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from components.evaluation.data import (
    CandidateSnapshot,
    EvaluationData,
    Floats,
    Ints,
    Longs,
    Queries,
)
from components.evaluation.metrics import METRICS
from components.evaluation.ranking import (
    CandidateGroup,
    EvaluationSet,
    ScoreBlock,
    Scorer,
    build_evaluation_set,
)
from components.evaluation.results import CHAMPION, MODEL
from components.evaluation.settings import BASELINES, BaselineSettings, EvaluationSettings
from refit.errors import RefitError, UsageError
from refit.extensions import naming
from refit.progress import timed
from refit.settings import Settings

SCORES_IN_MEMORY = 16_000_000
"""The validation queries are thinned out until all their scores are no more than this."""
MIN_QUERIES = 200
"""But not below this number of queries."""
SCORES_PER_BLOCK = 1 << 18
"""Scores that ``measure`` computes at once; a block of this size fits into a core's cache."""


@dataclass(frozen=True)
class Tuned:
    """A baseline that is ready to rank the test split.

    Attributes:
        scorer: Scores the candidates of a query from events before the query's snapshot.
        chosen: What tuning chose, for the report: strings, numbers, or lists of them, by name.
    """

    scorer: Scorer
    chosen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NotRun:
    """The statement of a baseline that it cannot run on these data.

    Attributes:
        reason: Shown in the report, such as ``the items have no attributes``.
    """

    reason: str


class BaselineExtension(Protocol):
    """What a baseline implements.

    Attributes:
        NAME: Its name in metrics.json, in the report and in the gate's checks.
        NEEDS: Columns of the items, or else of the queries' context, that it cannot run without.
        OPTIONS: Optional: a subclass of ``refit.settings.Settings`` for its options.
    """

    NAME: str
    NEEDS: tuple[str, ...]

    def tune(self, validation: "ValidationSet", options: Any) -> Tuned | NotRun:
        """Choose parameters on the validation split and fit the baseline for the test split.

        Args:
            validation: The validation queries, and the features folder behind them.
            options: The options from the settings, an instance of ``OPTIONS``.
        """
        ...


@dataclass(frozen=True)
class Baseline:
    """A baseline that the settings name, loaded, with its options.

    Attributes:
        extension: How the settings name it.
        name: How the results name it.
    """

    extension: str
    name: str
    needs: tuple[str, ...]
    options: Settings
    tune: Callable[["ValidationSet", Any], Tuned | NotRun]


class NoOptions(Settings):
    """The options of a baseline without ``OPTIONS``."""


class ValidationSet:
    """The validation queries, on which baselines compare their parameters.

    Attributes:
        data: The features folder.
        settings: How the model is evaluated.
        evaluation_set: The validation queries and their candidates, thinned out evenly over time.
    """

    def __init__(self, data: EvaluationData, settings: EvaluationSettings) -> None:
        self.data, self.settings = data, settings
        grid = settings.baselines
        rows = data.queries["validation"].rows
        n_items = len(data.read_candidates(int(data.log.snapshot[rows[-1]])).items)
        fitting = max(MIN_QUERIES, SCORES_IN_MEMORY // max(1, n_items))
        self.evaluation_set: EvaluationSet = build_evaluation_set(
            data,
            "validation",
            settings.candidates,
            max_queries=min(grid.tuning_queries, fitting),
            max_snapshots=grid.tuning_snapshots,
        )
        name, _, cut = settings.metric.rpartition("_at_")
        self._metric, self._cut = METRICS[name], int(cut)
        self._eligible = [
            self.evaluation_set.eligibility(group)(slice(0, len(group.queries))).eligible
            for group in self.groups
        ]
        self._shared: dict[Callable[..., Any], Any] = {}

    @property
    def groups(self) -> tuple[CandidateGroup, ...]:
        """The validation queries by snapshot."""
        return self.evaluation_set.groups

    def shared[T](self, make: Callable[["ValidationSet"], T]) -> T:
        """The result of ``make(self)``, which is called once for all baselines."""
        if make not in self._shared:
            self._shared[make] = make(self)
        return self._shared[make]

    def score(self, scorer: Scorer) -> list[Floats]:
        """[R, C] scores of each group."""
        queries = self.evaluation_set.queries
        return [_score(scorer.at(queries, g.snapshot), g.queries, g.snapshot) for g in self.groups]

    def measure(self, scorer: Scorer, added_to: Sequence[Floats] | None = None) -> float:
        """The deciding metric of a scorer on the validation queries.

        Computed block by block: the scores are never all in memory.

        Args:
            scorer: What is measured.
            added_to: Scores of another scorer, from ``score``, that its scores are added to.
        """
        ranks = self._no_ranks()
        for number, (group, eligible) in enumerate(zip(self.groups, self._eligible, strict=True)):
            score = scorer.at(self.evaluation_set.queries, group.snapshot)
            step = max(1, SCORES_PER_BLOCK // max(1, len(group.snapshot.items)))
            for start in range(0, len(group.queries), step):
                rows = slice(start, min(start + step, len(group.queries)))
                scores = _score(score, group.queries[rows], group.snapshot)
                if added_to is not None:
                    scores = scores + added_to[number][rows]
                of_rows = None if eligible is None else eligible[rows]
                group.rank(ranks, rows, scores, of_rows)
        return self._mean(ranks)

    def measure_scores(self, scores: Sequence[Floats]) -> float:
        """The deciding metric of the scores [R, C] of each group."""
        ranks = self._no_ranks()
        for block, group, eligible in zip(scores, self.groups, self._eligible, strict=True):
            group.rank(ranks, slice(0, len(group.queries)), block, eligible)
        return self._mean(ranks)

    def _no_ranks(self) -> Ints:
        return np.zeros(len(self.evaluation_set.queries.positives.rows), dtype=np.int32)

    def _mean(self, ranks: Ints) -> float:
        return float(self._metric(ranks, self._cut, self.evaluation_set.starts).mean())


def pick_best[T](candidates: Sequence[T], measure: Callable[[T], float]) -> tuple[T, float]:
    """The candidate with the highest value, the first of several, and its value."""
    values = [measure(candidate) for candidate in candidates]
    best = int(np.argmax(values))
    return candidates[best], values[best]


def load_baselines(settings: BaselineSettings) -> list[Baseline]:
    """Load the baselines that the settings name.

    Raises:
        UsageError: One cannot be loaded, its options cannot be read, or two have the same name.
    """
    baselines: list[Baseline] = []
    names = {MODEL, CHAMPION}
    for extension in settings.names:
        baseline = _load(extension, settings.options.get(extension, {}))
        if baseline.name in names:
            raise UsageError(
                f"baseline {extension!r} has the NAME {baseline.name!r}, which is taken; rename it"
            )
        names.add(baseline.name)
        baselines.append(baseline)
    return baselines


def tune_baselines(
    baselines: Sequence[Baseline], data: EvaluationData, settings: EvaluationSettings
) -> Iterator[tuple[Baseline, Tuned | NotRun]]:
    """Tune each baseline on the validation split and fit it for the test split.

    Raises:
        RefitError: A baseline failed; the message names it.
    """
    if not baselines:
        return
    validation = ValidationSet(data, settings)
    for baseline in baselines:
        missing = _missing_columns(data, baseline.needs)
        if missing:
            reason = f"neither the items nor the queries have {', '.join(missing)}"
            yield baseline, NotRun(reason)
            continue
        with timed(f"tuned {baseline.name}"), _naming(baseline.extension):
            outcome = baseline.tune(validation, baseline.options)
            outcome = _check(baseline, outcome)
        yield baseline, outcome


@dataclass(frozen=True)
class _NamedScorer:
    """A baseline's scorer, whose errors name the baseline."""

    extension: str
    scorer: Scorer

    def at(self, queries: Queries, snapshot: CandidateSnapshot) -> ScoreBlock:
        with _naming(self.extension):
            score = self.scorer.at(queries, snapshot)

        def score_block(which: Longs) -> Floats:
            with _naming(self.extension):
                return _score(score, which, snapshot)

        return score_block


def _load(extension: str, options: Mapping[str, Any]) -> Baseline:
    found = BASELINES.load(extension)
    with _naming(extension):
        return Baseline(
            extension=extension,
            name=str(found.NAME),
            needs=tuple(found.NEEDS),
            options=getattr(found, "OPTIONS", NoOptions).parse(options),
            tune=found.tune,
        )


def _check(baseline: Baseline, outcome: Tuned | NotRun) -> Tuned | NotRun:
    """The outcome, with a scorer whose errors name the baseline.

    Raises:
        RefitError: ``tune`` returned something else.
        TypeError: What it chose cannot be written as JSON.
    """
    if isinstance(outcome, NotRun):
        return outcome
    if not isinstance(outcome, Tuned):
        raise RefitError(f"tune() returned {outcome!r}; it must return Tuned or NotRun")
    chosen = json.loads(json.dumps(dict(outcome.chosen)))
    return Tuned(_NamedScorer(baseline.extension, outcome.scorer), chosen)


def _missing_columns(data: EvaluationData, needs: Sequence[str]) -> list[str]:
    present = {*data.catalogue.table.column_names, *data.log.table.column_names}
    return [name for name in needs if name not in present]


def _score(score: ScoreBlock, which: Longs, snapshot: CandidateSnapshot) -> Floats:
    """Scores as float32, of the right shape.

    Raises:
        RefitError: The shape is another one.
    """
    scores = np.asarray(score(which), dtype=np.float32)
    expected = (len(which), len(snapshot.items))
    if scores.shape != expected:
        raise RefitError(f"its scores have the shape {scores.shape}, not {expected}")
    return scores


def _naming(extension: str) -> AbstractContextManager[None]:
    advice = "correct it, or remove it from evaluation.baselines"
    return naming(f"baseline {extension!r}", advice)
