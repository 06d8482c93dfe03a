"""Several pairs of towers that are exported as one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.training import train as module
from components.training.pairs import JoinedTowers, seed_of_pair
from components.training.settings import TrainSettings
from components.training.train import measure_epochs, train
from refit.errors import UsageError
from refit.features import FeaturesManifest, Inputs
from refit.in_process_tower import has_in_process_tower
from refit.model import ITEM_TOWER, QUERY_TOWER, ModelManifest, best_epoch
from refit.towers import load_tower, run_tower
from tests.components.training import conftest
from tests.components.training.test_in_process import every_query
from tests.components.training.test_train import inputs_of_items

TWO = conftest.SMALL.model_copy(update={"tower_pairs": 2, "max_epochs": 2})
SEARCHED = TWO.model_copy(update={"final_fit": False})
LENGTH = 2 * TWO.learned_size + 1 + 2 + 3


@dataclass(frozen=True)
class Trained:
    folder: Path
    manifest: ModelManifest
    models: list[Any]


def train_and_keep(settings: TrainSettings, features: Path, out: Path) -> Trained:
    """Train, and keep the models that were exported."""
    kept: list[Any] = []
    join = module._Run.join

    def keep(run: Any, fits: Any) -> Any:
        kept[:] = [fit.model for fit in fits]
        return join(run, fits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Run, "join", keep)
        manifest = train(settings, features, out)
    return Trained(out, manifest, kept)


@pytest.fixture(scope="module")
def trained(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_and_keep(SEARCHED, features, tmp_path_factory.mktemp("pairs") / "model")


def with_history(queries: Inputs, content: np.ndarray) -> Inputs:
    """The queries, with histories of these items' content vectors in turn."""
    n, length = queries["history_event_type"].shape
    history = content[np.arange(n * length) % len(content)].reshape(n, length, -1)
    return queries | {"history_content": history * (queries["history_event_type"] != "")[..., None]}


def test_scores_are_the_mean_of_the_scores_of_each_pair(features: Path, trained: Trained) -> None:
    spec = FeaturesManifest.read(features).spec
    items, queries = inputs_of_items(features, 16), every_query(spec, 1)
    alone = []
    for model in trained.models:
        found = {name: values.numpy() for name, values in model.item_tower(items).items()}
        vectors = model.query_tower(with_history(queries, found["content"])).numpy()
        alone.append(vectors @ found["embedding"].T)
    found = run_tower(load_tower(trained.folder / ITEM_TOWER), items)
    tower = load_tower(trained.folder / QUERY_TOWER)
    vectors = run_tower(tower, with_history(queries, found["content"]))["embedding"]
    assert found["embedding"].shape == (16, LENGTH)
    assert vectors.shape == (len(queries["context_age"]), LENGTH)
    assert np.abs(alone[0] - alone[1]).max() > 0.1
    np.testing.assert_allclose(vectors @ found["embedding"].T, np.mean(alone, 0), atol=1e-4)
    repeats = run_tower(tower, with_history(queries, found["content"]))["repeats"]
    event_types = trained.models[0].query_tower.encode.event_types(queries["history_event_type"])
    each = [
        model.query_tower.weigh_repeats(event_types, queries["history_age_days"]).numpy()
        for model in trained.models
    ]
    assert np.abs(each[0] - each[1]).max() > 0
    np.testing.assert_allclose(repeats, np.mean(each, 0), atol=1e-6)
    learned = found["embedding"][:, : 2 * TWO.learned_size]
    np.testing.assert_allclose(np.linalg.norm(learned, axis=1), 1, atol=1e-5)


def test_what_is_measured_together_is_what_is_exported(features: Path, trained: Trained) -> None:
    """Validation ranks by the vectors of ``embed_queries``, which have to be the exported ones."""
    joined = JoinedTowers(trained.models, TWO.learned_size)
    spec = FeaturesManifest.read(features).spec
    content = joined.item_tower(inputs_of_items(features, 16))["content"].numpy()
    queries = with_history(every_query(spec, 1), content)
    tower = joined.query_tower
    found = joined.embed_queries(
        tower.encode(queries),
        queries["history_content"],
        tower.encode.event_types(queries["history_event_type"].astype(str)),
        queries["history_age_days"],
    )
    expected = run_tower(load_tower(trained.folder / QUERY_TOWER), queries)["embedding"]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_the_manifest_says_what_each_pair_is_worth(trained: Trained) -> None:
    manifest = ModelManifest.read(trained.folder)
    assert (manifest.embedding_size, manifest.learned_size) == (LENGTH, 2 * TWO.learned_size)
    assert manifest.content_size == 2 * TWO.content_size
    assert [pair.seed for pair in manifest.pairs] == [0, seed_of_pair(0, 1)]
    for pair in manifest.pairs:
        assert pair.chosen_epoch == best_epoch(pair.epochs)
        assert pair.recall == pair.epochs[pair.chosen_epoch - 1].recall
        assert pair.recall is not None
    assert manifest.joined_recall is not None
    first = manifest.pairs[0]
    assert (manifest.epochs, manifest.chosen_epoch) == (first.epochs, first.chosen_epoch)
    assert has_in_process_tower(trained.folder / QUERY_TOWER)


