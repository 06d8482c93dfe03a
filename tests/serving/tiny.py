"""A tiny marketplace as bundles that are whole and real but for their towers, made at random."""

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from refit.bundle import Bundle, assemble_bundle
from refit.features import FeaturesManifest, FeatureSpec, item_inputs
from refit.files import checksum, write_json
from refit.index import IndexManifest
from refit.live_features import write_live_features
from refit.registry import Registry
from refit.served import write_served
from serving.processes import Process
from tests.factories import name_subject

REPEAT_DAYS = 3.5
"""Events younger than this find their items again, and older ones rank them behind all others."""
N_LIVE, N_GONE, N_USERS, D, C = 200, 5, 30, 16, 8
AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
BRANDS = ("acne", "ganni", "toteme", "cos")
SIZES = ("S", "M", "L")
OCCASIONS = ("party", "work")
SPEC = FeatureSpec(
    item_categorical=("brand", "category_1"),
    item_numeric=("price",),
    item_vector="image_embedding",
    context_categorical=("occasion",),
    context_numeric=("age",),
    user_categorical=("city",),
    history_length=5,
    popularity_half_lives_days=(7.0,),
    popularity_by=("occasion", "age"),
    popularity_bins={"age": (30.0,)},
)
FEATURES = FeaturesManifest(
    spec=SPEC,
    popularity_values={"occasion": OCCASIONS, "age": ("0", "1")},
    vector_size=3,
    dataset_fingerprint="f00",
)


def item_id(row: int) -> str:
    return f"item-{row}"


