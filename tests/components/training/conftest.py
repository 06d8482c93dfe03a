"""A features folder of sixteen items, three taste groups and two months."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.training.settings import TrainSettings
from refit.feature_tables import examples_file, snapshot_file
from refit.features import FeaturesManifest, FeatureSpec

N_ITEMS, N_GROUPS, WIDTH, LENGTH = 16, 3, 4, 3
START = datetime(2024, 1, 1, tzinfo=UTC)
SIZES = ("S", "M")
DAYS = {"train": (0, 40), "validation": (40, 50), "test": (50, 60)}
SPEC = FeatureSpec(
    item_categorical=("brand",),
    item_numeric=("price",),
    item_text=("title",),
    item_vector="picture",
    context_categorical=("size",),
    context_numeric=("age",),
    user_categorical=("country",),
    user_numeric=("height",),
    history_length=LENGTH,
    popularity_half_lives_days=(7.0, 30.0),
    popularity_by=("size", "age"),
    popularity_bins={"age": (30.0, 50.0)},
    snapshot_every_days=10,
)
SMALL = TrainSettings(
    batch_size=32,
    uniform_negatives=8,
    max_epochs=3,
    learning_rate=0.01,
    learned_size=8,
    content_size=6,
    hidden_size=8,
    text_buckets=64,
    text_words=4,
    id_embedding="always",
    repeats=True,
)


def manifest() -> FeaturesManifest:
    return FeaturesManifest(
        spec=SPEC,
        popularity_values={"size": SIZES, "age": ("0", "1", "2")},
        vector_size=WIDTH,
        snapshots=tuple(START + timedelta(days=10 * i) for i in range(7)),
        dataset_fingerprint="by hand",
    )


def write_features(folder: Path, test_item: int = 0) -> Path:
    """Group g prefers the items i with i % 3 == g; groups 0 and 1 have size S in their context."""
    rng = np.random.default_rng(7)
    features = manifest()
    (folder / "examples").mkdir(parents=True)
    (folder / "snapshots").mkdir()
    pictures = rng.normal(size=(N_ITEMS, WIDTH)).astype(np.float32)
    pq.write_table(
        pa.table(
            {
                "item_id": [f"item-{i}" for i in range(N_ITEMS)],
                "seller_id": pa.nulls(N_ITEMS, pa.string()),
                "brand": [None if i == 5 else f"brand-{i % N_GROUPS}" for i in range(N_ITEMS)],
                "price": pa.array([None if i == 6 else 10.0 * i for i in range(N_ITEMS)]),
                "title": [f"Nice, warm coat {i % N_GROUPS}" for i in range(N_ITEMS)],
                "picture": pa.array(list(pictures), pa.list_(pa.float32())),
                "known_at": pa.array([START] * N_ITEMS, pa.timestamp("us", "UTC")),
                "gone_at": pa.nulls(N_ITEMS, pa.timestamp("us", "UTC")),
            }
        ),
        folder / "items.parquet",
    )
    for i in range(7):
        counts = rng.gamma(2.0, size=(N_ITEMS, features.popularity_size)).astype(np.float32)
        flat = pa.array(counts.reshape(-1))
        table = pa.table(
            {
                "item_index": np.arange(N_ITEMS, dtype=np.int32),
                "age_days": np.full(N_ITEMS, 10.0 * i, np.float32),
                "popularity": pa.FixedSizeListArray.from_arrays(flat, features.popularity_size),
            }
        )
        pq.write_table(table, folder / snapshot_file(i))
    for split, (first, last) in DAYS.items():
        rows = _examples(rng, 160 if split == "train" else 48, first, last)
        if split == "test":
            rows["item_index"] = pa.array([test_item] * 48, pa.int32())
        pq.write_table(pa.table(rows), folder / examples_file(split))
    features.write(folder)
    return folder


def _examples(rng: np.random.Generator, n: int, first: int, last: int) -> dict[str, Any]:
    day = np.sort(rng.uniform(first, last, n))
    group = rng.integers(N_GROUPS, size=n)
    item = group + N_GROUPS * rng.integers(N_ITEMS // N_GROUPS, size=n)
    past = [[int(g + N_GROUPS * k) for k in range(i % (LENGTH + 1))] for i, g in enumerate(group)]
    return {
        "user_id": [f"user-{i}" for i in rng.integers(40, size=n)],
        "item_index": pa.array(item, pa.int32()),
        "event_type": ["purchase"] * n,
        "event_time": pa.array(
            [START + timedelta(days=float(d)) for d in day], pa.timestamp("us", "UTC")
        ),
        "weight": np.ones(n, np.float32),
        "snapshot": pa.array(day // 10, pa.int32()),
        "size": [SIZES[int(g == 2)] if i % 7 else None for i, g in enumerate(group)],
        "age": pa.array([None if i % 5 == 0 else 20.0 + 15 * g for i, g in enumerate(group)]),
        "country": ["FR"] * n,
        "height": pa.array(rng.normal(170, 10, n).astype(np.float32)),
        "history_item": pa.array(past, pa.list_(pa.int32())),
        "history_event_type": [["purchase"] * len(p) for p in past],
        "history_age_days": pa.array([[1.0] * len(p) for p in past], pa.list_(pa.float32())),
        "is_new_user": [not p for p in past],
        "is_new_item": [False] * n,
    }


@pytest.fixture(scope="session")
def small() -> TrainSettings:
    return SMALL


@pytest.fixture(scope="session")
def make_features() -> Callable[..., Path]:
    return write_features


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("training") / "features")


@pytest.fixture
def two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut batches of ordered histories into two parts: each is traced, which takes the time."""
    monkeypatch.setattr("components.training.sequence.PARTS", 2)
