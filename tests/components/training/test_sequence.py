"""The query tower that reads a history in its order."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from components.training.batches import Batches, EncodedExamples
from components.training.model import TwoTowerModel
from components.training.sequence import (
    PARTS,
    Runs,
    SequenceEncoder,
    embed_by_length,
    mask_history,
)
from components.training.settings import TrainSettings
from components.training.snapshots import Snapshots
from components.training.train import train
from components.training.vocabulary import learn_vocabulary
from refit.errors import UsageError
from refit.feature_tables import read_catalogue, read_snapshot
from refit.features import FeaturesManifest
from refit.in_process_tower import has_in_process_tower
from refit.model import ITEM_TOWER, QUERY_TOWER
from refit.towers import load_tower, run_tower
from tests.components.training import conftest
from tests.components.training.test_in_process import every_query
from tests.components.training.test_train import inputs_of_items

WIDTH, LENGTH = 6, 5
DAY_US = 86_400_000_000
ORDERED = conftest.SMALL.model_copy(
    update={
        "history": "sequence",
        "history_masked": 0.2,
        "weight_decay": 0.01,
        "dropout": 0.3,
        "max_epochs": 2,
    }
)
DOT = {
    "popularity": False,
    "similarity": "dot",
    "temperature": 1.0,
    "learned_size": ORDERED.content_size,
}
ONCE = {"choose_epochs": False, "max_epochs": 1, "sequence_layers": 1}
"""Trains as much as it takes to write a model: most of the time TensorFlow traces a step."""
Histories = tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]


def move_weights(layer: tf.keras.layers.Layer) -> None:
    """Move all weights from where they start, near 0, so that everything matters."""
    rng = np.random.default_rng(5)
    for weight in layer.trainable_variables:
        weight.assign_add(rng.normal(scale=0.3, size=weight.shape))


def encoder(layers: int = 2) -> SequenceEncoder:
    tf.keras.utils.set_random_seed(3)
    made = SequenceEncoder(WIDTH, LENGTH, layers, heads=2, dropout=0.5)
    made(*histories([LENGTH]))
    move_weights(made)
    return made


def histories(lengths: list[int], seed: int = 1) -> Histories:
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
    assert expected.shape == (4, 1, WIDTH)
    assert not expected[0].any()
    assert np.abs(expected[1:]).min() > 0
    padded = event_types == 0
    content[padded], age_days[padded] = 7.0, 99.0
    np.testing.assert_allclose(encode(content, event_types, age_days), expected, atol=1e-5)
    for row, n in enumerate([1, 3], start=1):
        one = slice(row, row + 1)
        shorter = encode(content[one, :n], event_types[one, :n], age_days[one, :n])
        np.testing.assert_allclose(shorter, expected[one], atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_output_of_an_event_is_what_it_was_when_it_was_the_newest(layers: int) -> None:
    encode = encoder(layers)
    content, event_types, age_days = histories([5, 3])
    outputs = encode(content, event_types, age_days, LENGTH).numpy()
    assert not outputs[1, 3:].any()
    for n in range(1, LENGTH):
        few = encode(content, event_types, age_days, n)
        np.testing.assert_allclose(few, outputs[:, :n], atol=1e-5)
        earlier = age_days[:, n:] - 0.9 * age_days[:, n : n + 1]
        newest = encode(content[:, n:], event_types[:, n:], earlier)
        np.testing.assert_allclose(newest[:, 0], outputs[:, n], atol=1e-5)


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


def test_a_query_sees_its_run_from_its_own_newest_event_on() -> None:
    content = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    event_types = np.array([[1, 2, 3], [2, 1, 0]], np.int32)
    age_days = np.array([[1.0, 2.0, 9.0], [4.0, 6.0, 0.0]], np.float32)
    runs = Runs(*map(tf.constant, ([1, 0, 1, 1], [0, 1, 1, 2], [0.0, 0.5, 4.0, 4.5])))
    seen, kinds, ages = (values.numpy() for values in runs.see(content, event_types, age_days))
    np.testing.assert_array_equal(seen[:, :, 0], [[3, 4, 5], [0, 1, 2], [3, 4, 5], [3, 4, 5]])
    np.testing.assert_array_equal(kinds, [[2, 1, 0], [0, 2, 3], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(ages[1, 1:], [1.5, 8.5])
    np.testing.assert_array_equal(runs.newest(age_days), [4.0, 2.0, 6.0, 0.0])
    assert int(runs.count_outputs()) == 3


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("n", [1, PARTS - 1, 3 * PARTS + 1])
def test_parts_by_length_give_the_vectors_of_the_whole_batch(n: int, shared: bool) -> None:
    rng = np.random.default_rng(n)
    encode = encoder()
    lengths = rng.integers(0, LENGTH + 1, n)
    inputs = histories(lengths.tolist())
    runs = None
    if shared:
        run = rng.integers(n, size=3 * n).astype(np.int32)
        newer = np.minimum(rng.integers(0, LENGTH, 3 * n), lengths[run]).astype(np.int32)
        runs = Runs(tf.constant(run), tf.constant(newer), tf.zeros(3 * n))
    read = []

    def embed(
        rows: tf.Tensor, queries: tf.Tensor, part: Runs | None, longest: tf.Tensor, number: int
    ) -> tf.Tensor:
        read.append(len(rows) * int(longest))
        some = (tf.gather(values, rows)[:, :longest] for values in inputs)
        outputs = encode(*some, 1 if part is None else longest)
        return outputs[:, 0] if part is None else part.newest(outputs)

    found = embed_by_length(embed, tf.constant(inputs[1]), runs)
    outputs = encode(*inputs, LENGTH)
    expected = outputs[:, 0] if runs is None else runs.newest(outputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sum(read) <= inputs[1].size


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


def streams(limit: int = conftest.LENGTH) -> EncodedExamples:
    """Each event of three people as an example of one snapshot, with the events before it."""
    rng = np.random.default_rng(4)
    rows = []
    for user, n in enumerate([1, 3, 6]):
        items, days = rng.integers(conftest.N_ITEMS, size=n), np.sort(rng.uniform(0, 9, n))
        rows += [
            (days[i], user, items[i], items[:i][::-1][:limit], days[i] - days[:i][::-1][:limit])
            for i in range(n)
        ]
    rows.sort(key=lambda row: row[0])
    n = len(rows)
    item, age = np.full((n, limit), -1, np.int32), np.zeros((n, limit), np.float32)
    for row, (*_, before, ages) in enumerate(rows):
        item[row, : len(before)], age[row, : len(before)] = before, ages
    return EncodedExamples(
        {
            "item": np.array([row[2] for row in rows], np.int32),
            "snapshot": np.zeros(n, np.int32),
            "user": np.array([row[1] for row in rows], np.uint64),
            "weight": np.ones(n, np.float32),
            "time": np.array([row[0] * DAY_US for row in rows], np.int64),
            "history": item,
            "history_event_type": (item >= 0).astype(np.int8),
            "history_age_days": age,
            "query/gates": rng.integers(0, 3, (n, 2)).astype(np.int32),
            "query/categories": rng.integers(0, 2, (n, 2)).astype(np.int32),
            "query/numbers": rng.normal(size=(n, 26)).astype(np.float32),
        }
    )


@pytest.mark.parametrize("changes", [{}, DOT])
def test_queries_of_one_person_are_read_at_once_and_get_the_vectors_of_their_own(
    features: Path, changes: dict[str, object]
) -> None:
    settings = ORDERED.model_copy(update=changes)
    manifest = FeaturesManifest.read(features)
    vocabulary = learn_vocabulary(
        manifest, features, read_catalogue(features), ("train",), read_snapshot(features, 3)[2], 9
    )
    model = TwoTowerModel(settings, manifest, vocabulary)
    examples = streams()
    batch = Batches(settings, examples, Snapshots(manifest, features, 1)).first
    # Six of the ten share a history with others; the last three of one person have a full one.
    assert len(batch["label"]) == 10
    assert len(batch["history_row"]) == 6
    rng = np.random.default_rng(2)
    content = rng.normal(size=(conftest.N_ITEMS + 1, settings.content_size)).astype(np.float32)

    def read(items: tf.Tensor) -> tf.Tensor:
        return tf.gather(content, tf.where(items < 0, 0, items + 1))

    content[0] = 0
    codes = {name: values[:] for name, values in examples.codes.items()}
    alone = (
        codes,
        examples.history,
        examples.history_event_type.astype(np.int32),
        examples.history_age_days,
    )
    model.embed_queries(*alone, read)
    move_weights(model.query_tower)
    expected = model.embed_queries(*alone, read).numpy()
    assert np.abs(expected[1:] - expected[:-1]).max(axis=1).min() > 1e-3
    padded = np.append(batch["item"], -1)
    runs = Runs(*(tf.constant(batch[name]) for name in Runs._fields))
    at_once = model.embed_queries(
        codes,
        padded[batch["history_row"]],
        batch["history_event_type"],
        batch["history_age_days"],
        read,
        runs=runs,
    )
    np.testing.assert_allclose(at_once, expected, atol=1e-4)

    seen = (batch[f"history_{name}"] for name in ("row", "event_type", "age_days"))
    places, added = model._find_repeats(*runs.see(*seen), len(batch["item"]))
    found, wanted = np.zeros((2, len(codes["gates"]), conftest.N_ITEMS))
    np.add.at(found, (places[:, 0], batch["item"][places[:, 1]]), added)
    weights = model.query_tower.weigh_repeats(*alone[2:]).numpy()
    query, event = np.nonzero(examples.history >= 0)
    np.add.at(wanted, (query, examples.history[query, event]), weights[query, event])
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_batch_has_all_examples_that_read_one_history(features: Path) -> None:
    settings = ORDERED.model_copy(update={"batch_size": 3})
    batches = Batches(settings, streams(9), Snapshots(conftest.manifest(), features, 1))
    for epoch in (1, 2):
        sizes = [len(batch["label"]) for batch in batches.of_epoch(epoch)]
        assert sum(sizes) == 10
        for batch in batches.of_epoch(epoch):
            assert set(np.bincount(batch["run"])) <= {1, 3, 6}
            assert all(batch["newer"][batch["run"] == run].min() == 0 for run in batch["run"])


def test_examples_without_a_history_are_left_out_if_the_settings_say_so(features: Path) -> None:
    settings = ORDERED.model_copy(update={"with_history_only": True})
    batches = Batches(settings, streams(), Snapshots(conftest.manifest(), features, 1))
    (batch,) = batches.of_epoch(1)
    assert len(batch["label"]) == 7
    lengths = (batch["history_row"] >= 0).sum(axis=1)
    assert (lengths[batch["run"]] > batch["newer"]).all()


@pytest.mark.usefixtures("two_parts")
def test_the_future_has_no_influence_on_the_towers(
    features: Path, make_features: Callable[..., Path], tmp_path: Path
) -> None:
    """As test_two_runs_are_bit_identical_whatever_the_test_examples_are, of the other tower."""
    changed = make_features(tmp_path / "features", test_item=15)
    inputs = every_query(conftest.SPEC, ORDERED.content_size)
    settings = ORDERED.model_copy(update=ONCE)
    vectors = []
    for name, folder in (("model", features), ("other", changed)):
        run = settings.model_copy(update={"in_process_tower": name == "model"})
        manifest = train(run, folder, tmp_path / name)
        assert TrainSettings.parse(manifest.settings) == run
        tower = load_tower(tmp_path / name / QUERY_TOWER)
        vectors.append(run_tower(tower, inputs)["embedding"])
    assert np.isfinite(vectors[0]).all()
    np.testing.assert_array_equal(*vectors)
    assert has_in_process_tower(tmp_path / "model" / QUERY_TOWER)


@pytest.mark.usefixtures("two_parts")
def test_with_dot_the_embeddings_of_items_are_their_content_vectors(
    features: Path, tmp_path: Path
) -> None:
    settings = ORDERED.model_copy(update=DOT | ONCE | {"in_process_tower": False})
    manifest = train(settings, features, tmp_path / "model")
    assert manifest.embedding_size == manifest.content_size == settings.learned_size
    items = inputs_of_items(features, 8)
    tower = load_tower(tmp_path / "model" / ITEM_TOWER)
    before = run_tower(tower, items)
    np.testing.assert_array_equal(before["embedding"], before["content"])
    later = items | {"item_age_days": items["item_age_days"] + 50}
    np.testing.assert_array_equal(run_tower(tower, later)["embedding"], before["embedding"])
    assert np.ptp(np.linalg.norm(before["embedding"], axis=1)) > 1e-3


def test_with_dot_content_and_learned_vectors_have_one_length() -> None:
    with pytest.raises(UsageError, match=r"learned_size is 48 and content_size 32.*the same"):
        TrainSettings.parse({"similarity": "dot"})


def test_heads_that_do_not_divide_the_content_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"sequence_heads is 3.*content_size, 32"):
        TrainSettings.parse({"history": "sequence", "sequence_heads": 3})


def test_towers_of_popularity_alone_need_their_part() -> None:
    with pytest.raises(UsageError, match="popularity is false"):
        TrainSettings.parse({"towers": "popularity", "popularity": False})
