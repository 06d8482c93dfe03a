"""The model and the champion as scorers.

A score is the dot product of query and item vector, and for an item of the history what the query
tower adds to it.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.data import (
    DAY,
    CandidateSnapshot,
    EvaluationData,
    Floats,
    Ints,
    Longs,
    Queries,
)
from components.evaluation.ranking import ScoreBlock
from refit.encoding import differ
from refit.errors import RefitError, UsageError
from refit.feature_tables import PaddedHistories, numbers, strings, vectors
from refit.features import REPEATS, FeaturesManifest, FeatureSpec, Inputs, item_inputs, query_inputs
from refit.files import read_json
from refit.model import ModelKind
from refit.towers import load_tower, run_tower

CELLS_AT_ONCE = 1 << 26
"""Entries of the histories' content vectors that the query tower reads at once, 256 MB."""

PopularityOf = Callable[[CandidateSnapshot], Floats]


@dataclass(frozen=True)
class QueryOutputs:
    """What a query tower says of n queries.

    Attributes:
        vectors: [n, D].
        items: [n, L] the items of their histories, -1 where padded.
        repeats: [n, L] what each of these events adds to its item's score; None: nothing.
    """

    vectors: Floats
    items: Ints
    repeats: Floats | None = None

    @classmethod
    def join(cls, parts: Sequence["QueryOutputs"]) -> "QueryOutputs":
        """Those of several parts of the queries."""
        repeats = [part.repeats for part in parts if part.repeats is not None]
        return cls(
            np.concatenate([part.vectors for part in parts]),
            np.concatenate([part.items for part in parts]),
            np.concatenate(repeats) if repeats else None,
        )

    def outputs(self, which: Longs) -> dict[str, Floats]:
        """The query tower's outputs for some of the queries."""
        outputs = {"embedding": self.vectors, REPEATS: self.repeats}
        return {name: values[which] for name, values in outputs.items() if values is not None}

    def over(self, snapshot: CandidateSnapshot, item_vectors: Floats) -> ScoreBlock:
        """Prepare to score a snapshot's candidates, which have these vectors [C, D]."""
        repeats = self.repeats
        if repeats is None:
            return lambda which: self.vectors[which] @ item_vectors.T
        columns = snapshot.positions(self.items)

        def score(which: Longs) -> Floats:
            scores: Floats = self.vectors[which] @ item_vectors.T
            row, event = np.nonzero(columns[which] >= 0)
            np.add.at(scores, (row, columns[which][row, event]), repeats[which][row, event])
            return scores

        return score


@dataclass(frozen=True)
class _Contents:
    """Content vectors [U, C] of rows [U], ascending, of ``ItemCatalogue.contents``."""

    rows: Any
    values: Floats

    def of(self, rows: Any) -> Floats:
        """[n, L, C] of rows [n, L]; 0 where they are -1."""
        padded = rows < 0
        found = self.values[np.searchsorted(self.rows, np.where(padded, self.rows[0], rows))]
        found[padded] = 0.0
        return found


