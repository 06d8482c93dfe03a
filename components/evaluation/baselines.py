"""What the model has to beat: strong and simple ways to recommend, tuned on the validation split.

All of them learn from events before the moment they rank at (popularity, by snapshot) or before
the split they rank (co-occurrence and EASE), and are fitted anew for the test.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from components.evaluation.data import (
    CandidateSnapshot,
    EvaluationData,
    Flags,
    Floats,
    Longs,
    Queries,
)
from components.evaluation.metrics import METRICS
from components.evaluation.naive_bayes import (
    LATEST,
    LISTING_AGE,
    NaiveBayesPopularity,
    PopularityFactor,
)
from components.evaluation.ranking import (
    CandidateGroup,
    EvaluationSet,
    ScoreBlock,
    Scorer,
    build_evaluation_set,
    rank_positives,
)
from components.evaluation.settings import BaselineSettings, EvaluationSettings
from refit.progress import timed

POPULARITY = "popularity"
IN_CONTEXT = "popularity in context"
ATTRIBUTES = "attributes in context"
COOCCURRENCE = "co-occurrence"
EASE = "EASE"

ITEM_ATTRIBUTES = ("brand", "category_1", "category_2", "category_3", "colour", "size", "condition")
WORTHWHILE = 1.005
"""A further term must raise the validation metric by this factor."""
PROMISING = 24
"""Attribute terms that are tried together; the others help popularity less."""
SHORTLIST = 8
"""Terms that are tried again after the first round."""
TUNING_CELLS = 16_000_000
"""Scores that tuning holds at once."""
TRIED_CELLS = 1 << 18
"""Scores of a trial that are made at once; small enough for a core's own cache."""


@dataclass(frozen=True)
class Baseline:
    """A tuned baseline, or why there is none.

    Attributes:
        tuned: What tuning chose, and the validation metric it reached.
    """

    name: str
    scorer: Scorer | None = None
    not_run: str = ""
    tuned: dict[str, Any] | None = None


@dataclass(frozen=True)
class NaiveBayesScorer:
    """Scores by the sum of popularity terms."""

    counting: NaiveBayesPopularity
    terms: tuple[PopularityFactor, ...]

    def at(self, queries: Queries, moment: CandidateSnapshot) -> ScoreBlock:
        """Count what happened before the moment."""
        return self.counting.score(self.terms, queries, moment)


@dataclass(frozen=True)
class Similarity:
    """How much an item in the history speaks for another item.

    Attributes:
        known: [K] item indices of the rows and columns.
        matrix: [K, K] from history item to candidate; dense or sparse columns.
    """

    known: Longs
    matrix: Any

    def toward(self, items: NDArray[Any], n_items: int) -> tuple[Any, Flags]:
        """[K, C'] columns of the candidates that are known, and which [C] those are."""
        position = np.full(n_items, -1, dtype=np.int64)
        position[self.known] = np.arange(len(self.known))
        columns = position[items]
        return self.matrix[:, columns[columns >= 0]], columns >= 0


@dataclass(frozen=True)
class HistoryScorer:
    """Scores by similarity to the query's history, plus ``blend`` times popularity.

    Attributes:
        decay: Weight of the next older item relative to the newer one.
        popularity: The term whose exponential is blended in, its largest value taken as 1.
    """

    counting: NaiveBayesPopularity
    similarity: Similarity
    decay: float
    blend: float
    popularity: PopularityFactor

    def at(self, queries: Queries, moment: CandidateSnapshot) -> ScoreBlock:
        """Pick the similarities toward the moment's candidates."""
        n_items = self.counting.data.catalogue.size
        toward, known = self.similarity.toward(moment.items, n_items)
        history = _history_weights(queries, n_items, self.decay)[:, self.similarity.known]
        likes = np.exp(self.counting.table(self.popularity, moment))
        likes *= np.float32(self.blend) / likes.max()

        def score(which: Longs) -> Floats:
            found = history[which] @ toward
            scores: Floats = found.toarray() if sp.issparse(found) else found
            if not known.all():
                every = np.zeros((len(which), len(known)), dtype=np.float32)
                every[:, known] = scores
                scores = every
            scores += likes
            return scores

        return score


