"""Co-occurrence: items of the same users, with the candidate's popularity divided out in part."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from components.evaluation.item_similarity import Similarity, tune_similarity
from components.evaluation.tuning import NoOptions, Tuned, ValidationSet

NAME = "co-occurrence"
NEEDS = ()


def tune(validation: ValidationSet, options: NoOptions) -> Tuned:
    """Choose the power of popularity, the history's decay and the share of popularity."""
    powers = validation.settings.baselines.cooccurrence_powers
    return tune_similarity(validation, "popularity_power", powers, count_cooccurrence)


def count_cooccurrence(users: Any, popularity_power: float) -> Similarity:
    """c_ij / (d_i d_j^power) from the users that have both items (Deshpande & Karypis 2004).

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
