import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.training import train as module
from components.training.recommenders import require_legacy_keras
from components.training.settings import TrainSettings
from components.training.train import find_rate, train
from refit.errors import RefitError, UsageError
from refit.feature_tables import read_catalogue, read_snapshot
from refit.features import FeaturesManifest, Inputs, item_inputs, query_inputs
from refit.files import read_json, write_json
from refit.model import ModelManifest
from refit.towers import load_tower, run_tower

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Trained:
    folder: Path
    manifest: ModelManifest
    towers: Any


@pytest.fixture(scope="module")
def trained(
    features: Path, small: TrainSettings, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    models = []
    write_model = module._write_model

    def keep(*arguments: Any) -> ModelManifest:
        models.append(arguments[-1].model)
        return write_model(*arguments)

    out = tmp_path_factory.mktemp("trained") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_write_model", keep)
        manifest = train(small, features, out)
    return Trained(out, manifest, models[0])


@pytest.fixture(scope="module")
def model(trained: Trained) -> Path:
    return trained.folder


@pytest.fixture(scope="module")
def plain(small: TrainSettings) -> TrainSettings:
    """The same towers, without the copy that runs in process: it takes a third of the time."""
    return small.model_copy(update={"in_process_tower": False})


def inputs_of_items(features: Path, n: int) -> Inputs:
    spec = FeaturesManifest.read(features).spec
    catalogue = read_catalogue(features)
    rows = np.arange(n) % len(catalogue)
    _, age_days, popularity = read_snapshot(features, 3)
    columns: dict[str, Any] = {
        "item_id": catalogue.strings("item_id")[rows],
        "brand": catalogue.strings("brand")[rows],
        "title": catalogue.strings("title")[rows],
        "price": catalogue.numbers("price")[rows],
        "picture": catalogue.vectors("picture", 4)[rows],
    }
    return item_inputs(spec, columns, age_days[rows], popularity[rows])


def inputs_of_queries(features: Path, content: np.ndarray, n: int) -> Inputs:
    spec = FeaturesManifest.read(features).spec
    history = np.zeros((n, spec.history_length, content.shape[1]), np.float32)
    history[::2, 0] = content[0]
    event_types = np.full((n, spec.history_length), "", dtype=object)
    event_types[::2, 0] = "purchase"
    return query_inputs(
        spec,
        {
            "size": [("S", None, "never seen")[i % 3] for i in range(n)],
            "age": [(33.0, None, 200.0)[i % 3] for i in range(n)],
        },
        {"country": ["FR"] * n, "height": [None] * n},
        history,
        event_types,
        np.ones((n, spec.history_length), np.float32),
    )


@pytest.mark.parametrize("n", [1, 100])
def test_exported_towers_return_the_vectors_of_the_trained_ones(
    features: Path, trained: Trained, n: int
) -> None:
    items = inputs_of_items(features, n)
    exported = run_tower(load_tower(trained.folder / "item_tower"), items)
    expected = trained.towers.item_tower(items)
    assert exported["embedding"].shape == (n, trained.manifest.embedding_size)
    assert exported["content"].shape == (n, trained.manifest.content_size)
    for name in ("embedding", "content"):
        np.testing.assert_allclose(exported[name], expected[name].numpy(), rtol=1e-5, atol=1e-6)
    queries = inputs_of_queries(features, exported["content"], n)
    answer = run_tower(load_tower(trained.folder / "query_tower"), queries)["embedding"]
    assert np.isfinite(answer).all()
    expected = trained.towers.query_tower(queries).numpy()
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)


def test_content_depends_neither_on_age_nor_on_popularity(features: Path, model: Path) -> None:
    tower = load_tower(model / "item_tower")
    items = inputs_of_items(features, 8)
    later = items | {
        "item_age_days": items["item_age_days"] + 50,
        "item_popularity": items["item_popularity"] * 3,
    }
    before, after = run_tower(tower, items), run_tower(tower, later)
    np.testing.assert_array_equal(before["content"], after["content"])
    assert not np.array_equal(before["embedding"], after["embedding"])


def test_an_unknown_item_is_embedded_by_its_content(features: Path, model: Path) -> None:
    tower = load_tower(model / "item_tower")
    known = inputs_of_items(features, 1)
    twice = {name: np.concatenate([values, values]) for name, values in known.items()}
    twice["item_id"] = np.array(["new-1", "new-2"], dtype=object)
    content = run_tower(tower, twice)["content"]
    np.testing.assert_array_equal(content[0], content[1])
    assert np.any(content[0] != run_tower(tower, known)["content"][0])


