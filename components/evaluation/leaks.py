"""The leak hunter: how far the metric falls when a group of inputs is permuted or cut.

Permutation importance of the trained towers (Breiman 2001; Fisher, Rudin & Dominici 2019): the
values of a group are exchanged between queries, or between items, so that they say nothing about
the query or the item any more. Of a history, the entries of one age are cut instead. What the
metric loses is what the model owes to the group. A group that carries much of the gain, and whose
values may have come later than the request, may be a leak.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from components.evaluation.bootstrap import Replicates
from components.evaluation.data import Flags, Floats, Longs, Queries
from components.evaluation.leak_settings import (
    HISTORY_BANDS,
    InputGroup,
    is_limited,
    list_groups,
)
from components.evaluation.metrics import Values, per_query
from components.evaluation.ranking import (
    CandidateGroup,
    EvaluationSet,
    Ranking,
    leave_out,
    spread,
)
from components.evaluation.results import GroupWorth, Interval, LeakResults
from components.evaluation.settings import EvaluationSettings
from components.evaluation.towers import TowerScorer
from refit.feature_tables import PaddedHistories
from refit.features import Inputs

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
        rankings: By method, its ranking of the test queries.
    """
    sample = thin_out(evaluation_set, settings)
    hunt = _Hunt(settings, sample.evaluation_set, towers)
    columns = {f"without {name}": values for name, values in hunt.measure_groups()}
    columns |= {"n": np.ones(len(sample.positions)), "model": hunt.intact}
    popularity = rankings.get(POPULARITY)
    if popularity is not None:
        every = per_query(popularity.rank, settings.cuts, popularity.starts)
        columns[POPULARITY] = every[settings.metric][sample.positions]
    users = evaluation_set.data.log.user[sample.evaluation_set.queries.rows]
    replicates = Replicates(users, columns, settings.replicates, settings.seed)
    gain = replicates.difference("model", POPULARITY, "n") if popularity else Interval()
    static = getattr(towers.spec, "static", ())
    versioned = evaluation_set.data.manifest.versioned

    def worth_of(group: InputGroup) -> GroupWorth:
        fall = replicates.difference("model", f"without {group.name}", "n")
        return GroupWorth(
            name=group.name,
            kind=group.kind,
            static=group.kind in ("item", "user") and group.column in static,
            fall=fall,
            share=share_of(fall, gain),
            limited=is_limited(settings.leaks, group, versioned),
        )

    return LeakResults(
        n=len(sample.positions),
        metric=replicates.mean("model", "n"),
        gain=gain,
        groups=tuple(worth_of(group) for group in hunt.groups),
        why=_why_no_share(gain),
    )


def share_of(fall: Interval, gain: Interval) -> float | None:
    """A fall of the metric as a share of the gain; None where there is no gain.

    A fall whose interval reaches 0 may be chance, and counts as none.
    """
    if fall.value is None or fall.low is None or not gain.value or gain.value <= 0:
        return None
    return fall.value / gain.value if fall.low > 0 else 0.0


def _why_no_share(gain: Interval) -> str:
    if gain.value is None:
        return f"evaluation.baselines does not run {POPULARITY}, which the gain is counted from"
    if gain.value <= 0:
        return f"the model gains nothing over {POPULARITY}"
    return ""


@dataclass(frozen=True)
class Sample:
    """Some of the test queries.

    Attributes:
        positions: [n] their positions among the test queries, ascending.
        evaluation_set: These queries with their candidates.
    """

    positions: Longs
    evaluation_set: EvaluationSet


def thin_out(evaluation_set: EvaluationSet, settings: EvaluationSettings) -> Sample:
    """Thin the queries out evenly over time, and the snapshots if they have too many candidates."""
    groups = _thin_out_groups(evaluation_set.groups, settings)
    within = np.sort(np.concatenate([group.queries for group in groups]))
    positions = spread(within, settings.leaks.queries)
    removed = np.ones(len(evaluation_set.queries), dtype=np.bool_)
    removed[positions] = False
    removed = removed[evaluation_set.queries.positives.owner]
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
class _Packed:
    """Flags [B, C] as bits."""

    bits: NDArray[np.uint8]
    width: int


