"""Time and memory of measuring a window: 100,000 vectors of 64, and a million items' attributes.

python -m tests.benchmarks.drift.cost
"""

import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from monitoring.measure import measure
from monitoring.reference import Reference, build_reference
from monitoring.settings import MeasureSettings
from monitoring.windows import MonitoredData, daily_windows
from refit.dataset import DatasetManifest, RowCounts, Split
from refit.files import write_json
from refit.prediction import build_predictions
from tests.benchmarks.drift.printing import print_row

START = datetime(2024, 3, 1, tzinfo=UTC)
DAYS, DIMENSION, DEPTH = 10, 64, 10
TOWERS = "towers"
CATEGORIES = np.array([f"category {i}" for i in range(40)])
BRANDS = np.array([f"brand {i}" for i in range(150)])


def _times(random: np.random.Generator, n: int, day: float, days: float) -> pa.Array:
    moments = np.sort(random.uniform(day, day + days, n)) * 86_400e6
    start = START.timestamp() * 1e6
    return pa.array((start + moments).astype(np.int64), pa.timestamp("us", tz="UTC"))


def _vectors(rows: Any) -> pa.Array:
    offsets = pa.array(np.arange(len(rows) + 1) * rows.shape[1], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(rows.astype(np.float32).ravel()))


def _items(random: np.random.Generator, n: int, day: float, days: float) -> pa.Table:
    """Listings with eight attributes, and no vectors."""

    def pick(values: Any) -> pa.Array:
        return pa.array(values).take(pa.array(random.integers(0, len(values), n)))

    return pa.table(
        {
            "item_id": pa.array([f"{day}-{i}" for i in range(n)]),
            "seller_id": pick(np.array([f"s{i}" for i in range(5000)])),
            "title": pick(np.array([f"title number {i}" for i in range(20_000)])),
            "category_1": pick(CATEGORIES),
            "brand": pick(BRANDS),
            "colour": pick(np.array([f"colour {i}" for i in range(12)])),
            "condition": pick(np.array(["new", "good", "worn"])),
            "price": pa.array(random.lognormal(3, 0.6, n)),
            "listed_at": _times(random, n, day, days),
        }
    )


def _answers(
    random: np.random.Generator, n: int, ids: pa.Array, day: float, days: float
) -> pa.Table:
    picked = ids.take(pa.array(random.integers(0, len(ids), n * DEPTH)))
    offsets = pa.array(np.arange(n + 1) * DEPTH, pa.int32())
    scores = np.sort(random.normal(0.7, 0.1, (n, DEPTH)))[:, ::-1]
    columns = {
        "request_id": pa.array([f"{day}-{i}" for i in range(n)]),
        "bundle_id": pa.array(["b1"] * n),
        "embedding_version": pa.array([TOWERS] * n),
        "user_id": pa.array([f"u{i}" for i in random.integers(0, n, n)]),
        "time": _times(random, n, day, days),
        "context": pa.array(["{}"] * n),
        "query_embedding": _vectors(random.normal(size=(n, DIMENSION))),
        "item_ids": pa.ListArray.from_arrays(offsets, picked),
        "scores": _vectors(scores),
        "latency_ms": pa.array(np.full(n, 2.0, np.float32)),
    }
    return build_predictions(columns, n)


def prepare(root: Path, answers: int, items: int) -> tuple[Reference, MonitoredData]:
    """A reference of ten days, and a day of so many answers and new items."""
    random = np.random.default_rng(1)
    dataset, index = root / "dataset", root / "index"
    for folder in (dataset, index, root / "log" / f"date={START + timedelta(days=DAYS):%Y-%m-%d}"):
        folder.mkdir(parents=True)
    stock = _items(random, 20_000, 0, DAYS)
    pq.write_table(stock, dataset / "items.parquet")
    ids = stock["item_id"].combine_chunks()
    predictions = _answers(random, 20_000, ids, 0, DAYS)
    pq.write_table(predictions, root / "predictions.parquet")
    views = pa.table(
        {
            "user_id": predictions["user_id"],
            "item_id": ids.take(pa.array(random.integers(0, len(ids), 20_000))),
            "event_type": pa.array(["view"] * 20_000),
            "event_time": predictions["time"],
        }
    )
    pq.write_table(views, dataset / "events.parquet")
    end = START + timedelta(days=DAYS)
    DatasetManifest(
        source="simulated",
        simulated=True,
        terms="none",
        counts={"events": RowCounts(rows_in=0, kept=0, rejected=0, duplicates=0)},
        split=Split(start=START, validation_start=START, test_start=START, end=end),
        fingerprint="0",
    ).write(dataset)
    np.save(index / "vectors.npy", random.normal(size=(20_000, DIMENSION)).astype(np.float32))
    pq.write_table(stock.append_column("live", pa.array([True] * 20_000)), index / "items.parquet")
    write_json(index / "index.json", {"embedding_version": TOWERS, "as_of": end.isoformat()})
    build_reference(
        MeasureSettings(), root / "predictions.parquet", index, dataset, TOWERS, root / "reference"
    )
    part = root / "log" / f"date={end:%Y-%m-%d}" / "part-0.parquet"
    pq.write_table(_answers(random, answers, ids, DAYS, 1), part)
    new = _items(random, items, DAYS, 1)
    pq.write_table(pa.concat_tables([stock, new]), root / "items.parquet")
    return Reference.read(root / "reference"), MonitoredData(
        log=root / "log", items=root / "items.parquet", index=index
    )


@dataclass(frozen=True)
class Cost:
    """What measuring a window takes.

    Attributes:
        name: The window.
        seconds: Of processor time, sorted.
        goal: The middle one is to be at most this.
        peak: Memory of the process, MiB.
    """

    name: str
    seconds: Sequence[float]
    goal: float
    peak: float


def measure_cost(repeats: int = 5) -> list[Cost]:
    """Measure windows in this process; nothing else should run."""
    costs = []
    cases: Sequence[tuple[str, int, int, float]] = (
        ("100,000 answers, vectors of 64", 100_000, 1000, 1.0),
        ("1,000,000 new items, eight attributes", 1000, 1_000_000, 3.0),
    )
    for name, answers, items, goal in cases:
        with tempfile.TemporaryDirectory() as folder:
            reference, data = prepare(Path(folder), answers, items)
            settings = MeasureSettings(window_rows=1_000_000)
            window = daily_windows(START + timedelta(days=DAYS + 1), 1)
            run = partial(measure, settings, reference, data, window)
            run()  # imports
            seconds = sorted(_time(run) for _ in range(repeats))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        costs.append(Cost(name, seconds, goal, peak))
    return costs


def print_cost(costs: Sequence[Cost]) -> Iterator[str]:
    """Print seconds and memory; yields what misses its goal."""
    for cost in costs:
        middle = cost.seconds[len(cost.seconds) // 2]
        spread = f"{middle:.2f} s ({cost.seconds[0]:.2f} to {cost.seconds[-1]:.2f})"
        print_row(
            cost.name, spread, f"<= {cost.goal:g} s", f"peak of the process {cost.peak:,.0f} MiB"
        )
        if middle > cost.goal:
            yield f"{cost.name}: {middle:.2f} s"


def _time(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


if __name__ == "__main__":
    raise SystemExit(bool(list(print_cost(measure_cost()))))
