"""Spectral item vectors: the closed form, their weight, and the towers that are exported."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.training import spectral
from components.training import train as module
from components.training.settings import TrainSettings
from components.training.spectral import (
    choose_size,
    find_axes,
    find_spectral_vectors,
    is_surely_better,
)
from components.training.train import train
from refit.errors import UsageError
from refit.feature_tables import examples_file
from refit.features import FeaturesManifest
from refit.in_process_tower import has_in_process_tower
from refit.model import ITEM_TOWER, QUERY_TOWER, ModelManifest
from refit.towers import load_tower, run_tower
from tests.components.training import conftest
from tests.components.training.test_in_process import every_query
from tests.components.training.test_pairs import with_history
from tests.components.training.test_train import inputs_of_items

SIZE = 5
ALONE = conftest.SMALL.model_copy(
    update={"max_epochs": 1, "final_fit": False, "in_process_tower": False}
)
SPECTRAL = ALONE.model_copy(update={"spectral_size": SIZE, "spectral_weights": (0.5, 2.0)})
IN_PROCESS = {"in_process_tower": True}

OWNED = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0]])
"""Four users, and five items of which nobody has the last."""


def score_all(vectors: np.ndarray, degree: np.ndarray) -> np.ndarray:
    """[U, N] the scores of every user's items together."""
    return (OWNED @ vectors) @ (vectors * degree[:, None]).T


def test_scores_are_those_of_the_truncated_decomposition() -> None:
    users, items = np.nonzero(OWNED)
    vectors, degree = find_spectral_vectors(users, items, 5, 2)
    assert degree.tolist() == [2, 3, 3, 1, 0]
    of_user = OWNED.sum(axis=1)
    root = np.sqrt(np.maximum(degree, 1))
    scaled = OWNED / np.sqrt(of_user)[:, None] / root
    _, values, right = np.linalg.svd(scaled)
    kernel = right[:2].T @ np.diag(values[:2]) @ right[:2]
    expected = (OWNED / root) @ kernel * np.sqrt(degree)
    np.testing.assert_allclose(score_all(vectors, degree), expected, atol=1e-6)


def test_an_item_that_nobody_has_has_zeros() -> None:
    vectors, _ = find_spectral_vectors(*np.nonzero(OWNED), 5, 3)
    assert not vectors[4].any()
    assert vectors[:4].any(axis=1).all()


def test_how_often_somebody_has_an_item_does_not_count() -> None:
    users, items = np.nonzero(OWNED)
    once = find_spectral_vectors(users, items, 5, 2)
    again = np.concatenate([np.arange(len(users)), [0, 0, 3]])
    twice = find_spectral_vectors(users[again], items[again], 5, 2)
    np.testing.assert_allclose(score_all(*twice), score_all(*once), atol=1e-6)


def test_what_is_longer_than_the_matrix_is_filled_with_zeros() -> None:
    vectors, _ = find_spectral_vectors(*np.nonzero(OWNED), 5, 7)
    assert vectors.shape == (5, 7)
    assert not vectors[:, 4:].any()  # of four users and five items


def test_users_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    users, items = np.nonzero(OWNED)
    at_once = find_spectral_vectors(users, items, 5, 2)
    monkeypatch.setattr(spectral, "USERS_AT_ONCE", 3)
    in_parts = find_spectral_vectors(users, items, 5, 2)
    np.testing.assert_allclose(score_all(*in_parts), score_all(*at_once), atol=1e-6)


def test_the_largest_singular_values_of_many_are_found() -> None:
    rng = np.random.default_rng(3)
    users, items = rng.integers(0, 300, 4000), rng.integers(0, 80, 4000) ** 2 // 80
    vectors, degree = find_spectral_vectors(users, items, 80, 20)
    owned = np.zeros((300, 80))
    owned[users, items] = 1
    root = np.sqrt(np.maximum(owned.sum(axis=0), 1))
    _, values, right = np.linalg.svd(owned / np.sqrt(owned.sum(axis=1))[:, None] / root)
    found = vectors * np.sqrt(np.maximum(degree, 1))[:, None]  # V S^1/2
    np.testing.assert_allclose((found**2).sum(axis=0)[:10], values[:10], rtol=5e-3)
    np.testing.assert_allclose(np.abs(found[:, 0]), np.abs(right[0]), atol=1e-4)


def test_the_latest_of_many_events_count(monkeypatch: pytest.MonkeyPatch) -> None:
    users, items = np.nonzero(OWNED)
    monkeypatch.setattr(spectral, "MAX_EVENTS", 4)
    _, degree = find_spectral_vectors(users, items, 5, 2)
    assert degree.tolist() == [0, 1, 2, 1, 0]  # of the last two users


