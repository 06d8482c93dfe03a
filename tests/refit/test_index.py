from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
import pytest

from refit import index as module
from refit.index import IndexManifest, ItemIndex, scan

N, D = 3000, 8
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(N, D)).astype(np.float32)
QUERIES = RNG.normal(size=(5, D)).astype(np.float32)


def flat() -> ItemIndex:
    index = faiss.IndexFlatIP(D)
    index.add(VECTORS)
    return ItemIndex(index, VECTORS)


def ivf() -> ItemIndex:
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(D), D, 32, faiss.METRIC_INNER_PRODUCT)
    index.train(VECTORS)
    index.add(VECTORS)
    return ItemIndex(index, VECTORS, n_probe=2)


def int8() -> ItemIndex:
    quantizer, bits = faiss.IndexFlatIP(D), faiss.ScalarQuantizer.QT_8bit
    metric = faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFScalarQuantizer(quantizer, D, 32, bits, metric, False)
    index.train(VECTORS)
    index.add(VECTORS)
    return ItemIndex(index, VECTORS, n_probe=2)


MAKE = {"scan": flat, "flat": flat, "ivf": ivf, "int8": int8}


def mapped(made: ItemIndex, folder: Path) -> ItemIndex:
    """The same index, from files."""
    folder.mkdir()
    faiss.write_index(made.index, str(folder / module.INDEX_FILE))
    np.save(folder / module.VECTORS_FILE, VECTORS)
    IndexManifest(
        embedding_version="0",
        kind="ivf" if made.n_probe else "flat",
        dimension=D,
        n_live=N,
        n_items=N,
        n_probe=made.n_probe,
        recall_at_100=1.0,
        n_queries=1,
        latency_ms={},
        as_of=datetime(2026, 3, 1, tzinfo=UTC),
    ).write(folder)
    return ItemIndex.read(folder)


@pytest.fixture(params=MAKE)
def searcher(request, monkeypatch, tmp_path) -> ItemIndex:
    """Each of the ways an answer is found, by an index that is mapped from files."""
    monkeypatch.setattr(module, "SCAN_ROWS", N if request.param == "scan" else 0)
    monkeypatch.setattr(module, "SCAN_COST", np.inf)
    return mapped(MAKE[request.param](), tmp_path / "index")


@pytest.mark.parametrize("make", [flat, ivf, int8])
def test_a_mapped_index_finds_what_the_built_one_finds(make, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SCAN_ROWS", 0)
    monkeypatch.setattr(module, "SCAN_COST", np.inf)
    built, allowed = make(), RNG.random(N) < 0.3
    read = mapped(built, tmp_path / "index")
    for mask in (None, allowed):
        found, same = read.search(QUERIES, 30, mask), built.search(QUERIES, 30, mask)
        for one, other in zip(found, same, strict=True):
            np.testing.assert_array_equal(one, other)


def expected(allowed: np.ndarray, k: int) -> np.ndarray:
    scores = np.where(allowed, QUERIES @ VECTORS.T, -np.inf)
    return np.argsort(-scores, axis=1)[:, :k]


def test_a_scan_gives_the_exact_answer():
    vectors = np.array([[1, 0], [0, 1], [2, 0]], np.float32)
    scores, rows = scan(np.array([[1, 0.5]], np.float32), vectors, 2)
    assert rows.tolist() == [[2, 0]]
    assert scores.tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize("make", [flat, ivf])
def test_few_allowed_items_are_found_exactly(make):
    allowed = RNG.random(N) < 0.1
    _, rows = make().search(QUERIES, 20, allowed)
    np.testing.assert_array_equal(rows, expected(allowed, 20))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
def test_k_allowed_items_are_returned_whenever_they_exist(searcher, share):
    allowed = RNG.random(N) < share
    k = min(int(allowed.sum()), 100)
    scores, rows = searcher.search(QUERIES, k, allowed)
    assert allowed[rows].all()
    assert all(len(set(row)) == k for row in rows)
    np.testing.assert_allclose(scores, np.einsum("bd,bkd->bk", QUERIES, VECTORS[rows]), 1e-4)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_every_allowed_item_is_returned_if_there_are_fewer_than_k(searcher):
    allowed = np.zeros(N, bool)
    allowed[[5, 17, 2999]] = True
    scores, rows = searcher.search(QUERIES, 10, allowed)
    for row, score in zip(rows, scores, strict=True):
        assert set(row[:3]) == {5, 17, 2999}
        assert (row[3:] == -1).all()
        assert np.isneginf(score[3:]).all()


def test_excluded_rows_make_room_for_the_next_best(searcher):
    _, before = searcher.search(QUERIES, 30)
    exclude = [row[:20] for row in before]
    exclude[1] = []
    scores, rows = searcher.search(QUERIES, 10, exclude=exclude)
    for i, gone in enumerate(exclude):
        assert not set(rows[i]) & set(gone)
        assert (rows[i] >= 0).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    np.testing.assert_array_equal(rows[1], before[1, :10])


def test_scan_and_flat_index_agree(monkeypatch):
    allowed = RNG.random(N) < 0.5
    scanned = flat().search(QUERIES, 50, allowed)[1]
    monkeypatch.setattr(module, "SCAN_ROWS", 0)
    monkeypatch.setattr(module, "SCAN_COST", np.inf)
    np.testing.assert_array_equal(flat().search(QUERIES, 50, allowed)[1], scanned)


def test_no_allowed_items_give_an_empty_result(searcher):
    _, rows = searcher.search(QUERIES, 3, np.zeros(N, bool))
    assert (rows == -1).all()


def test_k_may_exceed_the_number_of_items(searcher):
    _, rows = searcher.search(QUERIES[:1], N + 5)
    assert sorted(rows[0, :N]) == list(range(N))
    assert (rows[0, N:] == -1).all()


@pytest.mark.parametrize("share", [1.0, 0.6, 0.01, 0.0])
@pytest.mark.parametrize("k", [1, 10, N + 5])
def test_one_query_finds_what_a_search_finds(searcher, share, k):
    allowed = None if share == 1 else np.random.default_rng(4).random(N) < share
    scores, rows = searcher.search(QUERIES[:1], k, allowed)
    found = searcher.find(QUERIES[0], k, allowed)
    there = rows[0] >= 0
    np.testing.assert_array_equal(found[0], rows[0][there])
    np.testing.assert_allclose(found[1], scores[0][there], rtol=1e-6)


def test_equal_items_come_in_the_order_of_their_rows():
    alike = np.ones((40, D), dtype=np.float32)
    index = faiss.IndexFlatIP(D)
    index.add(alike)
    rows, scores = ItemIndex(index, alike).find(alike[0], 10)
    assert rows.tolist() == sorted(rows.tolist())
    assert scores.tolist() == [D] * 10


@pytest.mark.parametrize("k", [1, 7, 200, 700])
@pytest.mark.parametrize("n", [2999, 3000, 3008])
def test_the_best_allowed_rows_are_those_of_a_sort(n, k):
    """Of 3,008 rows each group has only rows of one remainder; many scores are equal."""
    rng = np.random.default_rng(n + k)
    vectors = rng.integers(-3, 4, size=(n, D)).astype(np.float32)
    for allowed in (None, np.arange(n) % 4 == 1, np.arange(n) < n // 3, rng.random(n) < 0.7):
        rows, scores = ItemIndex(None, vectors).find(vectors[0], k, allowed)
        every = vectors @ vectors[0]
        there = np.arange(n) if allowed is None else np.flatnonzero(allowed)
        expected = there[np.argsort(-every[there], kind="stable")][:k]
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_array_equal(scores, every[expected])
