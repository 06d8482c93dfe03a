"""The query tower as it is exported for the process that answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.training import in_process
from components.training.export import export_query_tower, query_outputs
from components.training.in_process import (
    TOLERANCE,
    check_in_process_tower,
    export_in_process_tower,
    sample_query_inputs,
    write_in_process_tower,
)
from components.training.settings import TrainSettings
from components.training.towers import ItemTower, QueryTower
from components.training.train import train
from components.training.vocabulary import Vocabulary
from refit.errors import RefitError
from refit.feature_tables import read_contents
from refit.features import FeaturesManifest, FeatureSpec, Inputs, query_inputs
from refit.in_process_tower import InProcessTower, has_in_process_tower
from refit.model import QUERY_TOWER
from refit.towers import load_tower, run_tower
from tests.components.training import conftest

VOCABULARY = Vocabulary(
    values={
        "item_id": ("item-1",),
        "item_brand": ("brand-1",),
        "context_size": conftest.SIZES,
        "user_country": ("FR", "ÅÄÖ", "[UNK]"),
    },
    scales={"item_price": (10.0, 2.0), "context_age": (40.0, 9.0), "user_height": (170.0, 9.0)},
    shares={
        "size": np.full(2, 0.5, np.float32),
        "age": np.full(3, 1 / 3, np.float32),
    },
    n_examples=1,
)


def export(manifest: FeaturesManifest, settings: TrainSettings, base: Path) -> QueryTower:
    """Export a tower that nobody trained, with weights that are not 0."""
    tf.keras.utils.set_random_seed(1)
    tower = QueryTower(settings, manifest, VOCABULARY)
    tower(every_query(manifest.spec, settings.content_size))  # makes the variables
    for weights in tower.variables:
        weights.assign(weights + tf.random.normal(weights.shape, stddev=0.3))
    export_query_tower(tower, manifest, settings.content_size, base)
    export_in_process_tower(tower, manifest, settings.content_size, base)
    return tower


def every_query(spec: FeatureSpec, content_size: int) -> Inputs:
    """Queries with every kind of known, unknown and missing value, on and beside every edge."""
    rng = np.random.default_rng(5)
    texts = ["S", "M", None, "never seen", "[UNK]", "ÅÄÖ", "FR"]
    ages = [None, 29.999, 30.0, 30.001, 50.0, 1e9, -1e9]
    rows, length = len(texts) * len(ages), spec.history_length
    columns = {
        "size": [text for text in texts for _ in ages],
        "age": ages * len(texts),
        "country": texts * len(ages),
        "height": [160.0, None, 1e30, -5.0, 170.0, 171.0, 0.0] * len(texts),
    }
    event_types = rng.choice(["", "view", "purchase", "like", "other"], (rows, length))
    event_types[:5] = ""
    return query_inputs(
        spec,
        {name: columns[name] for name in ("size", "age")},
        {name: columns[name] for name in ("country", "height")},
        rng.normal(size=(rows, length, content_size)).astype(np.float32),
        event_types.astype(object),
        rng.exponential(30, (rows, length)).astype(np.float32),
    )


NO_CONTEXT = {
    "context_categorical": (),
    "context_numeric": (),
    "user_categorical": (),
    "user_numeric": (),
    "popularity_by": (),
}

DOT = {"similarity": "dot", "learned_size": conftest.SMALL.content_size}


@pytest.mark.parametrize(
    ("left_out", "changes"),
    [
        ({}, {}),
        ({"popularity_by": ()}, {}),
        (NO_CONTEXT, {}),
        ({}, {"history": "sequence"}),
        (
            NO_CONTEXT,
            {"history": "sequence", "sequence_layers": 1, "popularity": False, **DOT},
        ),
    ],
)
def test_vectors_are_those_of_the_saved_model_whatever_the_query(
    small: TrainSettings,
    tmp_path: Path,
    left_out: dict[str, tuple[str, ...]],
    changes: dict[str, Any],
) -> None:
    manifest = conftest.manifest()
    manifest = manifest.model_copy(update={"spec": manifest.spec.model_copy(update=left_out)})
    small = small.model_copy(update=changes)
    export(manifest, small, tmp_path)
    inputs = every_query(manifest.spec, small.content_size)
    expected = run_tower(load_tower(tmp_path), inputs)["embedding"]
    found = InProcessTower(tmp_path).run(inputs)["embedding"]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)
    assert check_in_process_tower(tmp_path, inputs) <= TOLERANCE


def test_the_check_is_made_on_examples_and_on_a_query_of_which_nothing_is_known(
    features: Path, small: TrainSettings
) -> None:
    manifest = conftest.manifest()
    tower = ItemTower(small, manifest, VOCABULARY)
    inputs = sample_query_inputs(manifest, features, read_contents(features), tower, n=40)
    assert len(inputs["context_size"]) == 41
    assert inputs["history_content"].shape == (41, conftest.LENGTH, small.content_size)
    assert inputs["history_content"].any()
    assert not inputs["history_content"][inputs["history_event_type"] == ""].any()
    last = {name: values[-1] for name, values in inputs.items()}
    assert (last["context_size"], last["user_country"]) == ("", "")
    assert np.isnan(last["context_age"])
    assert not last["history_content"].any()


def test_a_training_fails_whose_tower_gives_other_vectors_in_process(
    features: Path, small: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small.model_copy(update={"max_epochs": 1, "choose_epochs": False})
    monkeypatch.setattr(
        in_process,
        "query_outputs",
        lambda *of: {name: 1.001 * values for name, values in query_outputs(*of).items()},
    )
    with pytest.raises(RefitError, match=r"differ by .* in process .* train.in_process_tower"):
        train(settings, features, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    settings = settings.model_copy(update={"in_process_tower": False})
    train(settings, features, tmp_path / "model")
    assert not has_in_process_tower(tmp_path / "model" / QUERY_TOWER)


def test_an_operation_that_litert_does_not_have_is_an_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()

    @tf.function(input_signature=[{"x": tf.TensorSpec([1], tf.float32, "x")}])
    def serve(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"embedding": tf.linalg.det(inputs["x"][None, None])[None]}

    with pytest.raises(RefitError, match=r"LiteRT: .*MatrixDeterminant.*train.in_process_tower"):
        write_in_process_tower(serve, [], {}, tmp_path)
