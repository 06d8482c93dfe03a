"""Tiny, valid features, model and index folders with known answers, for the tests of the steps.

The market: every item stands at an angle on the unit circle (its columns ``x`` and ``y``), and
every query says in its context where on the circle it wants something (``want_x``, ``want_y``). A
model that returns just that ranks the chosen item first, always.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from refit.eligibility import MarketSettings
from refit.feature_tables import (
    AWAY_FILE,
    CATALOGUE_FILE,
    HIDES_FILE,
    HISTORIES_FILE,
    PURCHASES_FILE,
    REQUESTS,
    SPLITS,
    examples_file,
    snapshot_file,
)
from refit.features import FeaturesManifest, FeatureSpec
from refit.files import checksum, write_json
from refit.index import INDEX_FILE, ITEMS_FILE, VECTORS_FILE, IndexManifest
from refit.subject import VerdictSubject

START = datetime(2026, 1, 1, tzinfo=UTC)
UTC_TIME = pa.timestamp("us", "UTC")
BRANDS, SIZES, OCCASIONS = ("acne", "cos", "ganni", "toteme"), ("S", "M", "L"), ("party", "work")

SPEC = FeatureSpec(
    item_categorical=("brand", "category_1", "size"),
    item_numeric=("price", "x", "y"),
    context_categorical=("occasion",),
    context_numeric=("want_x", "want_y"),
    history_length=3,
    popularity_half_lives_days=(7.0,),
    popularity_by=("occasion",),
)
MANIFEST = FeaturesManifest(
    spec=SPEC,
    market=MarketSettings(stock="replenishable"),
    popularity_values={"occasion": OCCASIONS},
    vector_size=0,
    dataset_fingerprint="f00",
    undeclared=(),
)


def day(number: float) -> datetime:
    """A moment so many days after the start."""
    return START + timedelta(days=number)


def example(user: str, item: int, at: float, **more: Any) -> dict[str, Any]:
    """An example row of ``write_features``: who took which item on which day."""
    return {
        "user_id": user,
        "item": item,
        "at": at,
        "occasion": "party",
        "want_x": 0.0,
        "want_y": 0.0,
        **more,
    }


def item(number: int, **more: Any) -> dict[str, Any]:
    """An item row of ``write_features``."""
    return {
        "item_id": f"i{number}",
        "brand": "cos",
        "category_1": "dress",
        "size": "M",
        "price": 1.0,
        "x": 0.0,
        "y": 0.0,
        **more,
    }


def write_features(
    folder: Path,
    items: Sequence[Mapping[str, Any]],
    examples: Mapping[str, Sequence[Mapping[str, Any]]],
    snapshots: Sequence[float],
    manifest: FeaturesManifest = MANIFEST,
) -> Path:
    """Write a features folder.

    Args:
        folder: Where to.
        items: By item index: ``item_id`` and any column; ``known_at`` and ``gone_at`` in days, and
            ``away``: pairs of days between which the item was not on sale.
        examples: By split, rows with ``user_id``, ``item`` and ``at`` in days, and what else is
            known; histories are made of the earlier rows of all splits. Without ``requests`` those
            are the rows of the test. ``hides`` are what users have hidden.
        snapshots: Times in days; the last one is the end. An example's snapshot is the latest one
            at or before it.
        manifest: Spec and counted values.
    """
    (folder / "snapshots").mkdir(parents=True)
    (folder / "examples").mkdir()
    manifest.model_copy(update={"snapshots": tuple(day(s) for s in snapshots)}).write(folder)
    pq.write_table(_items(items, manifest.spec), folder / CATALOGUE_FILE)
    pq.write_table(_away(items), folder / AWAY_FILE)
    rows = sorted(
        ({"split": split, **row} for split in SPLITS for row in examples[split]),
        key=lambda row: (row["at"], row["user_id"], row["item"]),
    )
    starts = {split: min((r["at"] for r in examples[split]), default=0.0) for split in SPLITS}
    for split in SPLITS:
        chosen = [row for row in rows if row["split"] == split]
        table = _examples(rows, chosen, starts[split], snapshots, manifest.spec)
        pq.write_table(table, folder / examples_file(split))
    asked = sorted(examples.get(REQUESTS, examples["test"]), key=lambda row: row["at"])
    table = _examples(rows, asked, starts["test"], snapshots, manifest.spec)
    pq.write_table(table, folder / examples_file(REQUESTS))
    for i, at in enumerate(snapshots):
        until = snapshots[i + 1] if i + 1 < len(snapshots) else at + 1e-9
        pq.write_table(_snapshot(items, rows, at, until, manifest), folder / snapshot_file(i))
    pq.write_table(_histories(rows), folder / HISTORIES_FILE)
    bought = [row for row in rows if row.get("event_type", "purchase") == "purchase"]
    pq.write_table(_user_items(bought), folder / PURCHASES_FILE)
    pq.write_table(_user_items(examples.get("hides", ())), folder / HIDES_FILE)
    return folder


def make_market(
    folder: Path, n_items: int = 60, n_users: int = 40, rolling: bool = False, seed: int = 0
) -> Path:
    """A features folder of a market whose queries want exactly the item they choose.

    30 days of training, 5 of validation, 10 of test; a tenth of the items is listed late, another
    tenth is sold by its last event, sellers are users, one in ten items has none.
    """
    random = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(n_items) / n_items
    items: list[dict[str, Any]] = [
        {
            "item_id": f"item-{i}",
            "seller_id": None if i % 10 == 9 else f"user-{i % 7}",
            "brand": BRANDS[i % 4],
            "category_1": ("dress", "shoes")[i % 2],
            "size": SIZES[i % 3],
            "price": 10.0 + i,
            "x": float(np.cos(angle[i])),
            "y": float(np.sin(angle[i])),
            "known_at": 36.0 if i % 10 == 5 else 0.0,
        }
        for i in range(n_items)
    ]
    examples: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for split, first, last, n in (
        ("train", 0, 30, 10 * n_users),
        ("validation", 30, 35, 3 * n_users),
        ("test", 35, 45, 6 * n_users),
    ):
        for at in np.sort(random.uniform(first, last, n)):
            user = int(random.integers(7, n_users))
            item = int(random.integers(n_items))
            if items[item]["known_at"] > at:
                item -= 1
            examples[split].append(
                {
                    "user_id": f"user-{user}",
                    "item": item,
                    "at": float(at),
                    "occasion": OCCASIONS[item % 2],
                    "want_x": items[item]["x"],
                    "want_y": items[item]["y"],
                }
            )
    for i in range(7, n_items, 10):
        sold = [row["at"] for rows in examples.values() for row in rows if row["item"] == i]
        items[i]["gone_at"] = max(sold, default=44.0)
    # People who look, and buy nothing.
    visits = [
        {**row, "user_id": f"visitor-{i % 30}", "event_type": "view", "at": row["at"] + 0.01}
        for i, row in enumerate(examples["test"])
        if "gone_at" not in items[row["item"]] and row["at"] < 44.9
    ]
    examples[REQUESTS] = [*examples["test"][::4], *visits]
    snapshots = [0.0, 30.0, *((35.0, 38.0, 41.0) if rolling else (35.0,)), 45.0]
    return write_features(folder, items, examples, snapshots)


def make_model(
    folder: Path, manifest: FeaturesManifest = MANIFEST, kind: str = "perfect", dimension: int = 8
) -> Path:
    """A model folder with towers of known answers.

    Args:
        folder: Where to.
        manifest: The features' manifest; the spec must be that of this module, or like it.
        kind: ``perfect`` wants what the query says; ``last`` wants the latest item of the history;
            ``random`` knows nothing; ``nan`` is broken.
        dimension: Vector size of the random towers.
    """
    import tensorflow as tf

    spec = manifest.spec
    text, number = tf.string, tf.float32
    item_spec = {"item_id": (text, [])}
    item_spec |= {f"item_{name}": (text, []) for name in (*spec.item_categorical, *spec.item_text)}
    item_spec |= {f"item_{name}": (number, []) for name in spec.item_numeric}
    item_spec |= {
        "item_age_days": (number, []),
        "item_popularity": (number, [manifest.popularity_size]),
    }
    if spec.item_vector:
        item_spec["item_vector"] = (number, [manifest.vector_size])
    query_spec = {f"context_{name}": (text, []) for name in spec.context_categorical}
    query_spec |= {f"context_{name}": (number, []) for name in spec.context_numeric}
    query_spec |= {f"user_{name}": (text, []) for name in spec.user_categorical}
    query_spec |= {f"user_{name}": (number, []) for name in spec.user_numeric}
    query_spec |= {
        "history_content": (number, [spec.history_length, 2]),
        "history_event_type": (text, [spec.history_length]),
        "history_age_days": (number, [spec.history_length]),
    }

    def noise(texts: Any, salt: str) -> Any:
        columns = [tf.strings.join([texts, f"{salt}{i}"]) for i in range(dimension)]
        buckets = [tf.strings.to_hash_bucket_fast(column, 1 << 20) for column in columns]
        return tf.stack([tf.cast(b, number) / (1 << 19) - 1.0 for b in buckets], axis=1)

    def embed_item(inputs: dict[str, Any]) -> dict[str, Any]:
        content = tf.stack([inputs["item_x"], inputs["item_y"]], axis=1)
        embedding = content if kind in ("perfect", "last") else noise(inputs["item_id"], "i")
        return {"embedding": embedding * _nan(kind), "content": content}

    def embed_query(inputs: dict[str, Any]) -> dict[str, Any]:
        wanted = tf.stack([inputs["context_want_x"], inputs["context_want_y"]], axis=1)
        if kind == "last":
            return {"embedding": inputs["history_content"][:, 0]}
        lengths = tf.reduce_sum(inputs["history_age_days"], axis=1)
        names = tf.strings.join([tf.strings.as_string(lengths), tf.strings.as_string(wanted[:, 0])])
        return {"embedding": wanted if kind == "perfect" else noise(names, "q")}

    for name, answer, inputs in (
        ("item_tower", embed_item, item_spec),
        ("query_tower", embed_query, query_spec),
    ):
        signature = {
            key: tf.TensorSpec([None, *shape], kind_, name=key)
            for key, (kind_, shape) in inputs.items()
        }
        module = tf.Module()
        module.run = tf.function(answer, input_signature=[signature])
        concrete = module.run.get_concrete_function()
        path = folder / name / "1"
        tf.saved_model.save(module, str(path), signatures={"serving_default": concrete})
    manifest.write(folder)
    embedding_version = checksum(folder / "item_tower")[:8] + checksum(folder / "query_tower")[:8]
    trained_until = manifest.snapshots[1] if len(manifest.snapshots) > 1 else day(0.0)
    written = {"embedding_version": embedding_version, "trained_until": trained_until.isoformat()}
    write_json(folder / "model.json", written)
    return folder


def make_index(
    folder: Path,
    features: Path,
    model: Path,
    embedding_version: str | None = None,
    recall: float = 1.0,
) -> Path:
    """An exact index folder over the items live at the end, as far as judging reads it."""
    import faiss

    from refit.feature_tables import ItemTable, read_catalogue, read_snapshot
    from refit.features import item_inputs
    from refit.files import read_json
    from refit.towers import load_tower, run_tower

    manifest = FeaturesManifest.read(features)
    spec = manifest.spec
    live, age_days, popularity = read_snapshot(features, len(manifest.snapshots) - 1)
    table = ItemTable(read_catalogue(features).table.take(live))
    columns = {n: table.strings(n) for n in ("item_id", *spec.item_categorical, *spec.item_text)}
    columns |= {n: table.numbers(n) for n in spec.item_numeric}
    inputs = item_inputs(spec, columns, age_days, popularity)
    vectors = run_tower(load_tower(model / "item_tower"), inputs)["embedding"]
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    folder.mkdir(parents=True)
    faiss.write_index(index, str(folder / INDEX_FILE))
    np.save(folder / VECTORS_FILE, vectors)
    pq.write_table(pa.table({"item_id": columns["item_id"].tolist()}), folder / ITEMS_FILE)
    IndexManifest(
        embedding_version=embedding_version or read_json(model / "model.json")["embedding_version"],
        kind="flat",
        dimension=vectors.shape[1],
        n_live=len(live),
        n_items=len(live),
        recall_at_100=recall,
        n_queries=100,
        latency_ms={"p50": 0.1, "p99": 0.2},
        as_of=manifest.snapshots[-1],
    ).write(folder)
    return folder


def name_subject(parts: Path, model: Path | None = None) -> None:
    """Write into the verdict of hand-made parts that it judged them, as a gate does."""
    verdict = parts / "evaluation" / "verdict.json"
    if not verdict.is_file():
        return
    subject = VerdictSubject.of_folders(model or parts / "model", parts / "index")
    write_json(verdict, json.loads(verdict.read_text()) | {"subject": subject.model_dump()})


def _nan(kind: str) -> float:
    return float("nan") if kind == "nan" else 1.0


def _away(items: Sequence[Mapping[str, Any]]) -> pa.Table:
    rows = [
        {"item_index": i, "gone_at": day(gone), "back_at": day(back)}
        for i, one in enumerate(items)
        for gone, back in one.get("away", ())
    ]
    schema = pa.schema([("item_index", pa.int32()), ("gone_at", UTC_TIME), ("back_at", UTC_TIME)])
    return pa.Table.from_pylist(rows, schema)


def _items(items: Sequence[Mapping[str, Any]], spec: FeatureSpec) -> pa.Table:
    names = list(dict.fromkeys(name for item in items for name in item))
    columns: dict[str, Any] = {}
    for name in ("seller_id", *(n for n in names if n not in ("known_at", "gone_at", "away"))):
        values = [item.get(name) for item in items]
        number = name in spec.item_numeric or name == "price"
        columns[name] = pa.array(values, pa.float64() if number else pa.string())
    known = [day(item.get("known_at", 0.0)) for item in items]
    gone = [None if item.get("gone_at") is None else day(item["gone_at"]) for item in items]
    columns["known_at"], columns["gone_at"] = pa.array(known, UTC_TIME), pa.array(gone, UTC_TIME)
    return pa.table(columns)


def _past(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any], length: int) -> list[Any]:
    earlier = [r for r in rows if r["user_id"] == row["user_id"] and r["at"] < row["at"]]
    return earlier[::-1][:length]


def _examples(
    rows: Sequence[Mapping[str, Any]],
    chosen: Sequence[Mapping[str, Any]],
    start: float,
    snapshots: Sequence[float],
    spec: FeatureSpec,
) -> pa.Table:
    pasts = [_past(rows, row, spec.history_length) for row in chosen]
    users = {row["user_id"] for row in rows if row["at"] < start}
    items = {row["item"] for row in rows if row["at"] < start}

    def column(name: str, kind: pa.DataType, default: Any = None) -> pa.Array:
        return pa.array([row.get(name, default) for row in chosen], kind)

    number = np.searchsorted(snapshots, [row["at"] for row in chosen], side="right") - 1
    columns = {
        "user_id": column("user_id", pa.string()),
        "item_index": column("item", pa.int32()),
        "event_type": column("event_type", pa.string(), "purchase"),
        "event_time": pa.array([day(row["at"]) for row in chosen], UTC_TIME),
        "weight": column("weight", pa.float32(), 1.0),
        "snapshot": pa.array(number, pa.int32()),
        "history_item": pa.array([[r["item"] for r in p] for p in pasts], pa.list_(pa.int32())),
        "history_event_type": pa.array(
            [[r.get("event_type", "purchase") for r in p] for p in pasts], pa.list_(pa.string())
        ),
        "history_age_days": pa.array(
            [[row["at"] - r["at"] for r in p] for row, p in zip(chosen, pasts, strict=True)],
            pa.list_(pa.float32()),
        ),
        "is_new_user": pa.array([row["user_id"] not in users for row in chosen]),
        "is_new_item": pa.array([row["item"] not in items for row in chosen]),
    }
    for name in (*spec.context_categorical, *spec.user_categorical):
        columns[name] = column(name, pa.string())
    for name in (*spec.context_numeric, *spec.user_numeric):
        columns[name] = column(name, pa.float32())
    return pa.table(columns)


def _snapshot(
    items: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    at: float,
    until: float,
    manifest: FeaturesManifest,
) -> pa.Table:
    live = [
        i
        for i, item in enumerate(items)
        if item.get("known_at", 0.0) < until and (item.get("gone_at") or 1e9) >= at
    ]
    spec = manifest.spec
    counts = np.zeros((len(items), manifest.popularity_size), dtype=np.float32)
    for row in rows:
        if row["at"] >= at:
            continue
        cell = 0
        for half_life in spec.popularity_half_lives_days:
            weight = row.get("weight", 1.0) * 0.5 ** ((at - row["at"]) / half_life)
            counts[row["item"], cell] += weight
            cell += 1
            for name in spec.popularity_by:
                values = manifest.popularity_values[name]
                if row.get(name) in values:
                    counts[row["item"], cell + values.index(row[name])] += weight
                cell += len(values)
    flat = pa.array(counts[live].reshape(-1))
    return pa.table(
        {
            "item_index": pa.array(live, pa.int32()),
            "age_days": pa.array(
                [max(0.0, at - items[i].get("known_at", 0.0)) for i in live], pa.float32()
            ),
            "popularity": pa.FixedSizeListArray.from_arrays(flat, manifest.popularity_size),
        }
    )


def _user_items(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    first: dict[tuple[str, int], float] = {}
    for row in rows:
        pair = row["user_id"], row["item"]
        first[pair] = min(row["at"], first.get(pair, row["at"]))
    return pa.table(
        {
            "user_id": pa.array([user for user, _ in first], pa.string()),
            "item_index": pa.array([item for _, item in first], pa.int32()),
            "event_time": pa.array([day(at) for at in first.values()], UTC_TIME),
        }
    )


def _histories(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    users = sorted({row["user_id"] for row in rows})
    pasts = [[row for row in rows if row["user_id"] == user][::-1] for user in users]
    return pa.table(
        {
            "user_id": users,
            "item_index": pa.array([[r["item"] for r in p] for p in pasts], pa.list_(pa.int32())),
            "event_type": [[r.get("event_type", "purchase") for r in p] for p in pasts],
            "event_time": pa.array([[day(r["at"]) for r in p] for p in pasts], pa.list_(UTC_TIME)),
        }
    )
