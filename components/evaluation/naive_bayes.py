"""Popularity as a sum of factors: the demand for an item, or for its attributes, in a context.

A factor is a table [V, C] with one row per context value and one column per candidate. The score of
a candidate is the sum of the rows that the query's context selects: naive Bayes, log p(item) + sum
of log p(value | item).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from components.evaluation.data import (
    DAY,
    CandidateSnapshot,
    Coded,
    EvaluationData,
    Floats,
    Ints,
    Longs,
    Queries,
    code_column,
)
from components.evaluation.ranking import ScoreBlock
from refit.feature_tables import numbers, strings
from refit.features import bin_of

ITEM_ATTRIBUTES = ("brand", "category_1", "category_2", "category_3", "colour", "size", "condition")
LISTING_AGE = "days listed"
LISTING_AGE_EDGES = np.array([1, 2, 4, 7, 14, 30, 60, 120], dtype=np.float64)
NEWNESS = 0.01
"""Added to log popularity, in proportion to newness: it orders items that are equally popular."""
LATEST = "latest "
"""``latest brand`` is the brand of the newest item in the query's history."""

Source = Literal["examples", "snapshots"]


@dataclass(frozen=True)
class PopularityFactor:
    """One summand of a score.

    Attributes:
        attribute: What is counted: an item attribute, or "" for the item itself.
        column: The context column that the count is conditioned on; "" for none.
        half_life_days: Half-life of the counted events.
        strength: Additive smoothing, as a number of events. Without a column, every item gets this
            many events; with one, they are distributed by the overall share of each value.
        source: ``examples`` counts the examples before the snapshot. ``snapshots`` takes the counts
            stored with the snapshot, which also include events that are no targets, such as views.
    """

    attribute: str = ""
    column: str = ""
    half_life_days: float = 60.0
    strength: float = 1e-6
    source: Source = "examples"

    def describe(self) -> str:
        """The factor in words, such as ``brand | occasion``."""
        counted = self.attribute or "item"
        given = f"{counted} | {self.column}" if self.column else counted
        return f"{given} (snapshots)" if self.source == "snapshots" else given


