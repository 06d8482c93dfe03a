"""Sparse EASE is EASE where every item is a neighbour, and close to it with a few."""

import numpy as np
import pytest
import scipy.sparse as sp

from components.evaluation.baselines.ease import fit_ease
from components.evaluation.sparse_ease import fit_sparse_ease

ITEMS = 40


@pytest.fixture(scope="module")
def users():
    """2,000 users of one of four tastes; every item is sometimes used with every other."""
    random = np.random.default_rng(3)
    taste = random.integers(4, size=2000)
    liked = np.arange(ITEMS)[None, :] % 4 == taste[:, None]
    return sp.csr_matrix((random.random((2000, ITEMS)) < np.where(liked, 0.4, 0.1)).astype("f4"))


def test_with_all_neighbours_it_is_ease(users):
    for penalty, found in zip(
        (5.0, 50.0), fit_sparse_ease(users, (5.0, 50.0), ITEMS, ITEMS), strict=True
    ):
        assert found.matrix.toarray() == pytest.approx(fit_ease(users, penalty).matrix, abs=1e-4)


def test_with_few_neighbours_each_column_has_few_entries_and_keeps_the_strongest(users):
    (found,) = fit_sparse_ease(users, (5.0,), 9, ITEMS)
    assert np.diff(found.matrix.indptr).max() == 9
    same_taste = np.arange(ITEMS)[:, None] % 4 == np.arange(ITEMS)[None, :] % 4
    assert (np.abs(found.matrix.toarray()) > 0)[same_taste].mean() == pytest.approx(0.9)
    assert found.matrix.diagonal() == pytest.approx(0.0)


def test_over_the_limit_the_items_with_the_most_users_have_columns(users):
    (found,) = fit_sparse_ease(users, (5.0,), 5, 10)
    most = np.argsort(-np.asarray(users.sum(axis=0)).ravel(), kind="stable")[:10]
    assert sorted(most) == found.known.tolist()
    assert found.matrix.shape == (10, 10)


def test_items_that_are_never_used_together_have_no_entry():
    (found,) = fit_sparse_ease(sp.csr_matrix(np.eye(3, dtype="f4")), (5.0,), 2, 3)
    assert found.matrix.nnz == 0
