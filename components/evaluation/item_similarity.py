"""Item-item similarities, and the scorer that applies one to the query's history."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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
from components.evaluation.factor_tuning import code_columns, tune_popularity
from components.evaluation.naive_bayes import NaiveBayesPopularity, PopularityFactor
from components.evaluation.ranking import ScoreBlock
from components.evaluation.tuning import Tuned, ValidationSet


@dataclass(frozen=True)
class Similarity:
    """How strongly an item in the history suggests another item.

    Attributes:
        known: [K] item indices of the rows and columns.
        matrix: [K, K] from history item to candidate; dense or sparse columns.
    """

    known: Longs
    matrix: Any

    def columns_of(self, items: NDArray[Any], n_items: int) -> tuple[Any, Flags]:
        """[K, C'] columns of the candidates that are known, and which [C] candidates are known."""
        position = np.full(n_items, -1, dtype=np.int64)
        position[self.known] = np.arange(len(self.known))
        columns = position[items]
        return self.matrix[:, columns[columns >= 0]], columns >= 0


@dataclass(frozen=True)
class HistoryScorer:
    """Scores by similarity to the query's history, plus ``blend`` times popularity.

    Attributes:
        decay: Weight of the next older history item relative to the newer one.
        popularity: The factor whose exponential is added, scaled to a largest value of 1.
    """

    naive_bayes: NaiveBayesPopularity
    similarity: Similarity
    decay: float
    blend: float
    popularity: PopularityFactor

    def at(self, queries: Queries, snapshot: CandidateSnapshot) -> ScoreBlock:
        """Select the similarities to the snapshot's candidates."""
        n_items = self.naive_bayes.data.catalogue.size
        columns, known = self.similarity.columns_of(snapshot.items, n_items)
        history = _weigh_history(queries, n_items, self.decay)[:, self.similarity.known]
        popularity = np.exp(self.naive_bayes.table(self.popularity, snapshot))
        popularity *= np.float32(self.blend) / popularity.max()

        def score(which: Longs) -> Floats:
            found = history[which] @ columns
            scores: Floats = found.toarray() if sp.issparse(found) else found
            if not known.all():
                every = np.zeros((len(which), len(known)), dtype=np.float32)
                every[:, known] = scores
                scores = every
            scores += popularity
            return scores

        return score


def tune_similarity(
    validation: ValidationSet,
    parameter: str,
    values: Sequence[float],
    fit: Callable[[Any, float], Similarity],
) -> Tuned:
    """Choose a similarity's parameter, the history's decay and the share of popularity.

    Args:
        validation: The validation queries.
        parameter: Name of the similarity's parameter, for the report.
        values: The values of it that are compared.
        fit: From users [U, N] and a value of the parameter to a similarity.
    """
    grid, naive_bayes = validation.settings.baselines, validation.shared(code_columns)
    popular, _ = validation.shared(tune_popularity)
    popularity = [np.exp(naive_bayes.table(popular, group.snapshot)) for group in validation.groups]
    popularity = [(one / one.max()).astype(np.float32) for one in popularity]
    before_validation = validation.shared(users_before_validation)
    compared: list[tuple[float, float, float, float]] = []
    for value in values:
        similarity = fit(before_validation, value)
        for decay in grid.history_decays:
            scorer = HistoryScorer(naive_bayes, similarity, decay, 0.0, popular)
            scores = validation.score(scorer)
            for blend in grid.blends:
                metric = validation.measure_scores(_add(scores, popularity, blend))
                compared.append((metric, value, decay, blend))
    metric, value, decay, blend = max(compared, key=lambda one: one[0])
    similarity = fit(validation.shared(users_before_test), value)
    scorer = HistoryScorer(naive_bayes, similarity, decay, blend, popular)
    chosen = {parameter: value, "history_decay": decay, "blend": blend, "validation": metric}
    return Tuned(scorer, chosen)


def users_before_validation(validation: ValidationSet) -> Any:
    """[U, N] sparse 0/1: the items of each user before the validation split."""
    data = validation.data
    return user_items(data, data.log.starts[1], validation.settings.baselines.profile_length)


def users_before_test(validation: ValidationSet) -> Any:
    """[U, N] sparse 0/1: the items of each user before the test split."""
    data = validation.data
    return user_items(data, data.log.starts[2], validation.settings.baselines.profile_length)


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


def items_with_events(users: Any) -> Longs:
    """The items [K] that at least one of the users [U, N] has."""
    return np.flatnonzero(np.asarray(users.sum(axis=0)).ravel() > 0)


def _add(scores: Sequence[Floats], more: Sequence[Floats], share: float) -> list[Floats]:
    weight = np.float32(share)
    return [(s + weight * v).astype(np.float32) for s, v in zip(scores, more, strict=True)]


def _weigh_history(queries: Queries, n_items: int, decay: float) -> Any:
    """[n, N] sparse: weight 1 for the newest item, ``decay`` times the previous for each older."""
    items = queries.history.item
    row, nth = np.nonzero(items >= 0)
    weights = (decay ** nth.astype(np.float64)).astype(np.float32)
    return sp.csr_matrix((weights, (row, items[row, nth])), shape=(len(items), n_items))
