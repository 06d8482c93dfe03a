"""The loss, the popularity part, vocabulary and batches against values computed by hand."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from components.training.batches import (
    Batches,
    EncodedExamples,
    encode_catalogue,
    read_items,
    same_user_positives,
    write_examples,
)
from components.training.model import SampledRetrieval, TwoTowerModel
from components.training.settings import TrainSettings
from components.training.snapshots import Snapshots
from components.training.towers import PopularityPart, QueryTower
from components.training.vocabulary import Vocabulary, learn_vocabulary, measure_recurrence
from refit.feature_tables import CATALOGUE_FILE, examples_file, read_catalogue, read_snapshot
from refit.features import FeaturesManifest, FeatureSpec

NO_REPEATS = np.zeros((0, 2), np.int32), np.zeros(0, np.float32)


def loss(scores: list[list[float]], **named: object) -> float:
    """The loss where query b scores candidate j ``scores[b][j]``."""
    matrix = np.array(scores, np.float32)
    arguments: dict[str, object] = {
        "label": np.zeros(len(matrix), np.int32),
        "weight": np.ones(len(matrix), np.float32),
        "log_probability": np.zeros(matrix.shape[1], np.float32),
        "masked": np.zeros((0, 2), np.int32),
        "repeated": NO_REPEATS[0],
        "added": NO_REPEATS[1],
    }
    identity = np.eye(matrix.shape[1], dtype=np.float32)
    return float(SampledRetrieval()(matrix, identity, **(arguments | named)))


def test_the_loss_is_a_softmax_over_the_candidates() -> None:
    expected = -math.log(math.exp(2) / (math.exp(2) + math.exp(1) + math.exp(0)))
    assert loss([[2.0, 1.0, 0.0]]) == pytest.approx(expected, rel=1e-5)


def test_negatives_are_corrected_for_their_sampling_probability_and_the_positive_is_not() -> None:
    corrected = math.exp(1) / 0.5 + math.exp(0) / 0.25
    expected = -math.log(math.exp(2) / (math.exp(2) + corrected))
    log_probability = np.log([0.1, 0.5, 0.25]).astype(np.float32)
    assert loss([[2.0, 1.0, 0.0]], log_probability=log_probability) == pytest.approx(
        expected, rel=1e-5
    )


def test_masked_candidates_are_not_used_as_negatives() -> None:
    expected = -math.log(math.exp(2) / (math.exp(2) + math.exp(0)))
    masked = np.array([[0, 1]], np.int32)
    assert loss([[2.0, 1.0, 0.0]], masked=masked) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("entry", [(0, 0), (0, 1)])
def test_a_score_that_is_not_a_number_gives_such_a_loss(entry: tuple[int, int]) -> None:
    scores = np.array([[2.0, 1.0, 0.0]])
    scores[entry] = np.nan
    assert math.isnan(loss(scores.tolist()))


def test_the_gradient_is_that_of_the_softmax() -> None:
    rng = np.random.default_rng(0)
    queries = tf.Variable(rng.normal(size=(4, 3)).astype(np.float32))
    candidates = tf.Variable(rng.normal(size=(5, 3)).astype(np.float32))
    label = np.array([0, 3, 3, 1], np.int32)
    weight = np.array([1.0, 0.5, 2.0, 0.1], np.float32)
    log_probability = np.log(rng.uniform(0.1, 1, 5)).astype(np.float32)
    masked = np.array([[0, 2], [2, 4]], np.int32)
    with tf.GradientTape() as tape:
        found = SampledRetrieval()(
            queries, candidates, label, weight, log_probability, masked, *NO_REPEATS
        )
    gradients = tape.gradient(found, [queries, candidates])
    with tf.GradientTape() as tape:
        own = tf.one_hot(label, 5)
        scores = tf.matmul(queries, candidates, transpose_b=True) - log_probability * (1 - own)
        out = tf.scatter_nd(masked, [-1e9, -1e9], [4, 5])
        losses = tf.reduce_logsumexp(scores + out, 1) - tf.reduce_sum(scores * own, 1)
        expected = tf.reduce_mean(losses * weight)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    for one, other in zip(gradients, tape.gradient(expected, [queries, candidates]), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-6)


def test_what_is_added_to_single_scores_is_trained_too() -> None:
    rng = np.random.default_rng(0)
    queries, candidates = (rng.normal(size=(n, 3)).astype(np.float32) for n in (3, 5))
    label, weight = np.array([0, 3, 1], np.int32), np.array([1.0, 0.5, 2.0], np.float32)
    nothing = np.zeros(5, np.float32), np.zeros((0, 2), np.int32)
    repeated = np.array([[0, 0], [0, 4], [2, 1], [2, 1]], np.int32)  # one item twice
    added = tf.Variable(np.array([0.5, -1.0, 2.0, 0.25], np.float32))
    with tf.GradientTape() as tape:
        found = SampledRetrieval()(queries, candidates, label, weight, *nothing, repeated, added)
    gradient = tape.gradient(found, added)
    with tf.GradientTape() as tape:
        scores = tf.matmul(queries, candidates, transpose_b=True)
        scores += tf.scatter_nd(repeated, added, [3, 5])
        own = tf.reduce_sum(scores * tf.one_hot(label, 5), 1)
        expected = tf.reduce_mean((tf.reduce_logsumexp(scores, 1) - own) * weight)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(gradient, tape.gradient(expected, added), rtol=1e-4, atol=1e-6)


def test_weights_scale_the_losses() -> None:
    first, second = loss([[2.0, 0.0]]), loss([[0.5, 0.0]])
    both = loss([[2.0, 0.0], [0.5, 0.0]], weight=np.array([3.0, 1.0], np.float32))
    assert both == pytest.approx((3 * first + second) / 2, rel=1e-5)


def test_a_users_other_positives_are_masked_and_duplicates_are_not_listed() -> None:
    users = np.array([7, 8, 7, 7, 9], np.uint64)
    label = np.array([0, 1, 2, 0, 1], np.int32)
    pairs = same_user_positives(users, label)
    assert sorted(map(tuple, pairs.tolist())) == [(0, 2), (2, 0), (2, 0), (3, 2)]


def naive() -> tuple[FeaturesManifest, Vocabulary]:
    spec = FeatureSpec(
        context_categorical=("size", "place"),
        popularity_half_lives_days=(30.0,),
        popularity_by=("size", "place"),
    )
    manifest = FeaturesManifest(
        spec=spec, popularity_values={"size": ("S", "M"), "place": ("home",)}, vector_size=0
    )
    shares = {"size": np.array([0.25, 0.75], np.float32), "place": np.array([1.0], np.float32)}
    values = {"context_size": ("S", "M"), "context_place": ("home",), "item_id": ()}
    return manifest, Vocabulary(values, {}, shares, 1)


def test_the_popularity_part_is_initialised_to_naive_bayes() -> None:
    manifest, vocabulary = naive()
    part = PopularityPart(manifest, vocabulary)
    counts = np.array([[10.0, 4.0, 6.0, 0.0]], np.float32)
    z = part(np.array([np.nan], np.float32), counts).numpy()[0]
    a = 10.0
    expected = [
        math.log(10 + 0.3),
        math.log((4 + a * 0.25) / (10 + a) / 0.25),
        math.log((6 + a * 0.75) / (10 + a) / 0.75),
        math.log((0 + a * 1.0) / (10 + a) / 1.0),
    ]
    np.testing.assert_allclose(z, expected, rtol=1e-5)
    tower = QueryTower(TrainSettings(learned_size=4), manifest, vocabulary)
    gates = tower(
        {
            "context_size": tf.constant(["M", "", "XXL"]),
            "context_place": tf.constant(["home", "home", ""]),
            "history_content": tf.zeros([3, 2, 5]),
            "history_event_type": tf.constant([["", ""]] * 3),
            "history_age_days": tf.zeros([3, 2]),
        }
    ).numpy()[:, 4:]
    np.testing.assert_array_equal(gates, [[1, 0, 1, 1], [1, 0, 0, 1], [1, 0, 0, 0]])


def test_towers_of_popularity_are_naive_bayes_and_keep_its_gates() -> None:
    manifest, vocabulary = naive()
    tower = QueryTower(TrainSettings(learned_size=4, towers="popularity"), manifest, vocabulary)
    embedding = tower(
        {
            "context_size": tf.constant(["M"]),
            "context_place": tf.constant(["home"]),
            "history_content": tf.ones([1, 2, 5]),
            "history_event_type": tf.constant([["purchase", ""]]),
            "history_age_days": tf.zeros([1, 2]),
        }
    )
    np.testing.assert_array_equal(embedding, [[0, 0, 0, 0, 1, 0, 1, 1]])
    assert not any("gates" in weight.name for weight in tower.trainable_weights)


def test_the_vocabulary_has_only_the_values_of_its_examples(features: Path) -> None:
    manifest = FeaturesManifest.read(features)
    popularity = read_snapshot(features, 3)[2]
    catalogue = read_catalogue(features)
    known = learn_vocabulary(manifest, features, catalogue, ("train",), popularity, 1)
    assert known.n_examples == 160
    assert len(known.values["item_brand"]) == 1
    assert "item-15" not in known.values["item_id"]
    assert known.values["context_size"][0] in ("S", "M")
    assert known.shares["size"].sum() == pytest.approx(1.0)
    assert known.scales["user_height"][0] == pytest.approx(170, abs=3)
    without = learn_vocabulary(manifest, features, catalogue, ("train",), popularity, 1, ids=False)
    assert without.values["item_id"] == ()


@pytest.mark.parametrize(("negatives", "lazy"), [(8, True), (64, False)])
def test_a_table_of_few_ids_is_trained_as_other_weights_with_its_penalty(
    features: Path, small: TrainSettings, negatives: int, lazy: bool
) -> None:
    manifest = FeaturesManifest.read(features)
    settings = small.model_copy(update={"uniform_negatives": negatives, "id_l2": 0.5})
    snapshots = Snapshots(manifest, features, 1)
    known = learn_vocabulary(
        manifest, features, read_catalogue(features), ("train",), read_snapshot(features, 3)[2], 9
    )
    model = TwoTowerModel(settings, manifest, known)
    folder = features.parent / f"examples-{negatives}"
    encode = model.query_tower.encode
    examples = write_examples(encode, manifest, features, ("train",), folder)
    encoded = encode_catalogue(model.item_tower.encode, manifest, read_catalogue(features))
    catalogue = {name: tf.constant(values) for name, values in encoded.items()}
    batch = read_items(Batches(settings, examples, snapshots).first, catalogue)
    before = float(model.compute_loss(batch))
    ids = model.item_tower.ids
    assert (model.lazy_ids is not None) is lazy
    assert any(weight is ids for weight in model.trainable_variables) is not lazy
    model._id_l2 = 0.0
    penalty = before - float(model.compute_loss(batch))
    expected = 0.0 if lazy else 0.5 * float(tf.reduce_sum(ids**2))
    assert penalty == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert lazy or expected > 0


def test_items_recur_if_the_latest_examples_are_of_items_with_many_earlier_ones(
    tmp_path: Path,
) -> None:
    (tmp_path / "examples").mkdir()
    pq.write_table(pa.table({"item_id": ["a", "b", "c"]}), tmp_path / CATALOGUE_FILE)
    examples = {
        "train": [0] * 12 + [1] * 9 + [2] * 59,
        "validation": [2] * 10 + [0, 1, 1, 2, 2] * 2,
    }
    for split, items in examples.items():
        table = pa.table({"item_index": pa.array(items, pa.int32())})
        pq.write_table(table, tmp_path / examples_file(split))
    # Of the latest ten, two are of item 0 with 12 earlier examples, four of item 1 with 9 and four
    # of item 2 with more.
    assert measure_recurrence(tmp_path, ("train", "validation")) == pytest.approx(0.6)


def make_batches(features: Path, settings: TrainSettings) -> Batches:
    n = 200
    rng = np.random.default_rng(0)
    columns = {
        "item": rng.integers(16, size=n, dtype=np.int32),
        "snapshot": np.sort(rng.integers(4, size=n, dtype=np.int32)),
        "user": np.arange(n, dtype=np.uint64),
        "weight": np.ones(n, np.float32),
        "time": np.arange(n, dtype=np.int64) * 86_400_000_000,
        "history": np.full((n, 3), -1, np.int32),
        "history_event_type": np.zeros((n, 3), np.int8),
        "history_age_days": np.zeros((n, 3), np.float32),
        "query/gates": np.zeros((n, 2), np.int32),
    }
    columns["history"][:, 0] = columns["item"]
    manifest = FeaturesManifest.read(features)
    return Batches(settings, EncodedExamples(columns), Snapshots(manifest, features, 1))


def test_an_epoch_has_every_example_once_with_its_positive_among_the_candidates(
    features: Path, small: TrainSettings
) -> None:
    batches = list(make_batches(features, small).of_epoch(1))
    assert sum(len(batch["label"]) for batch in batches) == 200
    ages = {float(batch["age_days"][0]) for batch in batches}
    assert ages == {0.0, 10.0, 20.0, 30.0}
    for batch in batches:
        # The newest item of each generated history is the example's own positive.
        positive = batch["item"][batch["label"]]
        np.testing.assert_array_equal(batch["item"][batch["history_row"][:, 0]], positive)
        assert (batch["history_row"][:, 1:] == -1).all()
        assert len(np.unique(batch["item"])) == len(batch["item"])
        assert (batch["log_probability"] < 0).all()


def test_epochs_differ_and_are_reproducible(features: Path, small: TrainSettings) -> None:
    batches = make_batches(features, small)
    first, again, second = (
        np.concatenate([batch["label"] for batch in batches.of_epoch(epoch)]) for epoch in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)


def test_all_items_are_candidates_if_there_are_few(features: Path, small: TrainSettings) -> None:
    settings = small.model_copy(update={"uniform_negatives": 16})
    for batch in make_batches(features, settings).of_epoch(1):
        assert len(batch["age_days"]) == 16
        assert (batch["log_probability"] == 0).all()


def test_recent_examples_have_larger_weights(features: Path, small: TrainSettings) -> None:
    settings = small.model_copy(update={"recency_half_life_days": 10.0})
    batches = list(make_batches(features, settings).of_epoch(1))
    weights = np.sort(np.concatenate([batch["weight"] for batch in batches]))
    assert weights[-1] / weights[-11] == pytest.approx(2.0, rel=1e-4)
    assert weights.mean() == pytest.approx(1.0, rel=1e-4)


def test_stale_training_uses_older_snapshots(features: Path, small: TrainSettings) -> None:
    settings = small.model_copy(update={"max_staleness_days": 40.0})
    counted = {0.0: 0, 30.0: 0}
    for batch in make_batches(features, settings).of_epoch(1):
        age = float(batch["age_days"][0])
        counted[age] = counted.get(age, 0) + len(batch["label"])
    assert counted[0.0] > counted[30.0]