class Bench:
    """Validation queries on which choices are compared."""

    def __init__(self, data: EvaluationData, settings: EvaluationSettings) -> None:
        tuning = settings.baselines
        rows = data.queries["validation"].rows
        stock = len(data.read_candidates(int(data.log.snapshot[rows[-1]])).items)
        fitting = max(200, TUNING_CELLS // max(1, stock))
        self.evaluation_set: EvaluationSet = build_evaluation_set(
            data,
            "validation",
            settings.candidates,
            max_queries=min(tuning.tuning_queries, fitting),
            max_snapshots=tuning.tuning_moments,
        )
        name, _, cut = settings.metric.rpartition("_at_")
        self._metric, self._cut = METRICS[name], int(cut)
        self._ineligible = [
            self.evaluation_set.eligibility(group)(slice(0, len(group.queries))).ineligible
            for group in self.evaluation_set.groups
        ]

    @property
    def groups(self) -> tuple[CandidateGroup, ...]:
        """The validation queries by snapshot."""
        return self.evaluation_set.groups

    def scores(self, scorer: Scorer) -> list[Floats]:
        """[R, C] scores of each group."""
        queries = self.evaluation_set.queries
        return [scorer.at(queries, group.snapshot)(group.queries) for group in self.groups]

    def try_out(self, scorer: Scorer, beside: Sequence[Floats] | None = None) -> float:
        """The deciding metric of a scorer, its scores added to those ``beside`` it.

        Block by block: whatever is only tried is never held whole, and stays in the cache.
        """
        ranks = []
        for number, group in enumerate(self.groups):
            ineligible = self._ineligible[number]
            score = scorer.at(self.evaluation_set.queries, group.snapshot)
            step = max(1, TRIED_CELLS // max(1, len(group.snapshot.items)))
            for start in range(0, len(group.queries), step):
                rows = slice(start, start + step)
                scores = score(group.queries[rows])
                if beside is not None:
                    scores = scores + beside[number][rows]
                removed = None if ineligible is None else ineligible[rows]
                ranks.append(rank_positives(scores, group.positive[rows], removed)[0])
        return float(self._metric(np.concatenate(ranks), self._cut).mean())

    def value(self, scores: Sequence[Floats]) -> float:
        """The deciding metric of such scores."""
        ranks = [
            rank_positives(of_group, group.positive, ineligible)[0]
            for of_group, group, ineligible in zip(
                scores, self.groups, self._ineligible, strict=True
            )
        ]
        return float(self._metric(np.concatenate(ranks), self._cut).mean())


def tune_baselines(data: EvaluationData, settings: EvaluationSettings) -> Iterator[Baseline]:
    """Tune each baseline on the validation split and fit it for the test split."""
    grid = settings.baselines
    counting = NaiveBayesPopularity(data, grid.max_values, grid.number_bins, item_attributes(data))
    bench = Bench(data, settings)
    with timed("tuned popularity"):
        popular, value = _tune_popularity(bench, counting, grid)
    yield _of_terms(POPULARITY, counting, (popular,), value)
    terms: tuple[PopularityFactor, ...] = (popular,)
    columns = tuple(counting.contexts)
    if columns:
        with timed("tuned popularity in context"):
            terms, value = _tune_context(bench, counting, popular, columns, grid)
        yield _of_terms(IN_CONTEXT, counting, terms, value)
    else:
        yield Baseline(IN_CONTEXT, not_run="the feature spec names no context column")
    if counting.attributes:
        with timed("tuned attributes in context"):
            terms, value = _tune_attributes(bench, counting, popular, terms, grid)
        yield _of_terms(ATTRIBUTES, counting, terms, value)
    else:
        yield Baseline(ATTRIBUTES, not_run="the items have no attributes")
    yield from _history_baselines(bench, counting, popular, settings)


def item_attributes(data: EvaluationData) -> tuple[str, ...]:
    """The columns of the catalogue that are counted as attributes."""
    there = data.catalogue.table.column_names
    named = (*data.spec.item_categorical, *ITEM_ATTRIBUTES, "price")
    return tuple(dict.fromkeys(name for name in named if name in there))


def held_half_lives(counting: NaiveBayesPopularity) -> tuple[float, ...]:
    """Half-lives of the counts in the snapshots, if these know more than the examples do.

    After the training split the examples hold target events only; the snapshots count all events.
    """
    spec = counting.data.spec
    same = set(spec.event_weights) <= set(spec.target_events)
    return () if same else spec.popularity_half_lives_days


def _of_terms(
    name: str, counting: NaiveBayesPopularity, terms: tuple[PopularityFactor, ...], value: float
) -> Baseline:
    first = terms[0]
    tuned = {
        "terms": [term.describe() for term in terms],
        "half_life_days": first.half_life_days,
        "strength": sorted({term.strength for term in terms}),
        "validation": value,
    }
    return Baseline(name, NaiveBayesScorer(counting, terms), tuned=tuned)


def _tune_popularity(
    bench: Bench, counting: NaiveBayesPopularity, grid: BaselineSettings
) -> tuple[PopularityFactor, float]:
    tried = [
        PopularityFactor(half_life_days=days, strength=prior)
        for days, prior in product(grid.half_lives_days, grid.priors)
    ]
    tried += [
        PopularityFactor(half_life_days=days, strength=prior, source="snapshots")
        for days, prior in product(held_half_lives(counting), grid.priors)
    ]
    return _best(tried, lambda term: bench.try_out(NaiveBayesScorer(counting, (term,))))


def _tune_context(
    bench: Bench,
    counting: NaiveBayesPopularity,
    popular: PopularityFactor,
    columns: Sequence[str],
    grid: BaselineSettings,
) -> tuple[tuple[PopularityFactor, ...], float]:
    alpha = sorted(grid.alphas)[len(grid.alphas) // 2]
    pool = [
        PopularityFactor(column=column, half_life_days=popular.half_life_days, strength=alpha)
        for column in columns
    ]
    pool += [
        PopularityFactor(column=column, half_life_days=days, strength=alpha, source="snapshots")
        for column, days in product(counting.data.spec.popularity_by, held_half_lives(counting))
    ]
    terms, _ = _select(bench, counting, (popular,), pool, grid.max_terms)

    def value(tried: tuple[PopularityFactor, ...]) -> float:
        return bench.try_out(NaiveBayesScorer(counting, tried))

    terms, _ = _best([_slowed(terms, days) for days in grid.half_lives_days] + [terms], value)
    return _best([_smoothed(terms, strength) for strength in grid.alphas], value)


def _slowed(terms: tuple[PopularityFactor, ...], days: float) -> tuple[PopularityFactor, ...]:
    """Terms with another half-life, where they are free to have one."""
    return tuple(
        replace(term, half_life_days=days) if term.source == "examples" else term for term in terms
    )


def _smoothed(terms: tuple[PopularityFactor, ...], strength: float) -> tuple[PopularityFactor, ...]:
    return tuple(replace(term, strength=strength) if term.column else term for term in terms)


def _tune_attributes(
    bench: Bench,
    counting: NaiveBayesPopularity,
    popular: PopularityFactor,
    in_context: tuple[PopularityFactor, ...],
    grid: BaselineSettings,
) -> tuple[tuple[PopularityFactor, ...], float]:
    """Add attributes as long as they help: to nothing, to popularity, to popularity in context."""
    days = popular.half_life_days
    strength = in_context[-1].strength if len(in_context) > 1 else grid.alphas[0]
    names = (*counting.attributes, LISTING_AGE)
    pool = [PopularityFactor(attribute=name, half_life_days=days) for name in names]
    pool += [
        PopularityFactor(name, column, days, strength)
        for name, column in product(counting.attributes, counting.contexts)
        if not column.startswith(LATEST) or column == LATEST + name
    ]
    alone = bench.scores(NaiveBayesScorer(counting, (popular,)))
    pool.sort(key=lambda term: -bench.try_out(NaiveBayesScorer(counting, (term,)), alone))
    starts = ((), (popular,), in_context)
    return max(
        (_select(bench, counting, start, pool[:PROMISING], grid.max_terms) for start in starts),
        key=lambda chosen: chosen[1],
    )


def _select(
    bench: Bench,
    counting: NaiveBayesPopularity,
    start: tuple[PopularityFactor, ...],
    pool: Sequence[PopularityFactor],
    most: int,
) -> tuple[tuple[PopularityFactor, ...], float]:
    """Greedy forward selection: add the term that helps most, until none is worth it."""
    terms = start
    scores = bench.scores(NaiveBayesScorer(counting, terms))
    value = bench.value(scores)
    left = [term for term in pool if term not in terms]
    for step in range(most):
        gains = [
            (bench.try_out(NaiveBayesScorer(counting, (term,)), scores), term) for term in left
        ]
        gains.sort(key=lambda gain: -gain[0])
        if not gains or gains[0][0] < value * WORTHWHILE:
            break
        value, chosen = gains[0]
        terms = (*terms, chosen)
        added = bench.scores(NaiveBayesScorer(counting, (chosen,)))
        scores = [a + b for a, b in zip(added, scores, strict=True)]
        left = [term for _, term in gains[1 : 1 + SHORTLIST if step == 0 else None]]
    return terms, value


def _history_baselines(
    bench: Bench,
    counting: NaiveBayesPopularity,
    popular: PopularityFactor,
    settings: EvaluationSettings,
) -> Iterator[Baseline]:
    data, grid = counting.data, settings.baselines
    starts = data.log.starts
    before_validation = user_items(data, starts[1], grid.profile_length)
    before_test = user_items(data, starts[2], grid.profile_length)
    with timed("tuned co-occurrence"):
        tuned = _tune_history(
            COOCCURRENCE,
            bench,
            counting,
            popular,
            grid,
            ("popularity_power", grid.cooccurrence_powers),
            lambda power: cooccurrence(before_validation, power),
            lambda power: cooccurrence(before_test, power),
        )
    yield tuned
    n_known = max(len(_items_known(matrix)) for matrix in (before_validation, before_test))
    if n_known > grid.ease_max_items:
        limit = f"{n_known:,} items with events, the limit is {grid.ease_max_items:,}"
        yield Baseline(EASE, not_run=f"too large: {limit}")
        return
    with timed("tuned EASE"):
        tuned = _tune_history(
            EASE,
            bench,
            counting,
            popular,
            grid,
            ("lambda", grid.ease_lambdas),
            lambda penalty: ease(before_validation, penalty),
            lambda penalty: ease(before_test, penalty),
        )
    yield tuned


def _tune_history(
    name: str,
    bench: Bench,
    counting: NaiveBayesPopularity,
    popular: PopularityFactor,
    grid: BaselineSettings,
    parameter: tuple[str, Sequence[float]],
    fit: Callable[[float], Similarity],
    fit_again: Callable[[float], Similarity],
) -> Baseline:
    label, choices = parameter
    tried: list[tuple[float, float, float, float]] = []
    likes = [np.exp(counting.table(popular, group.snapshot)) for group in bench.groups]
    likes = [(one / one.max()).astype(np.float32) for one in likes]
    for choice in choices:
        similarity = fit(choice)
        for decay in grid.history_decays:
            scores = bench.scores(HistoryScorer(counting, similarity, decay, 0.0, popular))
            for blend in grid.blends:
                blended = _blend(scores, likes, blend)
                tried.append((bench.value(blended), choice, decay, blend))
    value, choice, decay, blend = max(tried, key=lambda one: one[0])
    scorer = HistoryScorer(counting, fit_again(choice), decay, blend, popular)
    tuned = {label: choice, "history_decay": decay, "blend": blend, "validation": value}
    return Baseline(name, scorer, tuned=tuned)


def _blend(scores: Sequence[Floats], likes: Sequence[Floats], share: float) -> list[Floats]:
    weight = np.float32(share)
    return [(s + weight * v).astype(np.float32) for s, v in zip(scores, likes, strict=True)]


def user_items(data: EvaluationData, until_row: int, profile_length: int) -> Any:
    """[U, N] sparse 0/1: the latest distinct items of each user before a row of the log."""
    log, n_items = data.log, data.catalogue.size
    user, item = log.user[:until_row][::-1], log.item[:until_row][::-1]
    key = user.astype(np.int64) * n_items + item
    _, newest = np.unique(key, return_index=True)
    newest.sort()
    user, item = user[newest], item[newest]
    order = np.argsort(user, kind="stable")
    user, item = user[order], item[order]
    nth = np.arange(len(user)) - np.searchsorted(user, user)
    kept = nth < profile_length
    ones = np.ones(int(kept.sum()), dtype=np.float32)
    shape = (len(log.user_ids), n_items)
    return sp.csr_matrix((ones, (user[kept], item[kept])), shape=shape)


def cooccurrence(users: Any, popularity_power: float) -> Similarity:
    """Items that the same users chose: c_ij / (d_i d_j^power) (Deshpande & Karypis 2004).

    Args:
        users: [U, N] sparse 0/1.
        popularity_power: How strongly the popularity d_j of the candidate is divided out.
    """
    together = (users.T @ users).tocsc().astype(np.float32)
    together.setdiag(0)
    together.eliminate_zeros()
    degree = np.maximum(np.asarray(users.sum(axis=0)).ravel(), 1.0)
    left = sp.diags((1.0 / degree).astype(np.float32))
    right = sp.diags((degree**-popularity_power).astype(np.float32))
    return Similarity(np.arange(users.shape[1]), (left @ together @ right).tocsc())


def ease(users: Any, penalty: float) -> Similarity:
    """EASE: the linear item-item model with zero diagonal in closed form (Steck 2019).

    B = I - P diag(1 / diag P) with P = (X'X + penalty I)^-1.

    Args:
        users: [U, N] sparse 0/1.
        penalty: L2 penalty, in units of co-occurrence counts.
    """
    known = _items_known(users)
    gram = (users.T @ users).tocsc()[known][:, known].toarray().astype(np.float32)
    gram[np.diag_indices_from(gram)] += np.float32(penalty)
    factor, _ = scipy.linalg.lapack.spotrf(gram, lower=1, overwrite_a=1)
    inverse, fault = scipy.linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
    if fault:
        raise np.linalg.LinAlgError(f"EASE: the matrix cannot be inverted ({fault})")
    inverse = np.tril(inverse)
    inverse += np.tril(inverse, -1).T
    weights = inverse / -np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0.0)
    return Similarity(known, weights.astype(np.float32))


def _items_known(users: Any) -> Longs:
    return np.flatnonzero(np.asarray(users.sum(axis=0)).ravel() > 0)


def _history_weights(queries: Queries, n_items: int, decay: float) -> Any:
    """[n, N] sparse: the newest item weighs 1, each older one ``decay`` times the one before."""
    items = queries.history.item
    row, nth = np.nonzero(items >= 0)
    weights = (decay ** nth.astype(np.float64)).astype(np.float32)
    return sp.csr_matrix((weights, (row, items[row, nth])), shape=(len(items), n_items))


def _best[T](tried: Sequence[T], value: Callable[[T], float]) -> tuple[T, float]:
    values = [value(one) for one in tried]
    at = int(np.argmax(values))
    return tried[at], values[at]
