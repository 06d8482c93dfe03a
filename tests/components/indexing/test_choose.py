import numpy as np
import pytest

from components.indexing.choose import choose_index, measure_recall
from components.indexing.settings import IndexSettings
from refit.index import ItemIndex


def clustered(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(50, 16))
    vectors = centres[rng.integers(0, 50, n)] + 0.3 * rng.normal(size=(n, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_kind_depends_on_the_size():
    vectors, queries = clustered(30_000, 1), clustered(50, 2)
    assert choose_index(IndexSettings(), vectors, queries)[1]["kind"] == "flat"
    index, measured = choose_index(IndexSettings(flat_up_to=10_000), vectors, queries)
    assert measured["kind"] == "ivf"
    assert measured["recall_at_100"] >= 0.98
    assert 8 <= measured["n_probe"] <= measured["n_lists"] // 2
    assert index.ntotal == 30_000


@pytest.mark.parametrize("vectors_type", ["float16", "int8"])
def test_fewer_bits_take_less_memory_and_what_they_find_is_ranked_exactly(vectors_type, tmp_path):
    vectors, queries = clustered(30_000, 1), clustered(50, 2)
    settings = IndexSettings(kind="ivf", vectors=vectors_type)
    index, measured = choose_index(settings, vectors, queries)
    assert (measured["kind"], measured["vectors"]) == ("ivf", vectors_type)
    assert measured["recall_at_100"] >= 0.98
    assert index.code_size == {"float16": 32, "int8": 16}[vectors_type]
    searcher = ItemIndex(index, vectors, measured["n_probe"])
    scores, rows = searcher.search(queries, 10)
    assert (rows >= 0).all()
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", queries, vectors[rows]), 1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert measure_recall(searcher, queries) == measured["recall_at_100"]


def test_an_index_whose_ivf_misses_the_target_is_flat():
    noise = np.random.default_rng(0).normal(size=(21_000, 16)).astype(np.float32)
    settings = IndexSettings(kind="ivf", target_recall_at_100=1.0)
    _, measured = choose_index(settings, noise, noise[:50] + 1)
    assert (measured["kind"], measured["recall_at_100"]) == ("flat", 1.0)


def test_few_vectors_are_flat_whatever_the_setting():
    vectors = clustered(500, 1)
    assert choose_index(IndexSettings(kind="ivf"), vectors, vectors)[1]["kind"] == "flat"


def test_an_index_without_queries_to_tune_it_is_flat():
    _, measured = choose_index(IndexSettings(kind="ivf"), clustered(21_000, 1), np.empty((0, 16)))
    assert (measured["kind"], measured["recall_at_100"]) == ("flat", None)


def test_recall_is_relative_to_the_exact_scan():
    vectors = np.eye(4, dtype=np.float32)
    query = np.array([[0.4, 0.3, 0.2, 0.1]], np.float32)

    class Wrong(ItemIndex):
        def search(self, queries, k, allowed=None, exclude=None):
            return np.array([[0.4, 0.1]], np.float32), np.array([[0, 3]])

    assert measure_recall(Wrong(None, vectors), query, k=2) == pytest.approx(0.5)