def test_the_model_folder_describes_the_model(
    features: Path, model: Path, small: TrainSettings
) -> None:
    manifest = ModelManifest.read(model)
    assert manifest.embedding_size == 8 + 1 + 2 + 3
    assert manifest.content_size == 6
    assert manifest.final_fit
    assert manifest.train_examples == 160 + 48
    assert 1 <= manifest.chosen_epoch <= 3
    best = max(epoch.recall for epoch in manifest.epochs if epoch.recall is not None)
    assert manifest.epochs[manifest.chosen_epoch - 1].recall == best
    assert TrainSettings.parse(manifest.settings) == small
    assert FeaturesManifest.read(model) == FeaturesManifest.read(features)
    assert (model / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in (model / "query_tower").iterdir()] == ["1"]


def test_two_runs_are_bit_identical_whatever_the_test_examples_are(
    features: Path,
    model: Path,
    plain: TrainSettings,
    make_features: Callable[..., Path],
    tmp_path: Path,
) -> None:
    changed = make_features(tmp_path / "features", test_item=15)
    train(plain, changed, tmp_path / "model")
    items = inputs_of_items(features, 16)
    first, second = (
        run_tower(load_tower(folder / "item_tower"), items)["embedding"]
        for folder in (model, tmp_path / "model")
    )
    np.testing.assert_array_equal(first, second)


KILLED = """
import sys
from pathlib import Path
from components.training.settings import TrainSettings
from components.training.train import train
settings = TrainSettings.parse({settings!r})
train(settings, Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
"""


def test_a_killed_training_resumes(features: Path, plain: TrainSettings, tmp_path: Path) -> None:
    settings = plain.model_copy(update={"max_epochs": 400, "patience": 400, "final_fit": False})
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "model"
    script = KILLED.format(settings=settings.model_dump(mode="json"))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(features), str(out), str(checkpoint)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        limit = time.monotonic() + 200
        while not list(checkpoint.glob("*/search/00*/state.json")):
            assert process.poll() is None, "the training ended before it could be killed"
            assert time.monotonic() < limit, "no checkpoint was written"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists()
    done = max(len(read_json(p)["epochs"]) for p in checkpoint.glob("*/search/0*/state.json"))
    shorter = done + 2
    for state in checkpoint.glob("*/search/0*/state.json"):
        # As if the same training had fewer epochs, so that the test takes less time.
        key = read_json(state)["key"]
        assert key
        write_json(state, read_json(state) | {"key": f"{_key(settings, features, shorter)} None"})
    (folder,) = (path for path in checkpoint.iterdir() if path.is_dir())
    folder.rename(checkpoint / _key(settings, features, shorter)[:16])
    manifest = train(_short(settings, shorter), features, out, checkpoint)
    assert len(manifest.epochs) == shorter
    assert not list(checkpoint.rglob("state.json"))


def _short(settings: TrainSettings, epochs: int) -> TrainSettings:
    return settings.model_copy(update={"max_epochs": epochs})


def _key(settings: TrainSettings, features: Path, epochs: int) -> str:
    from components.training.train import checkpoint_key

    short = _short(settings, epochs)
    return checkpoint_key(short, FeaturesManifest.read(features), features)


