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
from components.evaluation.tuning import NoOptions, NotRun, Tuned, ValidationSet

NAME = "EASE"
NEEDS = ()


def tune(validation: ValidationSet, options: NoOptions) -> Tuned | NotRun:
    """Choose the penalty, the history's decay and the share of popularity.

    Not run where the matrix over the items with events would be too large.
    """
    grid = validation.settings.baselines
    n_items = max(
        len(items_with_events(validation.shared(users)))
        for users in (users_before_validation, users_before_test)
    )
    if n_items > grid.ease_max_items:
        limit = f"{n_items:,} items with events, the limit is {grid.ease_max_items:,}"
        return NotRun(f"too large: {limit}")
    return tune_similarity(validation, "lambda", grid.ease_lambdas, fit_ease)


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