class NaiveBayesPopularity:
    """The columns of a features folder as codes, and the factors that are computed from them.

    Args:
        data: The features folder.
        max_values: At most this many values of a string column get a code; the rest share one.
        number_bins: Numeric columns are cut into this many equally filled bins.

    Attributes:
        contexts: By context column, the codes [M] of the examples.
        attributes: By item attribute, the codes [R] of the rows of ``ItemCatalogue.contents``.
    """

    def __init__(self, data: EvaluationData, max_values: int, number_bins: int) -> None:
        self.data = data
        self._decayed = lru_cache(maxsize=8)(self._decay)
        log, items = data.log, data.catalogue.contents
        self.attributes: dict[str, Coded] = {
            name: code_column(items[name], max_values, number_bins)
            for name in attribute_columns(data)
        }
        until = log.starts[1]
        self.contexts: dict[str, Coded] = {
            name: code_column(log.table[name], max_values, number_bins, until)
            for name in log.table.column_names
        }
        for name, coded in self.attributes.items():
            codes = np.append(coded.codes, np.int32(len(coded.values)))[log.last_content]
            self.contexts[LATEST + name] = Coded(codes, (*coded.values, "no history"))

    def score(
        self, factors: Sequence[PopularityFactor], queries: Queries, snapshot: CandidateSnapshot
    ) -> ScoreBlock:
        """Prepare the sum of factors over a snapshot's candidates."""
        tables = [self.table(factor, snapshot) for factor in factors]
        codes = [self.codes(factor, queries) for factor in factors]

        def add_up(which: Longs) -> Floats:
            scores = np.zeros((len(which), len(snapshot.items)), dtype=np.float32)
            for table, code in zip(tables, codes, strict=True):
                scores += table if len(table) == 1 else table[code[which]]
            return scores

        return add_up

    def codes(self, factor: PopularityFactor, queries: Queries) -> Ints:
        """[n] row of the factor's table for each query."""
        if not factor.column:
            return np.zeros(len(queries), dtype=np.int32)
        if factor.source == "snapshots":
            return self._snapshot_codes[factor.column][queries.rows]
        return self.contexts[factor.column].codes[queries.rows]

    def table(self, factor: PopularityFactor, snapshot: CandidateSnapshot) -> Floats:
        """[V, C] summands of a factor; V is 1 without a column."""
        if factor.source == "snapshots":
            return self._table_of_snapshot(factor, snapshot)
        decayed = self._decayed(snapshot.time, factor.half_life_days)
        rows = slice(0, len(decayed))
        owner, of_candidate, n_owners = self._owners(factor, snapshot, rows)
        if not factor.column:
            counts = np.bincount(owner, decayed, n_owners + 1)[:n_owners]
            if factor.attribute:
                return _demand_over_supply(counts, of_candidate)
            return self._log_popularity(factor, counts, snapshot)
        coded = self.contexts[factor.column]
        n_values = len(coded.values)
        cells = coded.codes[rows].astype(np.int64) * (n_owners + 1) + owner
        counts = np.bincount(cells, decayed, n_values * (n_owners + 1))
        joint = counts.reshape(n_values, n_owners + 1)
        lift = _lift(joint, joint.sum(axis=0), factor.strength)
        return lift[:, :n_owners][:, of_candidate]

    @cached_property
    def _snapshot_codes(self) -> dict[str, Ints]:
        """[M] by column, the index of each value among those that snapshots count.

        Values that they do not count get the number after the last.
        """
        spec, table = self.data.spec, self.data.log.table
        coded: dict[str, Ints] = {}
        for column, values in self.data.manifest.popularity_values.items():
            edges = spec.popularity_bins.get(column)
            found = (
                strings(table[column]) if edges is None else bin_of(numbers(table[column]), edges)
            )
            code_of = {value: i for i, value in enumerate(values)}
            coded[column] = np.array(
                [code_of.get(value, len(values)) for value in found], dtype=np.int32
            )
        return coded

    def _log_popularity(
        self,
        factor: PopularityFactor,
        counts: NDArray[np.float64] | Floats,
        snapshot: CandidateSnapshot,
    ) -> Floats:
        known_at = self.data.catalogue.known_at[snapshot.items]
        newness = np.searchsorted(np.sort(known_at), known_at) / len(known_at)
        return (np.log(counts + factor.strength) + NEWNESS * newness).astype(np.float32)[None, :]

    def _table_of_snapshot(self, factor: PopularityFactor, snapshot: CandidateSnapshot) -> Floats:
        """As ``table``, from the counts stored with the snapshot."""
        spec, values = self.data.spec, self.data.manifest.popularity_values
        half_lives = spec.popularity_half_lives_days
        stored = snapshot.popularity.reshape(len(snapshot.items), len(half_lives), -1)
        counts = stored[:, half_lives.index(factor.half_life_days)].T.astype(np.float64)
        if not factor.column:
            return self._log_popularity(factor, counts[0], snapshot)
        at = spec.popularity_by.index(factor.column)
        start = 1 + sum(len(values[column]) for column in spec.popularity_by[:at])
        known = counts[start : start + len(values[factor.column])]
        rest = np.maximum(counts[0] - known.sum(axis=0), 0.0)
        return _lift(np.vstack([known, rest]), counts[0], factor.strength)

    def _decay(self, time: int, half_life_days: float) -> NDArray[np.float64]:
        """Decayed weights of the examples before a time."""
        log = self.data.log
        rows = slice(0, log.before(time))
        return log.weight[rows] * 0.5 ** ((time - log.time[rows]) / DAY / half_life_days)

    def _owners(
        self, factor: PopularityFactor, snapshot: CandidateSnapshot, rows: slice
    ) -> tuple[Ints, Ints, int]:
        """The owners of the counts: items, or values of an attribute.

        Returns:
            The owner of each event (the number after the last for events that count for none), the
            owner of each candidate, and the number of owners.
        """
        log, catalogue = self.data.log, self.data.catalogue
        items = log.item[rows]
        if not factor.attribute:
            n = len(snapshot.items)
            position = np.full(catalogue.size, n, dtype=np.int32)
            position[snapshot.items] = np.arange(n, dtype=np.int32)
            return position[items], np.arange(n, dtype=np.int32), n
        if factor.attribute == LISTING_AGE:
            at_event = _bin_ages(log.time[rows] - catalogue.known_at[items])
            now = _bin_ages(snapshot.time - catalogue.known_at[snapshot.items])
            return at_event, now, len(LISTING_AGE_EDGES) + 1
        coded = self.attributes[factor.attribute]
        now = coded.codes[self.data.content_rows(snapshot)]
        return coded.codes[log.content[rows]], now, len(coded.values)


@dataclass(frozen=True)
class NaiveBayesScorer:
    """Scores candidates by a sum of popularity factors."""

    naive_bayes: NaiveBayesPopularity
    factors: tuple[PopularityFactor, ...]

    def at(self, queries: Queries, snapshot: CandidateSnapshot) -> ScoreBlock:
        """Compute the factors from the events before the snapshot."""
        return self.naive_bayes.score(self.factors, queries, snapshot)


def attribute_columns(data: EvaluationData) -> tuple[str, ...]:
    """The columns of the catalogue that are counted as item attributes."""
    present = data.catalogue.table.column_names
    candidates = (*data.spec.item_categorical, *ITEM_ATTRIBUTES, "price")
    return tuple(dict.fromkeys(name for name in candidates if name in present))


def _lift(joint: NDArray[np.float64], totals: NDArray[np.float64], strength: float) -> Floats:
    """Smoothed log p(value | owner) / p(value).

    Args:
        joint: [V, A] weight of the events by context value and owner.
        totals: [A] weight of all events of each owner.
        strength: Events added to each owner, distributed by the overall shares.
    """
    share = np.maximum(joint.sum(axis=1) / max(joint.sum(), 1e-9), 1e-9)[:, None]
    lift = (joint + strength * share) / ((totals + strength) * share)
    return np.log(np.maximum(lift, 1e-9)).astype(np.float32)


def _demand_over_supply(counts: NDArray[np.float64], of_candidate: Ints) -> Floats:
    """Log of an attribute value's share of the events over its share of the candidates."""
    supply = np.bincount(of_candidate, minlength=len(counts)) + 1e-9
    share = (counts[: len(supply)] + 1.0) / (counts.sum() + len(counts))
    return np.log(share / supply)[of_candidate].astype(np.float32)[None, :]


def _bin_ages(age: Longs) -> Ints:
    days = np.maximum(age, 0) / DAY
    return np.searchsorted(LISTING_AGE_EDGES, days, side="right").astype(np.int32)