def test_an_interrupted_training_gives_the_same_model(
    features: Path,
    model: Path,
    plain: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop_in_final_fit(message: str) -> None:
        if message.startswith(("search: epoch 2/", "final: epoch 1/")):
            raise KeyboardInterrupt

    out, checkpoint = tmp_path / "model", tmp_path / "checkpoint"
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(module, "log_message", stop_in_final_fit)
            with pytest.raises(KeyboardInterrupt):
                train(plain, features, out, checkpoint)
    assert not out.exists()
    train(plain, features, out, checkpoint)
    items = inputs_of_items(features, 16)
    np.testing.assert_array_equal(
        run_tower(load_tower(model / "item_tower"), items)["embedding"],
        run_tower(load_tower(out / "item_tower"), items)["embedding"],
    )


def test_one_of_two_trainings_of_the_same_keeps_checkpoints(
    features: Path, plain: TrainSettings, tmp_path: Path
) -> None:
    from components.training.checkpoint import checkpoints_of

    settings = plain.model_copy(update={"max_epochs": 1, "final_fit": False})
    with checkpoints_of(_key(settings, features, 1), tmp_path) as kept:
        assert kept
        (kept / "search").mkdir()
        train(settings, features, tmp_path / "model", tmp_path)
        assert (kept / "search").exists()
    assert not kept.exists()


def test_a_folder_that_is_not_writable_is_a_usage_error(tmp_path: Path) -> None:
    from components.training.checkpoint import checkpoints_of

    (tmp_path / "file").touch()
    (tmp_path / "key.lock").mkdir()
    for root in (tmp_path / "file", tmp_path):
        with (
            pytest.raises(UsageError, match="make it writable"),
            checkpoints_of("key", root),
        ):
            pass


def test_without_resume_the_checkpoint_is_removed(
    features: Path, plain: TrainSettings, tmp_path: Path
) -> None:
    settings = plain.model_copy(update={"resume": False, "max_epochs": 1, "final_fit": False})
    torn = tmp_path / "checkpoint" / _key(settings, features, 1)[:16] / "search" / "00002"
    torn.mkdir(parents=True)
    (torn / "state.json").write_text("not JSON")
    manifest = train(settings, features, tmp_path / "model", tmp_path / "checkpoint")
    assert [epoch.number for epoch in manifest.epochs] == [1]
    assert manifest.train_examples == 160


def test_a_set_number_of_epochs_is_trained_once(
    features: Path, plain: TrainSettings, tmp_path: Path
) -> None:
    settings = plain.model_copy(update={"choose_epochs": False, "max_epochs": 2})
    manifest = train(settings, features, tmp_path / "model")
    assert [epoch.recall for epoch in manifest.epochs] == [None, None]
    assert manifest.chosen_epoch == 2
    assert manifest.train_examples == 160 + 48
    assert (tmp_path / "model" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_learning_rate_rises_over_the_first_steps_and_falls_with_the_epochs() -> None:
    settings = TrainSettings(learning_rate=0.5, max_epochs=10, warm_up_steps=4)
    rates = [find_rate(settings, 1, steps) for steps in range(6)]
    assert rates == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    assert find_rate(settings, 6, 2) == pytest.approx(0.5 * 0.55 * 0.75)
    assert find_rate(settings, 6) == pytest.approx(0.5 * 0.55)


def test_items_have_no_ids_if_the_settings_say_so(
    features: Path, model: Path, plain: TrainSettings, tmp_path: Path
) -> None:
    settings = plain.model_copy(
        update={"id_embedding": "never", "choose_epochs": False, "max_epochs": 1}
    )
    train(settings, features, tmp_path / "model")
    known = inputs_of_items(features, 1)
    unknown = known | {"item_id": np.array(["never seen"], dtype=object)}
    first, second = (
        run_tower(load_tower(tmp_path / "model" / "item_tower"), items)["content"]
        for items in (known, unknown)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("value", [True, False])
def test_ids_that_are_true_or_false_are_a_usage_error(value: bool) -> None:
    with pytest.raises(UsageError, match=r"id_embedding.*auto.*always.*never"):
        TrainSettings.parse({"id_embedding": value})


def test_keras_3_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    with pytest.raises(UsageError, match="TF_USE_LEGACY_KERAS=1"):
        require_legacy_keras()


def test_embeddings_that_would_be_too_long_are_a_usage_error(
    features: Path, small: TrainSettings, tmp_path: Path
) -> None:
    settings = small.model_copy(update={"learned_size": 256})
    with pytest.raises(UsageError, match=r"262 entries.*at most 256"):
        train(settings, features, tmp_path / "model")


def test_a_counted_column_that_is_no_query_input_is_a_usage_error(
    make_features: Callable[..., Path], small: TrainSettings, tmp_path: Path
) -> None:
    features = make_features(tmp_path / "features")
    found = FeaturesManifest.read(features)
    spec = found.spec.model_copy(update={"context_categorical": ()})
    found.model_copy(update={"spec": spec}).write(features)
    with pytest.raises(UsageError, match="popularity_by names 'size'"):
        train(small, features, tmp_path / "model")


def test_a_folder_of_other_files_is_not_overwritten(
    features: Path, small: TrainSettings, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(RefitError, match="other files than a model"):
        train(small, features, tmp_path / "photos")


def test_the_best_epoch_is_exported_also_if_a_later_one_was_cut_off(
    features: Path, plain: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.training.recall import RecallMeter

    settings = plain.model_copy(update={"final_fit": False, "patience": 2})
    items = inputs_of_items(features, 16)
    recalls = iter((0.5, 0.4, 0.3, 0.5, 0.4, 0.3))
    monkeypatch.setattr(RecallMeter, "recall_at", lambda meter, k: next(recalls))
    train(settings, features, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(module, "log_message", _stop_at("search: epoch 2/"))
        with pytest.raises(KeyboardInterrupt):
            train(settings, features, tmp_path / "model", tmp_path / "checkpoint")
    manifest = train(settings, features, tmp_path / "model", tmp_path / "checkpoint")
    assert (manifest.chosen_epoch, len(manifest.epochs)) == (1, 3)
    assert manifest.train_examples == 160
    np.testing.assert_array_equal(
        *(
            run_tower(load_tower(tmp_path / name / "item_tower"), items)["embedding"]
            for name in ("whole", "model")
        )
    )


def _stop_at(start: str) -> Callable[[str], None]:
    def log(message: str) -> None:
        if message.startswith(start):
            raise KeyboardInterrupt

    return log
