"""The model, and the champion before it, as ways to recommend: dot products of tower vectors."""

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.data import (
    DAY,
    CandidateSnapshot,
    EvaluationData,
    Floats,
    Longs,
    Queries,
)
from components.evaluation.ranking import ScoreBlock
from refit.errors import RefitError, UsageError
from refit.feature_tables import PaddedHistories, numbers, strings, vectors
from refit.features import FeaturesManifest, Inputs, item_inputs, query_inputs
from refit.files import read_json
from refit.towers import load_tower, run_tower

CalledPopularity = Callable[[CandidateSnapshot], Floats]


class TowerScorer:
    """Ranks by the dot product of query and item vectors.

    Args:
        data: The features folder.
        base: Model or bundle folder, with ``query_tower`` and ``item_tower``.
        manifest: The inputs that these towers were trained with.
        popularity: From a moment to the popularity vectors [C, P] that these towers expect.
    """

    def __init__(
        self,
        data: EvaluationData,
        base: Path,
        manifest: FeaturesManifest,
        popularity: CalledPopularity | None = None,
    ) -> None:
        self._data, self._manifest = data, manifest
        self._popularity = popularity or (lambda moment: moment.popularity)
        self._query_tower = load_tower(base / "query_tower")
        self._item_tower = load_tower(base / "item_tower")
        self._static = self._read_items()
        self._known: tuple[Longs, Floats] | None = None

    def at(self, queries: Queries, moment: CandidateSnapshot) -> ScoreBlock:
        """Embed the moment's candidates as they stood then."""
        query_vectors = self.embed_queries(queries)
        item_vectors = self.embed_items(moment)

        def score(which: Longs) -> Floats:
            return query_vectors[which] @ item_vectors.T

        return score

    def over(self, data: EvaluationData) -> "TowerScorer":
        """The same towers for other queries over the same catalogue."""
        other = copy(self)
        other._data, other._known = data, None
        return other

    def embed_items(self, moment: CandidateSnapshot) -> Floats:
        """[C, D] vectors of a moment's candidates."""
        return self._run_items(moment.items, moment.age_days, self._popularity(moment))["embedding"]

    def embed_queries(self, queries: Queries) -> Floats:
        """[n, D] vectors of the queries; kept for the queries asked for last."""
        if self._known is None or not np.array_equal(self._known[0], queries.rows):
            inputs = self.query_inputs(queries)
            self._known = (queries.rows, run_tower(self._query_tower, inputs)["embedding"])
        return self._known[1]

    def query_inputs(self, queries: Queries) -> Inputs:
        """Query tower inputs of the queries."""
        spec, table = self._manifest.spec, self._data.log.table.take(queries.rows)
        past = _latest(queries.history, spec.history_length)
        return query_inputs(
            spec,
            _columns(table, spec.context_categorical, spec.context_numeric),
            _columns(table, spec.user_categorical, spec.user_numeric),
            self._embed_history(past),
            past.event_type,
            past.age_days,
        )

    def _embed_history(self, past: PaddedHistories) -> Floats:
        """[n, L, C] content vectors, which know neither age nor popularity; 0 padded."""
        items = np.unique(past.item[past.item >= 0]).astype(np.int32)
        if not len(items):
            items = np.zeros(1, dtype=np.int32)
        age = np.zeros(len(items), dtype=np.float32)
        popularity = np.zeros((len(items), self._manifest.popularity_size), dtype=np.float32)
        content = self._run_items(items, age, popularity)["content"]
        padded = past.item < 0
        found = content[np.searchsorted(items, np.where(padded, items[0], past.item))]
        found[padded] = 0.0
        return found

    def _run_items(self, items: Any, age_days: Floats, popularity: Floats) -> dict[str, Any]:
        inputs = {name: values[items] for name, values in self._static.items()}
        return run_tower(
            self._item_tower,
            inputs | {"item_age_days": age_days, "item_popularity": popularity},
        )

    def _read_items(self) -> Inputs:
        """The item inputs that do not change with time, for the whole catalogue."""
        spec, table = self._manifest.spec, self._data.catalogue.table
        columns = _columns(
            table, ("item_id", *spec.item_categorical, *spec.item_text), spec.item_numeric
        )
        if spec.item_vector:
            columns[spec.item_vector] = vectors(table[spec.item_vector], self._manifest.vector_size)
        nothing = np.zeros((table.num_rows, 0), dtype=np.float32)
        inputs = item_inputs(spec, columns, nothing, nothing)
        return {k: v for k, v in inputs.items() if k not in ("item_age_days", "item_popularity")}