def make_model(
    folder: Path,
    seed: int,
    nan_queries: bool = False,
    nan_at: str = "",
    in_process: bool = False,
    repeats: bool = False,
) -> Path:
    """A model folder whose towers are random but depend on every input they should.

    Queries are NaN with ``nan_queries`` always, else on the occasion ``nan_at``. With
    ``in_process`` the query tower also runs in process, where it only knows ``OCCASIONS``. With
    ``repeats`` an event adds to its item's score, by its age; see ``REPEAT_DAYS``.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    by_id = tf.constant(rng.normal(size=(997, D)), tf.float32)
    by_brand = tf.constant(rng.normal(size=(97, C)), tf.float32)
    by_popularity = tf.constant(rng.normal(size=(FEATURES.popularity_size, D)), tf.float32)
    by_image = tf.constant(rng.normal(size=(3, D)), tf.float32)
    by_occasion = tf.constant(rng.normal(size=(97, D)), tf.float32)
    history_weights = tf.constant(rng.normal(size=(C, D)), tf.float32)

    def named(**shapes):
        """Strings where the shape starts with "s", floats otherwise."""
        return [
            {
                name: tf.TensorSpec(
                    [None, *(n for n in shape if n != "s")],
                    tf.string if shape[:1] == ("s",) else tf.float32,
                    name=name,
                )
                for name, shape in shapes.items()
            }
        ]

    def pick(table, texts):
        return tf.gather(table, tf.strings.to_hash_bucket_fast(texts, table.shape[0]))

    @tf.function(
        input_signature=named(
            item_id=("s",),
            item_brand=("s",),
            item_category_1=("s",),
            item_price=(),
            item_vector=(3,),
            item_age_days=(),
            item_popularity=(FEATURES.popularity_size,),
        )
    )
    def item_tower(inputs):
        vector = pick(by_id, inputs["item_id"])
        vector += tf.tanh(
            inputs["item_popularity"] @ by_popularity + inputs["item_vector"] @ by_image
        )
        vector += tf.exp(-inputs["item_age_days"] / 30)[:, None] * by_image[0]
        content = pick(by_brand, inputs["item_brand"])
        return {"embedding": tf.math.l2_normalize(vector, axis=-1), "content": content}

    @tf.function(
        input_signature=named(
            context_occasion=("s",),
            context_age=(),
            user_city=("s",),
            history_content=(SPEC.history_length, C),
            history_event_type=("s", SPEC.history_length),
            history_age_days=(SPEC.history_length,),
        )
    )
    def query_tower(inputs):
        context = pick(by_occasion, tf.strings.join([inputs["context_occasion"], "?"]))
        spoilt = tf.equal(inputs["context_occasion"], nan_at or "none") | nan_queries
        return embed_query(inputs, context, spoilt)

    def embed_query(inputs, context, spoilt):
        fresh = tf.exp(-inputs["history_age_days"] / 30)[..., None]
        history = tf.reduce_sum(inputs["history_content"] * fresh, axis=1)
        vector = tf.matmul(history, history_weights) + context
        vector = tf.math.l2_normalize(vector, axis=-1)
        outputs = {"embedding": tf.where(spoilt[:, None], float("nan"), vector)}
        if repeats:
            there = tf.reduce_any(inputs["history_content"] != 0.0, axis=2)
            added = REPEAT_DAYS - inputs["history_age_days"]
            outputs["repeats"] = tf.where(there, added, 0.0)
        return outputs

    for name, tower in (("item_tower", item_tower), ("query_tower", query_tower)):
        module = tf.Module()
        module.tower = tower
        signature = tower.get_concrete_function()
        path = folder / name / "1"
        tf.saved_model.save(module, str(path), signatures={"serving_default": signature})
    if in_process:
        from components.training.in_process import write_in_process_tower

        texts = ["", *OCCASIONS]
        contexts = pick(by_occasion, tf.constant([f"{text}?" for text in texts]))
        spoilt_at = texts.index(nan_at) if nan_at else -1
        signature = {
            "code": tf.TensorSpec([1], tf.int32, "code"),
            "history_content": tf.TensorSpec(
                [1, SPEC.history_length, C], tf.float32, "history_content"
            ),
            "history_age_days": tf.TensorSpec(
                [1, SPEC.history_length], tf.float32, "history_age_days"
            ),
        }

        @tf.function(input_signature=[signature], autograph=False)
        def coded_query_tower(coded):
            spoilt = tf.equal(coded["code"], spoilt_at) | nan_queries
            return embed_query(coded, tf.gather(contexts, coded["code"]), spoilt)

        codes = {"code": {"input": "context_occasion", "texts": texts}}
        write_in_process_tower(coded_query_tower, [], codes, folder / "query_tower")
    FEATURES.write(folder)
    embedding_version = checksum(folder / "item_tower") + checksum(folder / "query_tower")
    write_json(
        folder / "model.json", {"embedding_version": embedding_version[56:72], "packages": {}}
    )
    return folder


def make_items(seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    n = N_LIVE + N_GONE
    return pa.table(
        {
            "item_id": [item_id(row) for row in range(n)],
            "seller_id": [None if row % 10 == 9 else f"user-{row % 20}" for row in range(n)],
            "brand": [BRANDS[row % len(BRANDS)] for row in range(n)],
            "category_1": [None if row % 7 == 0 else "dress" for row in range(n)],
            "size": [SIZES[row % len(SIZES)] for row in range(n)],
            "price": np.round(rng.uniform(5, 100, n), 2),
            "live": [row < N_LIVE for row in range(n)],
        }
    )


def make_histories() -> pa.Table:
    """User u viewed items u+3, u+2, u+1 and bought item u, newest first; user 29 did nothing."""
    users = range(N_USERS)
    rows = [[u + 3, u + 2, u + 1, u] if u < 29 else [] for u in users]
    types = [["view", "view", "like", "purchase"] if u < 29 else [] for u in users]
    times = [[AS_OF - timedelta(days=d) for d in (1, 2, 3, 4)] if u < 29 else [] for u in users]
    return pa.table(
        {
            "user_id": [f"user-{u}" for u in users],
            "city": ["Lund"] * N_USERS,
            "item_row": pa.array(rows, pa.list_(pa.int32())),
            "event_type": pa.array(types, pa.list_(pa.string())),
            "event_time": pa.array(times, pa.list_(pa.timestamp("us", "UTC"))),
        }
    )


def make_user_items(*pairs: tuple[int, int]) -> pa.Table:
    """Purchases or hides: which user has bought or hidden which item, by their rows."""
    users, items = zip(*pairs, strict=True) if pairs else ((), ())
    return pa.table(
        {"user_row": pa.array(users, pa.int32()), "item_row": pa.array(items, pa.int32())}
    )


def make_popularity() -> pa.Table:
    """At parties items 0..9 are popular, over all items 50..99."""
    entries = [
        ("", "", list(range(50, 100)), [1 / (i + 1) for i in range(50)]),
        ("occasion", "party", list(range(10)), [10.0 - i for i in range(10)]),
        ("age", "1", [42], [1.0]),
    ]
    columns = list(zip(*entries, strict=True))
    return pa.table(
        {
            "column": columns[0],
            "value": columns[1],
            "item_row": pa.array(columns[2], pa.list_(pa.int32())),
            "score": pa.array(columns[3], pa.list_(pa.float32())),
        }
    )


def make_index(folder: Path, model: Path, seed: int = 0, dimension: int = D) -> Path:
    """The index folder of the towers in ``model``."""
    import tensorflow as tf

    items = make_items(seed)
    n = items.num_rows
    columns = {name: items[name].to_pylist() for name in items.column_names}
    rng = np.random.default_rng(seed)
    columns["image_embedding"] = rng.normal(size=(n, 3)).astype(np.float32)
    popularity = rng.poisson(0.3, (n, FEATURES.popularity_size)).astype(np.float32)
    ages = rng.uniform(0, 60, n).astype(np.float32)
    inputs = item_inputs(SPEC, columns, ages, popularity)
    tower = tf.saved_model.load(str(model / "item_tower" / "1")).signatures["serving_default"]
    outputs = tower(**{name: tf.constant(values) for name, values in inputs.items()})
    vectors = outputs["embedding"].numpy()[:N_LIVE, :dimension].copy()
    folder.mkdir(parents=True)
    index = faiss.IndexFlatIP(dimension)
    index.add(vectors)
    faiss.write_index(index, str(folder / "index.faiss"))
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "content.npy", outputs["content"].numpy())
    pq.write_table(items, folder / "items.parquet", row_group_size=64)
    write_live_features(
        folder, ages[:N_LIVE], popularity[:N_LIVE], columns["image_embedding"][:N_LIVE]
    )
    pq.write_table(make_histories(), folder / "histories.parquet")
    bought = [(user, user) for user in range(29)]
    last = N_LIVE + N_GONE
    pq.write_table(make_user_items(*bought, (29, last)), folder / "purchases.parquet")
    pq.write_table(make_user_items((4, 60), (4, last)), folder / "hides.parquet")
    delisted = pa.table({"item_id": pa.array(["long-gone"], pa.string())})
    pq.write_table(delisted, folder / "delisted_items.parquet")
    pq.write_table(make_popularity(), folder / "popularity.parquet")
    write_served(folder, N_LIVE)
    IndexManifest(
        embedding_version=json.loads((model / "model.json").read_text())["embedding_version"],
        kind="flat",
        dimension=dimension,
        n_live=N_LIVE,
        n_items=n,
        recall_at_100=1.0,
        n_queries=1,
        latency_ms={},
        as_of=AS_OF,
    ).write(folder)
    return folder


def make_bundle(root: Path, model: Path, seed: int = 0, dimension: int = D) -> Bundle:
    """A whole bundle under ``root``."""
    number = len(list(root.iterdir())) if root.exists() else 0
    parts = root / f"parts-{number}"
    index = make_index(parts / "index", model, seed, dimension)
    embedding_version = json.loads((model / "model.json").read_text())["embedding_version"]
    write_json(parts / "reference" / "thresholds.json", {"embedding_version": embedding_version})
    verdict = {"passed": True, "reasons": [], "measurements": {}, "checks": []}
    write_json(parts / "evaluation" / "verdict.json", verdict)
    name_subject(parts, model)
    return assemble_bundle(
        model=model,
        index=index,
        evaluation=parts / "evaluation",
        reference=parts / "reference",
        out_root=root / f"bundles-{number}",
    )


def promote(registry: Path, bundle: Bundle) -> None:
    store = Registry(registry)
    store.add(bundle)
    store.promote(bundle.bundle_id, by="a test", reason="it is wanted", force=True)


def start_model_server(port: int, log: Path) -> Process:
    command = [sys.executable, "-m", "serving.model_server", "--port", str(port)]
    server = Process("model server", command, log)
    server.wait_until(lambda: "model server listens" in server.output(), 120)
    return server


NOW = (AS_OF + timedelta(days=1)).isoformat()
ITEMS = make_items(0)
PRICES = dict(zip(ITEMS["item_id"].to_pylist(), ITEMS["price"].to_pylist(), strict=True))
LIVE = {item_id(row) for row in range(N_LIVE)}


LATER = (AS_OF + timedelta(hours=1)).isoformat()
MUCH_LATER = (AS_OF + timedelta(hours=2)).isoformat()
EARLIER = (AS_OF - timedelta(hours=1)).isoformat()
NEW = {
    "item_id": "new-1",
    "change": "listed",
    "at": LATER,
    "seller_id": "user-5",
    "brand": "acne",
    "category_1": "dress",
    "size": "M",
    "price": 55.0,
    "image_embedding": [0.1, 0.2, 0.3],
}


def ids(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def gone(item_id: str, at: str = LATER) -> dict:
    return {"item_id": item_id, "change": "delisted", "at": at}


def every_item(recommender, **request) -> list[str]:
    """All that may come back, which k = 500 of 200 live items shows."""
    answer = recommender.recommend({"k": 500, "time": NOW, **request})
    assert len(set(ids(answer))) == len(ids(answer))
    return ids(answer)
