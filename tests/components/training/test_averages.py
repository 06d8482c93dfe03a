"""Averages of weights: by hand, in a training, and after it was interrupted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.training import train as module
from components.training.averages import Averages
from components.training.model import TwoTowerModel
from components.training.recall import RecallMeter
from components.training.settings import TrainSettings
from components.training.train import train
from refit.errors import UsageError
from refit.model import ModelManifest
from refit.towers import load_tower, run_tower
from tests.components.training.test_train import _stop_at, inputs_of_items

MOMENTUM = 0.8


def averaged(small: TrainSettings, **changes: object) -> TrainSettings:
    return small.model_copy(update={"weight_averaging": MOMENTUM, **changes})


def test_the_average_is_of_the_weights_after_each_step() -> None:
    weight = tf.Variable([1000.0])  # where it starts does not count
    averages = Averages([weight], 0.5)
    for value, expected in (
        (2.0, 2.0),
        (4.0, (0.5 * 2 + 4) / 1.5),
        (8.0, (0.25 * 2 + 2 + 8) / 1.75),
    ):
        weight.assign([value])
        averages.update()
        averages.exchange()
        assert weight.numpy() == pytest.approx([expected], rel=1e-4)
        averages.exchange()
        assert weight.numpy() == [value]


def test_a_constant_weight_is_its_average() -> None:
    weight = tf.Variable([0.1, -3.0])
    averages = Averages([weight], 0.999)
    for _ in range(50):
        averages.update()
    averages.exchange()
    np.testing.assert_array_equal(weight.numpy(), np.array([0.1, -3.0], np.float32))


@pytest.mark.parametrize("negatives", [8, 20])
def test_what_is_measured_and_exported_are_the_averages(
    features: Path,
    small: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    negatives: int,
) -> None:
    """Ids are trained lazily with 8 negatives, and as other weights with 20."""
    settings = averaged(
        small,
        uniform_negatives=negatives,
        id_l2=0.0,
        final_fit=False,
        max_epochs=2,
        in_process_tower=False,
    )
    models: list[TwoTowerModel] = []
    steps: list[list[Any]] = []
    measured: list[list[Any]] = []
    call, build = module._Step.__call__, TwoTowerModel.build_averages
    recall_at, write_model = RecallMeter.recall_at, module._write_model

    def weights() -> list[Any]:
        (model,) = models
        return [weight.numpy() for weight in (*model.trainable_variables, model.item_tower.ids)]

    def keep_model(model: TwoTowerModel) -> None:
        models.append(model)
        build(model)

    def keep_step(self: Any, batch: Any) -> None:
        call(self, batch)
        steps.append(weights())

    def keep_measured(self: RecallMeter, k: int) -> float:
        measured.append(weights())
        return recall_at(self, k)

    def check_exported(*arguments: Any) -> ModelManifest:
        manifest = write_model(*arguments)
        for found, expected in zip(weights(), measured[manifest.chosen_epoch - 1], strict=True):
            np.testing.assert_array_equal(found, expected)
        return manifest

    monkeypatch.setattr(TwoTowerModel, "build_averages", keep_model)
    monkeypatch.setattr(module._Step, "__call__", keep_step)
    monkeypatch.setattr(RecallMeter, "recall_at", keep_measured)
    monkeypatch.setattr(module, "_write_model", check_exported)
    manifest = train(settings, features, tmp_path / "model")
    assert models[0].item_tower.trains_all_ids == (negatives == 20)
    per_epoch = len(steps) // len(manifest.epochs)
    for number, found in enumerate(measured, start=1):
        shares = MOMENTUM ** np.arange(number * per_epoch)[::-1]
        expected = [
            np.tensordot(shares / shares.sum(), np.stack(values), 1)
            for values in zip(*steps[: number * per_epoch], strict=True)
        ]
        for weight, average in zip(found, expected, strict=True):
            np.testing.assert_allclose(weight, average, rtol=1e-3, atol=1e-5)
    assert any((a != b).any() for a, b in zip(measured[-1], steps[-1], strict=True))


def test_an_interrupted_training_gives_the_same_averages(
    features: Path, small: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two pairs, so that the second is trained beside averages of the first."""
    settings = averaged(small, final_fit=False, tower_pairs=2, max_epochs=2, in_process_tower=False)
    whole, out, checkpoint = (tmp_path / name for name in ("whole", "model", "checkpoint"))
    train(settings, features, whole)
    for stop in ("search: epoch 1/", "search-2: epoch 1/"):
        with monkeypatch.context() as patch:
            patch.setattr(module, "log_message", _stop_at(stop))
            with pytest.raises(KeyboardInterrupt):
                train(settings, features, out, checkpoint)
    train(settings, features, out, checkpoint)
    assert embed(whole, features).tobytes() == embed(out, features).tobytes()


def embed(model: Path, features: Path) -> Any:
    return run_tower(load_tower(model / "item_tower"), inputs_of_items(features, 16))["embedding"]


@pytest.mark.parametrize("momentum", [1.0, -0.1])
def test_a_momentum_of_1_or_below_0_is_a_usage_error(momentum: float) -> None:
    with pytest.raises(UsageError, match="weight_averaging"):
        TrainSettings.parse({"weight_averaging": momentum})
