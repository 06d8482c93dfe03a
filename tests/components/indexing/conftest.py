from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refit.features import FeaturesManifest, FeatureSpec
from refit.files import checksum, write_json

D, C = 16, 8
NOW = datetime(2025, 3, 1, tzinfo=UTC)
CATALOGUE, LIVE = 40, 30


def write_towers(manifest: FeaturesManifest, model: Path) -> None:
    """Export untrained towers, which hash and project, with the signatures of trained ones."""
    import tensorflow as tf

    spec = manifest.spec
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> tf.Variable:
        return tf.Variable(rng.normal(size=shape).astype(np.float32))

    def embed(table: tf.Variable, texts: list[tf.Tensor]) -> tf.Tensor:
        return tf.add_n([tf.gather(table, tf.strings.to_hash_bucket_fast(t, 997)) for t in texts])

    def text(name: str) -> tf.TensorSpec:
        return tf.TensorSpec([None], tf.string, name)

    def number(name: str, *shape: int) -> tf.TensorSpec:
        return tf.TensorSpec([None, *shape], tf.float32, name)

    names = ["item_id", *(f"item_{c}" for c in (*spec.item_categorical, *spec.item_text))]
    item = tf.Module()
    item.texts, item.to_embedding = normal(997, C), normal(C, D)
    item.fresh = normal(manifest.popularity_size, D)

    def item_tower(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        content = embed(item.texts, [inputs[name] for name in names])
        fresh = tf.matmul(tf.math.log1p(inputs["item_popularity"]), item.fresh)
        embedding = tf.matmul(content, item.to_embedding) + 0.1 * fresh
        return {"embedding": tf.math.l2_normalize(embedding, -1), "content": content}

    signature = {name: text(name) for name in names}
    signature |= {f"item_{c}": number(f"item_{c}") for c in spec.item_numeric}
    if spec.item_vector:
        signature["item_vector"] = number("item_vector", manifest.vector_size)
    signature["item_age_days"] = number("item_age_days")
    signature["item_popularity"] = number("item_popularity", manifest.popularity_size)
    item.call = tf.function(item_tower)
    tf.saved_model.save(
        item, str(model / "item_tower/1"), item.call.get_concrete_function(**signature)
    )

    sides = [("context", spec.context_categorical), ("user", spec.user_categorical)]
    texts = [f"{side}_{c}" for side, columns in sides for c in columns]
    query = tf.Module()
    query.texts, query.to_embedding = normal(997, C), normal(C, D)
    length = spec.history_length

    def query_tower(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        history = tf.reduce_sum(inputs["history_content"], 1)
        summed = history + embed(query.texts, [inputs[name] for name in texts])
        embedding = tf.matmul(summed, query.to_embedding)
        return {"embedding": tf.math.l2_normalize(embedding, -1)}

    signature = {name: text(name) for name in texts}
    for side, columns in (("context", spec.context_numeric), ("user", spec.user_numeric)):
        signature |= {f"{side}_{c}": number(f"{side}_{c}") for c in columns}
    signature["history_content"] = number("history_content", length, C)
    signature["history_event_type"] = tf.TensorSpec([None, length], tf.string)
    signature["history_age_days"] = number("history_age_days", length)
    query.call = tf.function(query_tower)
    tf.saved_model.save(
        query, str(model / "query_tower/1"), query.call.get_concrete_function(**signature)
    )
    manifest.write(model)
    write_json(model / "model.json", {"embedding_version": checksum(model / "item_tower")})


def write_features(folder: Path) -> FeaturesManifest:
    """40 items, the last 10 sold; four users, one with a sold item, one with an empty history.

    u0 bought a live and two sold items long ago, u3 hid a sold one.
    """
    spec = FeatureSpec(
        item_categorical=("brand",),
        item_numeric=("price",),
        context_categorical=("occasion",),
        history_length=3,
        popularity_half_lives_days=(7.0, 60.0),
        popularity_by=("occasion",),
    )
    manifest = FeaturesManifest(
        spec=spec,
        popularity_values={"occasion": ("wedding", "work")},
        vector_size=0,
        snapshots=(NOW - timedelta(days=1), NOW),
        dataset_fingerprint="f00",
    )
    (folder / "snapshots").mkdir(parents=True)
    (folder / "examples").mkdir()
    manifest.write(folder)
    numbers = range(CATALOGUE)
    pq.write_table(
        pa.table(
            {
                "item_id": [f"i{n}" for n in numbers],
                "seller_id": [f"s{n % 5}" for n in numbers],
                "brand": [None if n == 3 else f"b{n % 4}" for n in numbers],
                "price": [n + 0.99 for n in numbers],
                "known_at": pa.array([NOW - timedelta(days=n) for n in numbers]),
                "gone_at": pa.array([None if n < LIVE else NOW for n in numbers]),
            }
        ),
        folder / "items.parquet",
    )
    popularity = np.zeros((LIVE, 6), np.float32)
    popularity[:, 3] = np.arange(LIVE)  # 60 days, all events
    popularity[7, 4] = 100  # 60 days, wedding
    pq.write_table(
        pa.table(
            {
                "item_index": pa.array(range(LIVE), pa.int32()),
                "age_days": pa.array(range(LIVE), pa.float32()),
                "popularity": pa.FixedSizeListArray.from_arrays(popularity.reshape(-1), 6),
            }
        ),
        folder / "snapshots" / "1.parquet",
    )
    histories = [[2, 1], [35, 0], [4], []]
    pq.write_table(
        pa.table(
            {
                "user_id": ["u0", "u1", "u2", "u3"],
                "item_index": pa.array(histories, pa.list_(pa.int32())),
                "event_type": pa.array([["view"] * len(h) for h in histories]),
                "event_time": pa.array(
                    [[NOW - timedelta(days=1)] * len(h) for h in histories],
                    pa.list_(pa.timestamp("us", tz="UTC")),
                ),
            }
        ),
        folder / "histories.parquet",
    )
    for name, pairs in (
        ("purchases", [("u0", 9), ("u0", 39), ("u0", 35), ("u2", 38)]),
        ("hides", [("u3", 36)]),
    ):
        users, items = zip(*pairs, strict=True)
        pq.write_table(
            pa.table(
                {
                    "user_id": users,
                    "item_index": pa.array(items, pa.int32()),
                    "event_time": [NOW - timedelta(days=300)] * len(pairs),
                }
            ),
            folder / f"{name}.parquet",
        )
    for split in ("validation", "test"):
        pq.write_table(
            pa.table(
                {
                    "user_id": ["u0", "u1"],
                    "occasion": ["work", "wedding"],
                    "history_item": pa.array([[38], []], pa.list_(pa.int32())),
                    "history_event_type": pa.array([["view"], []], pa.list_(pa.string())),
                    "history_age_days": pa.array([[2.0], []], pa.list_(pa.float32())),
                }
            ),
            folder / "examples" / f"{split}.parquet",
        )
    return manifest


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A features folder and a model folder that match."""
    root = tmp_path_factory.mktemp("folders")
    write_towers(write_features(root / "features"), root / "model")
    return root / "features", root / "model"