class _Hunt:
    """The model over the sample, intact and without each group of inputs.

    Attributes:
        groups: The groups that the towers read.
        intact: [n] the primary metric of each query with all inputs.
    """

    def __init__(
        self, settings: EvaluationSettings, sample: EvaluationSet, towers: TowerScorer
    ) -> None:
        self._settings, self._sample, self._towers = settings, sample, towers
        self._random = np.random.default_rng(settings.seed)
        self._query_order = self._random.permutation(len(sample.queries))
        self._item_order = self._random.permutation(len(towers.item_columns["item_id"]))
        self._inputs = towers.query_inputs(sample.queries)
        self._items = self._embed_items(towers)
        self._eligible = [list(self._find_eligible(group)) for group in sample.groups]
        self.groups = tuple(g for g in list_groups(towers.spec) if self._is_read(g))
        self.intact = self._measure(sample.queries, self._inputs, self._items)

    def measure_groups(self) -> Iterator[tuple[str, Values]]:
        """The name of each group, and [n] the metric of each query without it."""
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

    def _cut_history(self, start: float, end: float) -> Values:
        past = self._sample.queries.history
        cut = (past.item >= 0) & (past.age_days >= start) & (past.age_days < end)
        if not cut.any():
            return self.intact
        shorter = replace(self._sample.queries, history=_without(past, cut))
        return self._measure(shorter, self._towers.query_inputs(shorter), self._items)

    def _permute_queries(self, name: str) -> Values:
        permuted = self._inputs[name][self._query_order]
        changed = self._inputs | {name: permuted}
        return self._measure(self._sample.queries, changed, self._items)

    def _permute_snapshots(self, name: str) -> Values:
        """Exchange the popularity, or the ages, of the candidates of each snapshot."""
        items = []
        for group in self._sample.groups:
            values = getattr(group.snapshot, name)
            permuted = values[self._random.permutation(len(values))]
            items.append(self._towers.embed_items(replace(group.snapshot, **{name: permuted})))
        return self._measure(self._sample.queries, self._inputs, items)

    def _permute_items(self, name: str) -> Values:
        """Exchange a column between all items, or versions: each keeps its new value.

        It has the same value in histories.
        """
        towers = self._exchange_items(name)
        history = towers.embed_history(self._sample.queries)
        inputs = self._inputs | {"history_content": history}
        return self._measure(self._sample.queries, inputs, self._embed_items(towers))

    def _exchange_items(self, name: str) -> TowerScorer:
        permuted = self._towers.item_columns[name][self._item_order]
        return self._towers.with_items({name: permuted})

    def _embed_items(self, towers: TowerScorer) -> list[Floats]:
        return [towers.embed_items(group.snapshot) for group in self._sample.groups]

    def _measure(self, queries: Queries, inputs: Inputs, items: Sequence[Floats]) -> Values:
        """[n] the metric of query tower inputs, and of each snapshot's item vectors [C, D]."""
        embedded = self._towers.embed_inputs(inputs, queries)
        ranks = np.zeros(len(queries.positives.rows), dtype=np.int32)
        for group, of_group, blocks in zip(self._sample.groups, items, self._eligible, strict=True):
            score = embedded.over(group.snapshot, of_group)
            for block, eligible in zip(group.blocks(), blocks, strict=True):
                scores = score(group.queries[block])
                group.rank(ranks, block, scores, _unpack(eligible))
        found = per_query(ranks, self._settings.cuts, self._sample.starts)
        return found[self._settings.metric]

    def _find_eligible(self, group: CandidateGroup) -> Iterator[_Packed | None]:
        """The eligible candidates of each block as bits, since they are used for every group."""
        find = self._sample.eligibility(group)
        for block in group.blocks():
            eligible = find(block).eligible
            yield (
                None
                if eligible is None
                else _Packed(np.packbits(eligible, axis=1), eligible.shape[1])
            )

    def _is_read(self, group: InputGroup) -> bool:
        """Whether the towers read the group; ids are an input that they may ignore."""
        if group.kind != "id":
            return True
        few = self._sample.groups[0].snapshot
        few = few.take(np.arange(min(PROBED, len(few.items))))
        other = self._exchange_items(group.tower_input)
        return not np.array_equal(self._towers.embed_items(few), other.embed_items(few))


def _without(past: PaddedHistories, cut: Flags) -> PaddedHistories:
    """Histories without the entries of a mask [n, L]; the older ones move up."""
    gone = cut | (past.item < 0)
    order = np.argsort(gone, axis=1, kind="stable")
    gone = np.take_along_axis(gone, order, axis=1)
    item = np.take_along_axis(past.item, order, axis=1)
    event_type = np.take_along_axis(past.event_type, order, axis=1)
    age_days = np.take_along_axis(past.age_days, order, axis=1)
    item[gone], event_type[gone], age_days[gone] = -1, "", 0.0
    return PaddedHistories(item, event_type, age_days)


def _unpack(packed: _Packed | None) -> Flags | None:
    if packed is None:
        return None
    return np.unpackbits(packed.bits, axis=1, count=packed.width).view(np.bool_)
