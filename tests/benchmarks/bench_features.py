"""The speed of the features step.

Run: ``python tests/benchmarks/bench_features.py [events]``. The data is synthetic: 60 days, 20,000
live items a day with a mean lifetime of ten days, twenty events per user. It prints rows per second
and the peak memory of the process.
"""

import resource
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.features.build import build_features
from components.features.settings import FeatureSettings
from refit.dataset import EARLIER_FILE, DatasetManifest, Split
from refit.feature_tables import SPLITS, iter_examples, pad_histories, read_snapshot
from refit.features import FeatureSpec
from refit.progress import set_up_logging

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS, LIVE, LIFE_DAYS = 60, 20_000, 10
DAY_US = 86_400_000_000
TIME = pa.timestamp("us", tz="UTC")


def write_market(folder: Path, n_events: int) -> None:
    """Write a dataset folder with ``n_events`` random events."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    n_items, n_users = LIVE * DAYS // LIFE_DAYS, max(n_events // 20, 1)
    start_us = int(START.timestamp() * 1e6)
    listed = start_us + (rng.uniform(-LIFE_DAYS, DAYS, n_items) * DAY_US).astype(np.int64)
    gone = listed + (rng.exponential(LIFE_DAYS, n_items) * DAY_US).astype(np.int64)
    items = pa.table(
        {
            "item_id": names("item", np.arange(n_items)),
            "category_1": names("category", rng.integers(0, 20, n_items)),
            "price": rng.lognormal(3, 1, n_items),
            "listed_at": pa.array(listed, TIME),
            "delisted_at": pa.array(gone, TIME),
        }
    )
    at = np.sort(start_us + (rng.uniform(0, DAYS, n_events) * DAY_US).astype(np.int64))
    kinds = np.array(["view", "like", "purchase"])[rng.choice(3, n_events, p=[0.7, 0.2, 0.1])]
    events = pa.table(
        {
            "user_id": names("user", rng.integers(0, n_users, n_events)),
            "item_id": names("item", rng.integers(0, n_items, n_events)),
            "event_type": kinds,
            "event_time": pa.array(at, TIME),
            "size": names("size", rng.integers(0, 12, n_events)),
        }
    )
    users = pa.table({"user_id": names("user", np.arange(n_users))})
    for name, table in (("events", events), ("items", items), ("users", users)):
        pq.write_table(table, folder / f"{name}.parquet")
    lasting = events.select(["user_id", "item_id", "event_type", "event_time"])
    pq.write_table(lasting.slice(0, 0), folder / EARLIER_FILE)
    bounds = (START + timedelta(days=days) for days in (0, 48, 54, 60))
    split = Split(
        **dict(zip(("start", "validation_start", "test_start", "end"), bounds, strict=True))
    )
    DatasetManifest(
        source="synthetic", simulated=True, terms="", counts={}, split=split, fingerprint="none"
    ).write(folder)


def names(kind: str, numbers: np.ndarray) -> pa.Array:
    """Build ids such as item-12."""
    return pa.array(np.char.add(f"{kind}-", numbers.astype(str)))


def read_all(folder: Path, snapshots: int) -> None:
    """Read the folder once, as training does."""
    for split in SPLITS:
        for batch in iter_examples(folder, split, 4096):
            pad_histories(batch, 20)
    for i in range(snapshots):
        read_snapshot(folder, i)


def main() -> None:
    """Generate data, build features, read them, and print how long each took."""
    n_events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    set_up_logging()
    spec = FeatureSpec(
        item_categorical=("category_1",),
        item_numeric=("price",),
        context_categorical=("size",),
        popularity_by=("size",),
        event_weights={"view": 0.1, "like": 0.5, "purchase": 1.0},
    )
    with tempfile.TemporaryDirectory() as root:
        dataset, features = Path(root) / "dataset", Path(root) / "features"
        write_market(dataset, n_events)
        started = time.monotonic()
        manifest = build_features(FeatureSettings(spec=spec), dataset, features)
        built = time.monotonic()
        read_all(features, len(manifest.snapshots))
        read = time.monotonic()
        size = sum(path.stat().st_size for path in features.rglob("*.parquet"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = (
        f"events: {n_events:,}; history length {spec.history_length};"
        f" {len(manifest.snapshots)} snapshots of P = {manifest.popularity_size}",
        f"built in {built - started:.1f} s: {n_events / (built - started):,.0f} rows/s",
        f"read back in {read - built:.1f} s: {n_events / (read - built):,.0f} rows/s",
        f"on disk {size / 1e6:,.0f} MB, peak memory {peak:,.0f} MiB",
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
