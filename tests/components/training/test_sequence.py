"""The query tower that reads a history in its order."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.training.sequence import (
    PARTS,
    SequenceEncoder,
    embed_by_length,
    mask_history,
)
from components.training.settings import TrainSettings
from components.training.train import train
from refit.errors import UsageError
from refit.in_process_tower import has_in_process_tower
from refit.model import ITEM_TOWER, QUERY_TOWER
from refit.towers import load_tower, run_tower
from tests.components.training import conftest
from tests.components.training.test_in_process import every_query
from tests.components.training.test_train import inputs_of_items

WIDTH, LENGTH = 6, 5
ORDERED = conftest.SMALL.model_copy(
    update={
        "history": "sequence",
        "history_masked": 0.2,
        "weight_decay": 0.01,
        "dropout": 0.3,
        "max_epochs": 2,
    }
)


def encoder(layers: int = 2) -> SequenceEncoder:
    tf.keras.utils.set_random_seed(3)
    return SequenceEncoder(WIDTH, LENGTH, layers, heads=2, dropout=0.5)


def histories(lengths: list[int], seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Content, event types and rising ages, padded with 0."""
    rng = np.random.default_rng(seed)
    n = len(lengths)
    present = np.arange(LENGTH) < np.array(lengths)[:, None]
    content = rng.normal(size=(n, LENGTH, WIDTH)).astype(np.float32) * present[:, :, None]
    event_types = (rng.integers(1, 4, (n, LENGTH)) * present).astype(np.int32)
    age_days = np.cumsum(rng.exponential(3, (n, LENGTH)), axis=1).astype(np.float32) * present
    return content, event_types, age_days


@pytest.mark.parametrize("layers", [1, 2])
def test_padding_has_no_influence(layers: int) -> None:
    encode = encoder(layers)
    content, event_types, age_days = histories([0, 1, 3, 5])
    expected = encode(content, event_types, age_days).numpy()
    assert expected.shape == (4, WIDTH)
    assert not expected[0].any()
    assert np.abs(expected[1:]).min() > 0
    padded = event_types == 0
    content[padded], age_days[padded] = 7.0, 99.0
    np.testing.assert_allclose(encode(content, event_types, age_days), expected, atol=1e-6)
    for row, n in enumerate([1, 3], start=1):
        one = slice(row, row + 1)
        shorter = encode(content[one, :n], event_types[one, :n], age_days[one, :n])
        np.testing.assert_allclose(shorter, expected[one], atol=1e-6)


def test_the_order_of_the_items_matters() -> None:
    encode = encoder()
    content, event_types, age_days = histories([4])
    event_types[event_types > 0] = 1
    exchanged = content[:, [0, 2, 1, 3, 4]]
    first, second = (encode(c, event_types, age_days).numpy() for c in (content, exchanged))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("part", range(3))
def test_item_event_type_and_age_of_every_event_matter(part: int) -> None:
    encode = encoder()
    inputs = histories([5])
    expected = encode(*inputs).numpy()
    for place in range(LENGTH):
        changed = [values.copy() for values in inputs]
        changed[part][0, place] = changed[part][0, place] % 3 + 1
        assert np.abs(encode(*changed).numpy() - expected).max() > 1e-5


def test_a_gap_is_seen_apart_from_the_ages_of_the_other_events() -> None:
    """The age of the second event is its own input, and part of the gap before the third."""
    content, event_types, _ = histories([3])
    encode = encoder()
    ages = np.array([[1.0, 10.0, 100.0, 0, 0], [1.0, 90.0, 100.0, 0, 0]], np.float32)
    early, late = (encode(content, event_types, age[None]).numpy() for age in ages)
    assert np.abs(early - late).max() > 1e-3


@pytest.mark.parametrize("n", [1, PARTS - 1, 3 * PARTS + 1])
def test_parts_by_length_give_the_vectors_of_the_whole_batch(n: int) -> None:
    rng = np.random.default_rng(n)
    encode = encoder()
    content, event_types, age_days = histories(rng.integers(0, LENGTH + 1, n).tolist())
    read = []

    def embed(rows: tf.Tensor, longest: tf.Tensor, number: int) -> tf.Tensor:
        read.append(len(rows) * int(longest))
        return encode(
            *(tf.gather(values, rows)[:, :longest] for values in (content, event_types, age_days))
        )

    found = embed_by_length(embed, tf.constant(event_types))
    np.testing.assert_allclose(found, encode(content, event_types, age_days), atol=1e-6)
    assert sum(read) <= event_types.size


def test_a_share_of_the_items_is_hidden_in_training_only() -> None:
    history = tf.ones([200, LENGTH, WIDTH])
    assert mask_history(history, 0.2, None) is history
    seed = tf.constant([1, 2])
    masked = mask_history(history, 0.2, seed).numpy()
    assert set(np.unique(masked)) == {0.0, 1.0}
    assert (masked == masked[:, :, :1]).all()
    assert masked.mean() == pytest.approx(0.8, abs=0.04)
    np.testing.assert_array_equal(masked, mask_history(history, 0.2, seed))
    assert (masked != mask_history(history, 0.2, seed + 1).numpy()).any()


def test_the_future_has_no_influence_on_the_towers(
    features: Path, make_features: Callable[..., Path], tmp_path: Path
) -> None:
    """As test_two_runs_are_bit_identical_whatever_the_test_examples_are, of the other tower."""
    changed = make_features(tmp_path / "features", test_item=15)
    inputs = every_query(conftest.SPEC, ORDERED.content_size)
    vectors = []
    for name, folder in (("model", features), ("other", changed)):
        manifest = train(ORDERED, folder, tmp_path / name)
        assert TrainSettings.parse(manifest.settings) == ORDERED
        tower = load_tower(tmp_path / name / QUERY_TOWER)
        vectors.append(run_tower(tower, inputs)["embedding"])
    assert np.isfinite(vectors[0]).all()
    np.testing.assert_array_equal(*vectors)
    assert has_in_process_tower(tmp_path / "model" / QUERY_TOWER)


def test_without_popularity_the_embeddings_are_the_learned_part(
    features: Path, tmp_path: Path
) -> None:
    settings = ORDERED.model_copy(
        update={"popularity": False, "similarity": "dot", "temperature": 1.0, "max_epochs": 1}
    )
    manifest = train(settings, features, tmp_path / "model")
    assert manifest.embedding_size == manifest.learned_size == settings.learned_size
    items = inputs_of_items(features, 8)
    tower = load_tower(tmp_path / "model" / ITEM_TOWER)
    before = run_tower(tower, items)["embedding"]
    later = items | {"item_age_days": items["item_age_days"] + 50}
    np.testing.assert_array_equal(run_tower(tower, later)["embedding"], before)
    assert np.ptp(np.linalg.norm(before, axis=1)) > 1e-3


def test_heads_that_do_not_divide_the_content_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"sequence_heads is 3.*content_size, 32"):
        TrainSettings.parse({"history": "sequence", "sequence_heads": 3})


def test_towers_of_popularity_alone_need_their_part() -> None:
    with pytest.raises(UsageError, match="popularity is false"):
        TrainSettings.parse({"towers": "popularity", "popularity": False})