class TowerScorer:
    """Scores by the towers' vectors, and by what a history says of its own items.

    Args:
        data: The features folder.
        base: Model or bundle folder, with ``query_tower`` and ``item_tower``.
        manifest: The inputs that these towers were trained with.
        popularity: From a snapshot to the popularity vectors [C, P] that these towers expect; None
            takes the snapshot's own.
    """

    def __init__(
        self,
        data: EvaluationData,
        base: Path,
        manifest: FeaturesManifest,
        popularity: PopularityOf | None = None,
    ) -> None:
        self._data, self._manifest = data, manifest
        self._popularity = popularity or (lambda snapshot: snapshot.popularity)
        self._query_tower = load_tower(base / "query_tower")
        self._item_tower = load_tower(base / "item_tower")
        self._static = self._read_items()
        self._embedded: tuple[Longs, QueryOutputs] | None = None

    def at(self, queries: Queries, snapshot: CandidateSnapshot) -> ScoreBlock:
        """Embed the candidates with their age and popularity at the snapshot."""
        return self.run_query_tower(queries).over(snapshot, self.embed_items(snapshot))

    def over(self, data: EvaluationData) -> "TowerScorer":
        """The same towers for other queries over the same catalogue."""
        other = copy(self)
        other._data, other._embedded = data, None
        return other

    @property
    def spec(self) -> FeatureSpec:
        """The inputs of these towers."""
        return self._manifest.spec

    @property
    def item_columns(self) -> Inputs:
        """The item inputs without age and popularity: [R] rows of ``ItemCatalogue.contents``."""
        return self._static

    def with_items(self, changed: Inputs) -> "TowerScorer":
        """The same towers over a catalogue in which some of ``item_columns`` are others."""
        other = copy(self)
        other._static, other._embedded = self._static | changed, None
        return other

    def embed_inputs(self, inputs: Inputs, queries: Queries) -> QueryOutputs:
        """Run the query tower on inputs of the queries, some of which may be changed."""
        outputs = run_tower(self._query_tower, inputs)
        items = _latest(queries.history, self._manifest.spec.history_length).item
        return QueryOutputs(outputs["embedding"], items, outputs.get(REPEATS))

    def embed_items(self, snapshot: CandidateSnapshot) -> Floats:
        """[C, D] vectors of a snapshot's candidates."""
        return self.run_item_tower(self.item_inputs(snapshot))["embedding"]

    def item_inputs(self, snapshot: CandidateSnapshot) -> Inputs:
        """Item tower inputs of a snapshot's candidates."""
        popularity = self._popularity(snapshot)
        rows = self._data.content_rows(snapshot)
        return self._inputs_of(rows, snapshot.age_days, popularity)

    def run_item_tower(self, inputs: Inputs) -> dict[str, Any]:
        """Every output of the item tower."""
        return run_tower(self._item_tower, inputs)

    def run_query_tower(self, queries: Queries) -> QueryOutputs:
        """What the query tower says of the queries; that of the last call is kept."""
        if self._embedded is None or not np.array_equal(self._embedded[0], queries.rows):
            contents = self._embed_contents(queries)
            size = contents.values.shape[1] * self._manifest.spec.history_length
            step = max(1, CELLS_AT_ONCE // max(1, size))
            parts = []
            for start in range(0, max(len(queries), 1), step):
                part = queries.take(np.arange(start, min(start + step, len(queries))))
                parts.append(self.embed_inputs(self._query_inputs(part, contents), part))
            self._embedded = queries.rows, QueryOutputs.join(parts)
        return self._embedded[1]

    def query_inputs(self, queries: Queries) -> Inputs:
        """Query tower inputs of the queries."""
        return self._query_inputs(queries, self._embed_contents(queries))

    def _query_inputs(self, queries: Queries, contents: "_Contents") -> Inputs:
        spec, table = self._manifest.spec, self._data.log.table.take(queries.rows)
        past = _latest(queries.history, spec.history_length)
        return query_inputs(
            spec,
            _columns(table, spec.context_categorical, spec.context_numeric),
            _columns(table, spec.user_categorical, spec.user_numeric),
            contents.of(self._history_rows(queries)),
            past.event_type,
            past.age_days,
        )

    def embed_history(self, queries: Queries) -> Floats:
        """[n, L, C] content vectors, which depend neither on age nor on popularity; 0 padded."""
        return self._embed_contents(queries).of(self._history_rows(queries))

    def _history_rows(self, queries: Queries) -> Any:
        """[n, L] rows of ``ItemCatalogue.contents`` with the items of the histories; -1 padded."""
        past = _latest(queries.history, self._manifest.spec.history_length)
        return self._data.rows_of_items(past.item, queries)

    def _embed_contents(self, queries: Queries) -> "_Contents":
        """The content vectors of all items of the histories, once each."""
        rows = self._history_rows(queries)
        used = np.unique(rows[rows >= 0])
        if not len(used):
            used = np.zeros(1, dtype=rows.dtype)
        age = np.zeros(len(used), dtype=np.float32)
        popularity = np.zeros((len(used), self._manifest.popularity_size), dtype=np.float32)
        return _Contents(
            used, self.run_item_tower(self._inputs_of(used, age, popularity))["content"]
        )

    def _inputs_of(self, rows: Any, age_days: Floats, popularity: Floats) -> Inputs:
        inputs = {name: values[rows] for name, values in self._static.items()}
        return inputs | {"item_age_days": age_days, "item_popularity": popularity}

    def _read_items(self) -> Inputs:
        """See ``item_columns``."""
        spec, table = self._manifest.spec, self._data.catalogue.contents
        columns = _columns(
            table, ("item_id", *spec.item_categorical, *spec.item_text), spec.item_numeric
        )
        if spec.item_vector:
            columns[spec.item_vector] = vectors(table[spec.item_vector], self._manifest.vector_size)
        empty = np.zeros((table.num_rows, 0), dtype=np.float32)
        inputs = item_inputs(spec, columns, empty, empty)
        return {k: v for k, v in inputs.items() if k not in ("item_age_days", "item_popularity")}


def load_model(data: EvaluationData, model: Path) -> TowerScorer:
    """Load the model that is evaluated.

    Raises:
        UsageError: It was trained on features with another layout.
    """
    manifest = FeaturesManifest.read(model)
    if differ(manifest.encoding, data.manifest.encoding):
        raise UsageError(
            f"{model} was trained on item vectors of {manifest.encoding or 'no encoder'}, and"
            f" {data.folder} has those of {data.manifest.encoding or 'no encoder'}"
        )
    for name in ("spec", "market", "popularity_values", "vector_size"):
        if getattr(manifest, name) != getattr(data.manifest, name):
            raise UsageError(
                f"{model} was trained on features with another {name} than {data.folder}; "
                "evaluate it on the features that it was trained on"
            )
    return TowerScorer(data, model, data.manifest)


def read_embedding_version(folder: Path) -> str | None:
    """The embedding version in a model folder's model.json; None where it has none."""
    value = read_json(folder / "model.json").get("embedding_version")
    return str(value) if value else None


def read_kind(folder: Path) -> ModelKind:
    """Whether a model folder holds a model, or a baseline that is served as itself."""
    return "baseline" if read_json(folder / "model.json").get("kind") == "baseline" else "model"


def load_champion(data: EvaluationData, champion: Path) -> TowerScorer | str:
    """Load the champion to run on these features; the reason where they are not comparable.

    Where the counted values have changed since, its popularity vectors are rearranged.
    """
    try:
        manifest = FeaturesManifest.read(champion)
        if reason := _why_not_comparable(manifest, data):
            return reason
        return TowerScorer(data, champion, manifest, _popularity_as(manifest, data))
    except (RefitError, OSError) as error:
        return f"the champion cannot be loaded: {error}"


def _why_not_comparable(theirs: FeaturesManifest, data: EvaluationData) -> str:
    """Why towers with other inputs cannot run on these features; empty if they can."""
    spec, ours = theirs.spec, data.spec
    try:
        spec.check_columns(
            data.catalogue.table.column_names,
            data.log.table.column_names,
            data.log.table.column_names,
        )
    except UsageError as error:
        return f"the champion needs columns that the features do not have: {error}"
    if differ(theirs.encoding, data.manifest.encoding):
        return (
            f"the champion reads item vectors of {theirs.encoding or 'no encoder'}, the features"
            f" have those of {data.manifest.encoding or 'no encoder'}"
        )
    if theirs.vector_size != data.manifest.vector_size:
        return (
            f"the champion takes item vectors of length {theirs.vector_size}, "
            f"the features have {data.manifest.vector_size}"
        )
    if spec.history_length > ours.history_length:
        return (
            f"the champion takes {spec.history_length} history items, "
            f"the features have {ours.history_length}"
        )
    for name in ("event_weights", "history_within_visit", "visit_gap_minutes"):
        if getattr(spec, name) != getattr(ours, name):
            return f"the champion's features have another {name}"
    for column in spec.popularity_by:
        if spec.popularity_bins.get(column) != ours.popularity_bins.get(column):
            return f"the champion's features have other popularity_bins of {column}"
    return ""


def _popularity_as(theirs: FeaturesManifest, data: EvaluationData) -> PopularityOf:
    """From a snapshot to popularity vectors in the layout of other towers.

    Half-lives and values that the features do not count are counted here, from the examples.
    """
    ours = data.manifest
    if _layout(theirs) == _layout(ours):
        return lambda snapshot: snapshot.popularity
    column_of = {cell: i for i, cell in enumerate(_layout(ours))}
    wanted = _layout(theirs)

    def rearrange(snapshot: CandidateSnapshot) -> Floats:
        columns = [
            snapshot.popularity[:, column_of[cell]]
            if cell in column_of
            else _count(data, snapshot, *cell)
            for cell in wanted
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    return rearrange


def _layout(manifest: FeaturesManifest) -> list[tuple[float, str, str]]:
    """Half-life, column and value of each entry of a popularity vector."""
    return [
        (half_life, column, value)
        for half_life in manifest.spec.popularity_half_lives_days
        for column, value in [
            ("", ""),
            *((c, v) for c in manifest.spec.popularity_by for v in manifest.popularity_values[c]),
        ]
    ]


def _count(
    data: EvaluationData, snapshot: CandidateSnapshot, half_life: float, column: str, value: str
) -> Floats:
    """[C] decayed counts of the candidates before the snapshot."""
    log = data.log
    rows = np.arange(log.before(snapshot.time))
    if column:
        rows = rows[strings(log.table[column])[rows] == value]
    age_days = (snapshot.time - log.time[rows]) / DAY
    decayed = log.weight[rows] * 0.5 ** (age_days / half_life)
    counts = np.bincount(log.item[rows], decayed, data.catalogue.size)
    return counts[snapshot.items].astype(np.float32)


def _latest(past: PaddedHistories, length: int) -> PaddedHistories:
    return PaddedHistories(
        past.item[:, :length], past.event_type[:, :length], past.age_days[:, :length]
    )


def _columns(table: Any, text: tuple[str, ...], numeric: tuple[str, ...]) -> dict[str, Any]:
    return {name: strings(table[name]) for name in text} | {
        name: numbers(table[name]) for name in numeric
    }