def test_the_popularity_part_is_that_of_the_first_pair(trained: Trained) -> None:
    first, second = trained.models
    assert second.item_tower.popularity is first.item_tower.popularity
    untrained = {id(weights) for weights in first.item_tower.popularity.variables}
    assert untrained.isdisjoint(map(id, second.trainable_variables))
    gates = [len(model.query_tower._gates) for model in (first, second)]
    assert gates == [2, 2]


def test_the_first_pair_is_that_of_a_training_of_one(
    features: Path, trained: Trained, tmp_path: Path
) -> None:
    one = SEARCHED.model_copy(update={"tower_pairs": 1, "in_process_tower": False})
    alone = train_and_keep(one, features, tmp_path / "one")
    assert alone.manifest.pairs == ()
    assert alone.manifest.joined_recall is None
    assert [e.recall for e in alone.manifest.epochs] == [e.recall for e in trained.manifest.epochs]
    items = inputs_of_items(features, 16)
    first, second = (each.models[0].item_tower(items)["embedding"] for each in (alone, trained))
    np.testing.assert_array_equal(first, second)


def test_pairs_have_seeds_that_no_other_training_has() -> None:
    seeds = [seed_of_pair(seed, number) for seed in range(20) for number in range(5)]
    assert seeds[0::5] == list(range(20))
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_training_that_is_cut_off_between_pairs_goes_on(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TWO.model_copy(update={"in_process_tower": False})
    whole, out = tmp_path / "whole", tmp_path / "model"
    train(settings, features, whole)
    for cut_off in ("search-2: towers", "search-2: epoch 1/", "final-2: epoch 1/"):
        with monkeypatch.context() as patch:
            patch.setattr(module, "log_message", raise_at(cut_off))
            patch.setattr("refit.progress.log_message", raise_at(cut_off))
            with pytest.raises(KeyboardInterrupt):
                train(settings, features, out, tmp_path / "checkpoint")
    messages: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("components.training.checkpoint.log_message", messages.append)
        train(settings, features, out, tmp_path / "checkpoint")
    assert len([m for m in messages if m.startswith("resuming after epoch")]) == 4
    items = inputs_of_items(features, 16)
    first, second = (run_tower(load_tower(each / ITEM_TOWER), items) for each in (whole, out))
    np.testing.assert_array_equal(first["embedding"], second["embedding"])
    np.testing.assert_array_equal(first["content"], second["content"])
    assert not list((tmp_path / "checkpoint").rglob("state.json"))


def raise_at(start: str) -> Callable[[str], None]:
    def log(message: str) -> None:
        if message.startswith(start):
            raise KeyboardInterrupt

    return log


@pytest.mark.usefixtures("two_parts")
def test_ordered_pairs_without_popularity_run_in_process(features: Path, tmp_path: Path) -> None:
    settings = TWO.model_copy(
        update={
            "history": "sequence",
            "sequence_layers": 1,
            "popularity": False,
            "similarity": "dot",
            "learned_size": TWO.content_size,
            "choose_epochs": False,
            "max_epochs": 1,
            "tower_pairs": 3,
        }
    )
    manifest = train(settings, features, tmp_path / "model")
    assert manifest.embedding_size == manifest.learned_size == 3 * TWO.content_size
    assert [(pair.recall, pair.chosen_epoch) for pair in manifest.pairs] == [(None, 1)] * 3
    assert manifest.joined_recall is None
    assert has_in_process_tower(tmp_path / "model" / QUERY_TOWER)


def test_a_study_trains_one_pair(features: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    measure_epochs(TWO, features, tmp_path, lambda epochs, _: not seen.append(len(epochs)))
    assert seen == [1, 2]


def test_pairs_that_cannot_differ_or_are_too_long_are_usage_errors(
    features: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="leave tower_pairs 1"):
        TrainSettings.parse({"towers": "popularity", "tower_pairs": 2})
    settings = TWO.model_copy(update={"tower_pairs": 40})
    with pytest.raises(UsageError, match=r"326 entries \(320 learned.*tower_pairs"):
        train(settings, features, tmp_path / "model")
