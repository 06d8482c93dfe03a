"""Popularity as a sum of terms: how much of the demand an item, or its attribute, has in a context.

A term is a table [V, C]: one row a context value, one column a candidate. Adding the tables that a
query's context picks gives its scores: naive Bayes, log p(item) + sum of log p(value | item).
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

LISTING_AGE = "days listed"
LISTING_AGE_EDGES = np.array([1, 2, 4, 7, 14, 30, 60, 120], dtype=np.float64)
NEWNESS = 0.01
"""Of equally popular items the newer goes first: up to this much is added to log popularity."""
LATEST = "latest "
"""``latest brand`` is the brand of the newest item in the query's history."""

Source = Literal["examples", "snapshots"]


@dataclass(frozen=True)
class PopularityFactor:
    """One summand of a score.

    Attributes:
        attribute: What is counted: "" for the item itself, or a column of its attributes.
        column: The context column whose value it is conditioned on; "" for none.
        half_life_days: Decay of the counted events.
        strength: Additive smoothing: events that every item, or attribute value, is credited with;
            shared by overall frequency where there is a column to condition on.
        source: ``examples`` counts the examples before the moment, ``snapshots`` takes the counts
            that the features hold, which also know events that are not judged, such as views.
    """

    attribute: str = ""
    column: str = ""
    half_life_days: float = 60.0
    strength: float = 1e-6
    source: Source = "examples"

    def describe(self) -> str:
        """The term in words."""
        what = self.attribute or "item"
        given = f"{what} | {self.column}" if self.column else what
        return f"{given} (snapshots)" if self.source == "snapshots" else given