@pytest.mark.parametrize(
    ("n_live", "n_items", "size"),
    [
        (0, 0, 0),
        (127, 200, 0),  # 31 entries are too few to be worth it
        (128, 200, 32),
        (1000, 1000, 224),  # a quarter of the live items
        (3500, 4000, 512),
        (100_000, 120_000, 160),  # 16.8 million numbers in the index
        (100_000, 2_000_000, 128),  # 268 million numbers of content vectors
        (525_000, 525_000, 0),
    ],
)
def test_the_length_follows_the_number_of_items(n_live: int, n_items: int, size: int) -> None:
    assert choose_size(n_live, n_items) == size


def test_a_gain_is_sure_from_its_spread_between_people() -> None:
    without, everybody = np.arange(100) < 30, np.arange(100)
    many, few = without.copy(), without.copy()
    many[30:40] = True
    few[30:32] = True
    assert is_surely_better(many, without, everybody)  # 10 more: standard error of 3.2
    assert not is_surely_better(few, without, everybody)  # 2 more: 1.4
    assert not is_surely_better(many, without, everybody // 10)  # 10 more of one person: 10
    assert not is_surely_better(without, without, everybody)
    assert not is_surely_better(without, many, everybody)


def test_axes_give_how_much_scores_vary() -> None:
    items = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    query = np.array([1.0, -2.0, 0.5])
    axes, deviations = find_axes(items)
    assert np.linalg.norm(query @ axes * deviations) == pytest.approx(np.std(items @ query))
    np.testing.assert_allclose(
        np.cov((items @ axes).T, bias=True), np.diag(deviations**2), atol=1e-6
    )


@pytest.fixture(scope="module")
def models(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("spectral")
    train(ALONE, features, base / "alone")
    train(SPECTRAL.model_copy(update=IN_PROCESS), features, base / "spectral")
    return base


def test_exported_scores_are_the_learned_ones_and_the_spectral_ones_by_weight(
    features: Path, models: Path
) -> None:
    written = ModelManifest.read(models / "spectral")
    alone = ModelManifest.read(models / "alone")
    assert written.spectral_weight in SPECTRAL.spectral_weights
    assert written.epochs[0].loss == alone.epochs[0].loss
    assert written.embedding_size == alone.embedding_size + SIZE
    assert written.learned_size == alone.learned_size + SIZE
    assert written.content_size == alone.content_size + SIZE + 1
    assert has_in_process_tower(models / "spectral" / QUERY_TOWER)
    items = inputs_of_items(features, 16)
    queries = every_query(FeaturesManifest.read(features).spec, 1)
    scores = {}
    for name in ("alone", "spectral"):
        found = run_tower(load_tower(models / name / ITEM_TOWER), items)
        inputs = with_history(queries, found["content"])
        tower = load_tower(models / name / QUERY_TOWER)
        vectors = run_tower(tower, inputs)["embedding"]
        scores[name] = vectors @ found["embedding"].T
        kept = (inputs["history_content"], found["content"], found["embedding"], vectors)
    history, content, embedding, vectors = kept
    assert embedding.shape == (16, written.embedding_size)
    added = scores["spectral"] - scores["alone"]
    # The closed form, for histories of these items.
    degree = np.exp(content[:, -1:] * 1000)
    assert degree.max() > 1.5
    spectral = content[:, -SIZE - 1 : -1]
    scale = np.linalg.norm(embedding[:, :SIZE]) / np.linalg.norm(spectral * degree)
    np.testing.assert_allclose(embedding[:, :SIZE], spectral * degree * scale, rtol=1e-4, atol=1e-6)
    closed = history[:, :, -SIZE - 1 : -1].sum(axis=1) @ (spectral * degree).T
    known = np.abs(closed).max(axis=1) > 1e-6
    assert known.any()
    assert not known.all()
    np.testing.assert_allclose(added[~known], 0, atol=1e-4)
    ratio = added[known].std(axis=1) / closed[known].std(axis=1)
    np.testing.assert_allclose(added[known], closed[known] * ratio[:, None], atol=1e-3)


def test_spectral_scores_vary_by_weight_times_as_much_as_learned_ones(
    features: Path, models: Path
) -> None:
    """All sixteen items are live, with their popularity in the latest training snapshot."""
    weight = ModelManifest.read(models / "spectral").spectral_weight
    items = inputs_of_items(features, 16)
    found = run_tower(load_tower(models / "spectral" / ITEM_TOWER), items)
    queries = with_history(every_query(FeaturesManifest.read(features).spec, 1), found["content"])
    vectors = run_tower(load_tower(models / "spectral" / QUERY_TOWER), queries)["embedding"]
    spectral = vectors[:, :SIZE] @ found["embedding"][:, :SIZE].T
    learned = vectors[:, SIZE:] @ found["embedding"][:, SIZE:].T
    known = spectral.any(axis=1)
    np.testing.assert_allclose(
        spectral[known].std(axis=1), weight * learned[known].std(axis=1), rtol=1e-3
    )


def test_what_comes_after_the_training_examples_is_not_known(
    features: Path, models: Path, make_features: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_features(tmp_path / "features")
    path = other / examples_file("validation")
    table = pq.read_table(path)
    later = table.set_column(1, "item_index", table["item_index"].take(list(range(47, -1, -1))))
    pq.write_table(later, path)
    settings = SPECTRAL.model_copy(update={"spectral_weights": (0.5,)})
    train(settings, other, tmp_path / "model")
    items = inputs_of_items(features, 16)
    contents = [
        run_tower(load_tower(model / ITEM_TOWER), items)["content"][:, -SIZE - 1 :]
        for model in (models / "spectral", tmp_path / "model")
    ]
    np.testing.assert_array_equal(*contents)
    unknown = items | {"item_id": np.array(["never seen"] * 16, dtype=object)}
    found = run_tower(load_tower(tmp_path / "model" / ITEM_TOWER), unknown)
    assert not found["content"][:, -SIZE - 1 :].any()
    assert not found["embedding"][:, :SIZE].any()


def test_the_weight_with_the_best_validation_recall_is_taken_and_kept_in_the_final_fit(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[float, float | None]] = []
    choose, fitted = module._Run.choose_weight, []

    def keep(run: object, *arguments: object) -> tuple[float, float | None]:
        found.append(choose(run, *arguments))  # type: ignore[arg-type]
        return found[-1]

    add = module._Run.add_spectral

    def keep_data(run: object, model: object, data: object, split: str) -> object:
        fitted.append((split, len(data.examples)))  # type: ignore[attr-defined]
        return add(run, model, data, split)  # type: ignore[arg-type]

    monkeypatch.setattr(module._Run, "choose_weight", keep)
    monkeypatch.setattr(module._Run, "add_spectral", keep_data)
    settings = SPECTRAL.model_copy(update={"final_fit": True, "tower_pairs": 2})
    written = train(settings, features, tmp_path / "model")
    assert written.content_size == 2 * settings.content_size + SIZE + 1
    assert [(written.spectral_weight, written.spectral_recall)] == found
    assert fitted == [("train", 160), ("validation", 160 + 48)]


AUTO = SPECTRAL.model_copy(update={"spectral_size": "auto", "recall_at": 3, "final_fit": True})


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """So short a part that sixteen items are enough for it."""
    monkeypatch.setattr(spectral, "MIN_SIZE", 1)
    monkeypatch.setattr(spectral, "ITEMS_PER_ENTRY", 3)


@pytest.mark.usefixtures("_short")
def test_by_default_the_part_is_kept_only_if_it_surely_helps(
    features: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectral, "SURE", 1e6)
    left_out = train(AUTO, features, tmp_path / "left-out")
    monkeypatch.setattr(spectral, "SURE", -1e6)
    kept = train(AUTO, features, tmp_path / "kept")
    assert left_out.spectral_weight is None
    assert kept.spectral_weight in AUTO.spectral_weights
    assert left_out.spectral_recall == kept.spectral_recall is not None
    alone = ModelManifest.read(models / "alone")
    assert (left_out.embedding_size, left_out.content_size) == (
        alone.embedding_size,
        alone.content_size,
    )
    assert kept.embedding_size == alone.embedding_size + SIZE
    assert kept.content_size == alone.content_size + SIZE + 1


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize(
    "changes",
    [{"id_embedding": "never"}, {"towers": "popularity"}, {"choose_epochs": False}],
)
def test_by_default_there_is_no_part_where_nothing_could_choose_it(
    features: Path, tmp_path: Path, changes: dict
) -> None:
    written = train(AUTO.model_copy(update=changes), features, tmp_path / "model")
    assert written.spectral_weight is None
    assert written.spectral_recall is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"id_embedding": "auto"}, "set id_embedding to always"),
        ({"towers": "popularity"}, "set spectral_size to 0"),
        ({"choose_epochs": False}, "set spectral_weights to one"),
        ({"spectral_weights": []}, "spectral_weights"),
        ({"spectral_weights": [0.0]}, "spectral_weights"),
    ],
)
def test_settings_that_contradict_the_spectral_part(values: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TrainSettings.parse({"spectral_size": 8, "id_embedding": "always", **values})


def test_a_temperature_that_is_not_learned_stays(features: Path, tmp_path: Path) -> None:
    settings = ALONE.model_copy(update={"learn_temperature": False, "popularity": False})
    written = train(settings, features, tmp_path / "model")
    queries = every_query(FeaturesManifest.read(features).spec, written.content_size)
    vectors = run_tower(load_tower(tmp_path / "model" / QUERY_TOWER), queries)["embedding"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1 / 0.15, rtol=1e-4)
