"""EASE: the linear item-item model with zero diagonal, in closed form (Steck 2019)."""

from typing import Any

import numpy as np
import scipy.linalg

from components.evaluation.item_similarity import (
    Similarity,
    items_with_events,
    tune_similarity,
    users_before_test,
    users_before_validation,
)
from components.evaluation.sparse_ease import fit_sparse_ease
from components.evaluation.tuning import NoOptions, Tuned, ValidationSet

NAME = "EASE"
NEEDS = ()


def tune(validation: ValidationSet, options: NoOptions) -> Tuned:
    """Choose the penalty, the history's decay and the share of popularity.

    Where the matrix over the items with events would be too large, its sparse form is used.
    """
    grid = validation.settings.baselines
    n_items = max(
        len(items_with_events(validation.shared(users)))
        for users in (users_before_validation, users_before_test)
    )
    if n_items <= grid.ease_max_items:
        return tune_similarity(validation, "lambda", grid.ease_lambdas, fit_ease)
    fitted: dict[int, dict[float, Similarity]] = {}

    def fit(users: Any, penalty: float) -> Similarity:
        if id(users) not in fitted:  # one pass gives the matrices of all penalties
            fitted.clear()
            found = fit_sparse_ease(
                users, grid.ease_lambdas, grid.ease_neighbours, grid.ease_most_items
            )
            fitted[id(users)] = dict(zip(grid.ease_lambdas, found, strict=True))
        return fitted[id(users)][penalty]

    tuned = tune_similarity(validation, "lambda", grid.ease_lambdas, fit)
    return Tuned(tuned.scorer, {"neighbours": grid.ease_neighbours, **tuned.chosen})


def fit_ease(users: Any, penalty: float) -> Similarity:
    """B = I - P diag(1 / diag P) with P = (X'X + penalty I)^-1.

    Args:
        users: [U, N] sparse 0/1.
        penalty: L2 penalty, in units of co-occurrence counts.

    Raises:
        LinAlgError: The matrix cannot be inverted.
    """
    known = items_with_events(users)
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