class NaiveBayesPopularity:
    """Codes of every column that can be counted, made once for a features folder.

    Attributes:
        contexts: [M] codes by context column, the log's rows.
        attributes: [N] codes by item attribute, the catalogue's rows.
    """

    def __init__(
        self, data: EvaluationData, max_values: int, number_bins: int, attributes: Sequence[str]
    ) -> None:
        self.data = data
        self._decayed = lru_cache(maxsize=8)(self._decay)
        log, items = data.log, data.catalogue.table
        self.attributes: dict[str, Coded] = {
            name: code_column(items[name], max_values, number_bins) for name in attributes
        }
        until = log.starts[1]
        self.contexts: dict[str, Coded] = {
            name: code_column(log.table[name], max_values, number_bins, until)
            for name in log.table.column_names
        }
        for name, coded in self.attributes.items():
            codes = np.append(coded.codes, np.int32(len(coded.values)))[log.last_item]
            self.contexts[LATEST + name] = Coded(codes, (*coded.values, "no history"))

    @cached_property
    def _counted(self) -> dict[str, Ints]:
        """[M] place of each value among the counted ones of its column; the last is the rest."""
        spec, table = self.data.spec, self.data.log.table
        places: dict[str, Ints] = {}
        for column, values in self.data.manifest.popularity_values.items():
            edges = spec.popularity_bins.get(column)
            found = (
                strings(table[column]) if edges is None else bin_of(numbers(table[column]), edges)
            )
            place = {value: i for i, value in enumerate(values)}
            places[column] = np.array(
                [place.get(value, len(values)) for value in found], dtype=np.int32
            )
        return places

    def score(
        self, terms: Sequence[PopularityFactor], queries: Queries, moment: CandidateSnapshot
    ) -> ScoreBlock:
        """Get ready to add up terms at a moment."""
        tables = [self.table(term, moment) for term in terms]
        codes = [self.codes(term, queries) for term in terms]

        def add_up(which: Longs) -> Floats:
            scores = np.zeros((len(which), len(moment.items)), dtype=np.float32)
            for table, code in zip(tables, codes, strict=True):
                scores += table if len(table) == 1 else table[code[which]]
            return scores

        return add_up

    def codes(self, term: PopularityFactor, queries: Queries) -> Ints:
        """[n] which row of the term's table each query takes."""
        if not term.column:
            return np.zeros(len(queries), dtype=np.int32)
        if term.source == "snapshots":
            return self._counted[term.column][queries.rows]
        return self.contexts[term.column].codes[queries.rows]

    def table(self, term: PopularityFactor, moment: CandidateSnapshot) -> Floats:
        """[V, C] what the term adds; V is 1 without a column."""
        if term.source == "snapshots":
            return self._in_snapshot(term, moment)
        decayed = self._decayed(moment.time, term.half_life_days)
        rows = slice(0, len(decayed))
        owner, of_candidate, n_owners = self._owners(term, moment, rows)
        if not term.column:
            counts = np.bincount(owner, decayed, n_owners + 1)[:n_owners]
            if term.attribute:
                return _demand_over_supply(counts, of_candidate)
            return self._popularity(term, counts, moment)
        coded = self.contexts[term.column]
        n_values = len(coded.values)
        cells = coded.codes[rows].astype(np.int64) * (n_owners + 1) + owner
        counts = np.bincount(cells, decayed, n_values * (n_owners + 1))
        joint = counts.reshape(n_values, n_owners + 1)
        lift = _lift(joint, joint.sum(axis=0), term.strength)
        return lift[:, :n_owners][:, of_candidate]

    def _popularity(
        self,
        term: PopularityFactor,
        counts: NDArray[np.float64] | Floats,
        moment: CandidateSnapshot,
    ) -> Floats:
        known_at = self.data.catalogue.known_at[moment.items]
        newness = np.searchsorted(np.sort(known_at), known_at) / len(known_at)
        return (np.log(counts + term.strength) + NEWNESS * newness).astype(np.float32)[None, :]

    def _in_snapshot(self, term: PopularityFactor, moment: CandidateSnapshot) -> Floats:
        """The same from the counts that the snapshot holds."""
        spec, values = self.data.spec, self.data.manifest.popularity_values
        half_lives = spec.popularity_half_lives_days
        held = moment.popularity.reshape(len(moment.items), len(half_lives), -1)
        counts = held[:, half_lives.index(term.half_life_days)].T.astype(np.float64)
        if not term.column:
            return self._popularity(term, counts[0], moment)
        at = spec.popularity_by.index(term.column)
        start = 1 + sum(len(values[column]) for column in spec.popularity_by[:at])
        known = counts[start : start + len(values[term.column])]
        rest = np.maximum(counts[0] - known.sum(axis=0), 0.0)
        return _lift(np.vstack([known, rest]), counts[0], term.strength)

    def _decay(self, time: int, half_life_days: float) -> NDArray[np.float64]:
        """Weights of the examples before a moment."""
        log = self.data.log
        rows = slice(0, log.before(time))
        return log.weight[rows] * 0.5 ** ((time - log.time[rows]) / DAY / half_life_days)

    def _owners(
        self, term: PopularityFactor, moment: CandidateSnapshot, rows: slice
    ) -> tuple[Ints, Ints, int]:
        """Whom each event counts for, whose count each candidate takes, and how many there are.

        Events that count for nobody get the number after the last.
        """
        log, catalogue = self.data.log, self.data.catalogue
        items = log.item[rows]
        if not term.attribute:
            position = np.full(catalogue.size, len(moment.items), dtype=np.int32)
            position[moment.items] = np.arange(len(moment.items), dtype=np.int32)
            return position[items], np.arange(len(moment.items), dtype=np.int32), len(moment.items)
        if term.attribute == LISTING_AGE:
            at_event = _listing_age(log.time[rows] - catalogue.known_at[items])
            now = _listing_age(moment.time - catalogue.known_at[moment.items])
            return at_event, now, len(LISTING_AGE_EDGES) + 1
        coded = self.attributes[term.attribute]
        return coded.codes[items], coded.codes[moment.items], len(coded.values)


def _lift(joint: NDArray[np.float64], totals: NDArray[np.float64], strength: float) -> Floats:
    """Smoothed log p(value | owner) / p(value).

    Args:
        joint: [V, A] weight of the events with a value, by owner.
        totals: [A] weight of all events of the owner.
        strength: How many events at the overall shares every owner is credited with.
    """
    share = np.maximum(joint.sum(axis=1) / max(joint.sum(), 1e-9), 1e-9)[:, None]
    lift = (joint + strength * share) / ((totals + strength) * share)
    return np.log(np.maximum(lift, 1e-9)).astype(np.float32)


def _demand_over_supply(counts: NDArray[np.float64], of_candidate: Ints) -> Floats:
    """Log of an attribute value's share of events over its share of what is on offer."""
    supply = np.bincount(of_candidate, minlength=len(counts)) + 1e-9
    share = (counts[: len(supply)] + 1.0) / (counts.sum() + len(counts))
    return np.log(share / supply)[of_candidate].astype(np.float32)[None, :]


def _listing_age(age: Longs) -> Ints:
    return np.searchsorted(LISTING_AGE_EDGES, np.maximum(age, 0) / DAY, side="right").astype(
        np.int32
    )
