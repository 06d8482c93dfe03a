"""The leak hunter: how far the metric falls when a group of inputs is permuted or cut.

Permutation importance of the trained towers (Breiman 2001; Fisher, Rudin & Dominici 2019): the
inputs of one group are exchanged between queries, or between items, so that they keep their values
but say nothing about the query or the item any more. A history is cut instead: its entries of one
age are removed. What the model then loses is what it owes to the group, however the group came to
know it; a group that carries much of the gain and may hold what came later is suspicious.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from components.evaluation.bootstrap import Replicates
from components.evaluation.data import Flags, Floats, Ints, Longs, Queries
from components.evaluation.leak_settings import HISTORY_BANDS, InputGroup, list_groups
from components.evaluation.metrics import Values, per_query
from components.evaluation.ranking import (
    CandidateGroup,
    EvaluationSet,
    Ranking,
    leave_out,
    rank_positives,
    spread,
)
from components.evaluation.results import GroupWorth, Interval, LeakResults
from components.evaluation.settings import EvaluationSettings
from components.evaluation.towers import TowerScorer
from refit.feature_tables import PaddedHistories

POPULARITY = "popularity"
"""The baseline whose metric the gain is counted from."""
PROBED = 256
"""Items on which it is checked whether the item tower reads ids at all."""


def hunt_leaks(
    settings: EvaluationSettings,
    evaluation_set: EvaluationSet,
    towers: TowerScorer,
    rankings: Mapping[str, Ranking],
) -> LeakResults:
    """Measure what each group of inputs is worth, on a sample of the test queries.

    Args:
        settings: Metric, thresholds and the size of the sample.
        evaluation_set: The test queries.
        towers: The model.
        rankings: The ranking of each method over the test queries, by its name.
    """
    sample = thin_out(evaluation_set, settings)
    hunt = _Hunt(settings, sample, towers)
    measured = dict(hunt.measure_groups())
    columns: dict[str, Values] = {"n": np.ones(len(sample.positions)), "model": hunt.intact}
    columns["without query"] = hunt.intact_without_query
    if POPULARITY in rankings:
        ranks = rankings[POPULARITY].rank[sample.positions]
        columns[POPULARITY] = hunt.values_of(ranks)
    for name, worth in measured.items():
        columns[f"permuted/{name}"] = worth.permuted
        if worth.without_query is not None:
            columns[f"without query/{name}"] = worth.without_query
    users = evaluation_set.data.log.user[sample.queries.rows]
    replicates = Replicates(users, columns, settings.replicates, settings.seed)
    gain = Interval()
    if POPULARITY in columns:
        gain = replicates.difference("model", POPULARITY, "n")
    static = getattr(towers.spec, "static", ())

    def worth_of(group: InputGroup) -> GroupWorth:
        without_query = Interval()
        if f"without query/{group.name}" in columns:
            without_query = replicates.difference(
                "without query", f"without query/{group.name}", "n"
            )
        return GroupWorth(
            name=group.name,
            kind=group.kind,
            static=group.kind == "item" and group.column in static,
            fall=replicates.difference("model", f"permuted/{group.name}", "n"),
            fall_without_query=without_query,
        )

    return LeakResults(
        n=len(sample.positions),
        metric=replicates.mean("model", "n"),
        gain=gain,
        groups=tuple(worth_of(group) for group in hunt.groups),
    )


@dataclass(frozen=True)
class Sample:
    """Some of the test queries.

    Attributes:
        positions: [n] their positions among the test queries, ascending.
        evaluation_set: These queries with their candidates.
    """

    positions: Longs
    evaluation_set: EvaluationSet

    @property
    def queries(self) -> Queries:
        """[n] the queries."""
        return self.evaluation_set.queries


def thin_out(evaluation_set: EvaluationSet, settings: EvaluationSettings) -> Sample:
    """Thin the queries out evenly over time, and the snapshots if they have too many candidates."""
    groups = _thin_out_groups(evaluation_set.groups, settings)
    within = np.sort(np.concatenate([group.queries for group in groups]))
    positions = spread(within, settings.leaks.queries)
    removed = np.ones(len(evaluation_set.queries), dtype=np.bool_)
    removed[positions] = False
    return Sample(positions, leave_out(evaluation_set, removed, evaluation_set.left_out))


def _thin_out_groups(
    groups: Sequence[CandidateGroup], settings: EvaluationSettings
) -> list[CandidateGroup]:
    """The fewest snapshots with enough queries, or else as many as have few enough candidates."""
    wanted = min(settings.min_queries, settings.leaks.queries)
    kept = list(groups)
    for most in range(len(groups), 0, -1):
        fewer = [groups[i] for i in spread(np.arange(len(groups)), most)]
        if sum(len(group.queries) for group in fewer) < wanted:
            break
        kept = fewer
        if sum(len(group.snapshot.items) for group in kept) <= settings.leaks.items:
            break
    return kept


@dataclass(frozen=True)
class _Worth:
    """The metric of each sampled query without a group of inputs.

    Attributes:
        permuted: [n] with the group permuted or cut.
        without_query: [n] the same with exchanged queries; None where it is not measured.
    """

    permuted: Values
    without_query: Values | None = None


class _Hunt:
    """The model over the sample, intact and without each group of inputs.

    Attributes:
        groups: The groups that the towers read.
        intact: [n] the metric with all inputs.
        intact_without_query: [n] the same with exchanged queries: what the model knows of what
            anyone would choose.
    """

    def __init__(self, settings: EvaluationSettings, sample: Sample, towers: TowerScorer) -> None:
        self._settings, self._set, self._towers = settings, sample.evaluation_set, towers
        self._queries = sample.queries
        self._random = np.random.default_rng(settings.seed)
        self._query_order = self._random.permutation(len(self._queries))
        self._item_order = self._random.permutation(len(towers.item_columns["item_id"]))
        self._inputs = towers.query_inputs(self._queries)
        self._vectors = towers.embed_inputs(self._inputs)
        self._exchanged = self._vectors[self._query_order]
        self._items = self._embed_items(towers)
        self.groups = tuple(g for g in list_groups(towers.spec) if self._is_read(g))
        self.intact = self._rank(self._vectors, self._items)
        self.intact_without_query = self._rank(self._exchanged, self._items)

    def values_of(self, ranks: Ints) -> Values:
        """[n] the primary metric of ranks."""
        return per_query(ranks, self._settings.cuts)[self._settings.metric]

    def measure_groups(self) -> Iterator[tuple[str, _Worth]]:
        """Measure the model without each group."""
        for group in self.groups:
            match group.kind:
                case "history":
                    yield group.name, self._cut_history(*HISTORY_BANDS[group.name])
                case "popularity":
                    yield group.name, self._permute_snapshots("popularity")
                case "age":
                    yield group.name, self._permute_snapshots("age_days")
                case "id" | "item":
                    yield group.name, self._permute_items(group.tower_input)
                case "user" | "context":
                    yield group.name, self._permute_queries(group.tower_input)

    def _cut_history(self, start: float, end: float) -> _Worth:
        past = self._queries.history
        cut = (past.item >= 0) & (past.age_days >= start) & (past.age_days < end)
        if not cut.any():
            return _Worth(self.intact)
        inputs = self._towers.query_inputs(replace(self._queries, history=_without(past, cut)))
        return _Worth(self._rank(self._towers.embed_inputs(inputs), self._items))

    def _permute_queries(self, name: str) -> _Worth:
        permuted = {name: self._inputs[name][self._query_order]}
        return _Worth(self._rank(self._towers.embed_inputs(self._inputs | permuted), self._items))

    def _permute_snapshots(self, name: str) -> _Worth:
        """Exchange the popularity, or the ages, of the candidates of each snapshot."""
        items = []
        for group in self._set.groups:
            values = getattr(group.snapshot, name)
            permuted = values[self._random.permutation(len(values))]
            items.append(self._towers.embed_items(replace(group.snapshot, **{name: permuted})))
        return self._of_items(self._vectors, items)

    def _permute_items(self, name: str) -> _Worth:
        """Exchange a column between all items: each keeps its new value, in histories as well."""
        towers = self._exchange_items(name)
        inputs = towers.query_inputs(self._queries)
        return self._of_items(towers.embed_inputs(inputs), self._embed_items(towers))

    def _exchange_items(self, name: str) -> TowerScorer:
        permuted = self._towers.item_columns[name][self._item_order]
        return self._towers.with_items({name: permuted})

    def _of_items(self, vectors: Floats, items: Sequence[Floats]) -> _Worth:
        return _Worth(self._rank(vectors, items), self._rank(self._exchanged, items))

    def _embed_items(self, towers: TowerScorer) -> list[Floats]:
        return [towers.embed_items(group.snapshot) for group in self._set.groups]

    def _rank(self, vectors: Floats, items: Sequence[Floats]) -> Values:
        """[n] the primary metric of query vectors [n, D] and each snapshot's candidates [C, D]."""
        ranks = np.zeros(len(vectors), dtype=np.int32)
        for group, candidates in zip(self._set.groups, items, strict=True):
            find_eligible = self._set.eligibility(group)
            for block in group.blocks():
                which = group.queries[block]
                scores = vectors[which] @ candidates.T
                eligible = find_eligible(block).eligible
                ranks[which] = rank_positives(scores, group.positive[block], eligible)[0]
        return self.values_of(ranks)

    def _is_read(self, group: InputGroup) -> bool:
        """Whether the towers read the group; ids are an input that they may ignore."""
        if group.kind != "id":
            return True
        few = self._set.groups[0].snapshot
        few = few.take(np.arange(min(PROBED, len(few.items))))
        other = self._exchange_items(group.tower_input)
        return not np.array_equal(self._towers.embed_items(few), other.embed_items(few))


def _without(past: PaddedHistories, cut: Flags) -> PaddedHistories:
    """Histories without the entries of a mask [n, L]; the older ones move up."""
    gone = cut | (past.item < 0)
    order = np.argsort(gone, axis=1, kind="stable")
    gone = np.take_along_axis(gone, order, axis=1)
    item, event_type, age_days = (
        np.take_along_axis(values, order, axis=1)
        for values in (past.item, past.event_type, past.age_days)
    )
    item[gone], event_type[gone], age_days[gone] = -1, "", 0.0
    return PaddedHistories(item, event_type, age_days)