def load_model(data: EvaluationData, model: Path) -> TowerScorer:
    """Open the model that is judged.

    Raises:
        UsageError: It was trained on other inputs than these features hold.
    """
    manifest = FeaturesManifest.read(model)
    for name in ("spec", "market", "popularity_values", "vector_size"):
        if getattr(manifest, name) != getattr(data.manifest, name):
            raise UsageError(
                f"{model} was trained on features with another {name} than {data.folder}; "
                "judge it on the features that it was trained on"
            )
    return TowerScorer(data, model, data.manifest)


def read_embedding_version(folder: Path) -> str | None:
    """The identity that a model folder claims for its towers."""
    value = read_json(folder / "model.json").get("embedding_version")
    return str(value) if value else None


def load_champion(data: EvaluationData, champion: Path) -> TowerScorer | str:
    """Open the champion on the same features; in words why not, where they cannot be compared.

    Its popularity vectors are laid out anew where the counted values have changed since.
    """
    try:
        manifest = FeaturesManifest.read(champion)
        if why := _why_not_comparable(manifest, data):
            return why
        return TowerScorer(data, champion, manifest, _popularity_as(manifest, data))
    except (RefitError, OSError) as error:
        return f"the champion cannot be opened: {error}"


def _why_not_comparable(theirs: FeaturesManifest, data: EvaluationData) -> str:
    """Why towers with other inputs cannot be run on these features; empty when they can."""
    spec, ours = theirs.spec, data.spec
    try:
        spec.check_columns(
            data.catalogue.table.column_names,
            data.log.table.column_names,
            data.log.table.column_names,
        )
    except UsageError as error:
        return f"the champion needs columns that the features do not hold: {error}"
    if theirs.vector_size != data.manifest.vector_size:
        return (
            f"the champion takes item vectors of length {theirs.vector_size}, "
            f"the features hold {data.manifest.vector_size}"
        )
    if spec.history_length > ours.history_length:
        return (
            f"the champion takes {spec.history_length} history items, "
            f"the features hold {ours.history_length}"
        )
    for name in ("event_weights", "history_within_visit"):
        if getattr(spec, name) != getattr(ours, name):
            return f"the champion's features have another {name}"
    for column in spec.popularity_by:
        if spec.popularity_bins.get(column) != ours.popularity_bins.get(column):
            return f"the champion's features have other popularity_bins of {column}"
    return ""


def _popularity_as(theirs: FeaturesManifest, data: EvaluationData) -> CalledPopularity:
    """Popularity vectors as other towers expect them, from the features' own.

    A half-life or a value that the features do not count is counted here from the examples.
    """
    ours = data.manifest
    if _layout(theirs) == _layout(ours):
        return lambda moment: moment.popularity
    place = {cell: i for i, cell in enumerate(_layout(ours))}
    wanted = _layout(theirs)

    def lay_out(moment: CandidateSnapshot) -> Floats:
        columns = [
            moment.popularity[:, place[cell]] if cell in place else _count(data, moment, *cell)
            for cell in wanted
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    return lay_out


def _layout(manifest: FeaturesManifest) -> list[tuple[float, str, str]]:
    """Half-life, column and value of each place of a popularity vector."""
    return [
        (half_life, column, value)
        for half_life in manifest.spec.popularity_half_lives_days
        for column, value in [
            ("", ""),
            *((c, v) for c in manifest.spec.popularity_by for v in manifest.popularity_values[c]),
        ]
    ]


def _count(
    data: EvaluationData, moment: CandidateSnapshot, half_life: float, column: str, value: str
) -> Floats:
    log = data.log
    rows = np.arange(log.before(moment.time))
    if column:
        rows = rows[strings(log.table[column])[rows] == value]
    age_days = (moment.time - log.time[rows]) / DAY
    decayed = log.weight[rows] * 0.5 ** (age_days / half_life)
    counts = np.bincount(log.item[rows], decayed, data.catalogue.size)
    return counts[moment.items].astype(np.float32)


def _latest(past: PaddedHistories, length: int) -> PaddedHistories:
    return PaddedHistories(
        past.item[:, :length], past.event_type[:, :length], past.age_days[:, :length]
    )


def _columns(table: Any, text: tuple[str, ...], numeric: tuple[str, ...]) -> dict[str, Any]:
    return {name: strings(table[name]) for name in text} | {
        name: numbers(table[name]) for name in numeric
    }
