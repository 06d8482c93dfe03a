"""The speed of ingestion, compared with plain DuckDB on the same file.

Run: ``python -m tests.benchmarks.bench_ingest [rows] [rounds]``. It writes an events file of that
many rows (1% of them duplicates, in random order), and times in turn

- scan: DuckDB reads the file and counts its distinct rows by the event key;
- write: DuckDB does the same, sorts, and writes Parquet;
- ingest: the ingestion step with its checks, derived items and users, split and manifest.

The ratio is the median over the rounds of DuckDB's seconds / ingest's seconds; 1 is as fast.
"""

import shutil
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import mkdtemp

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from components.ingestion.ingest import ingest
from components.ingestion.settings import IngestSettings
from refit.contract import EventType

KEY = "user_id, item_id, event_type, event_time"
DISTINCT = f"SELECT DISTINCT ON ({KEY}) * FROM read_parquet('{{path}}')"
ORDER = "ORDER BY event_time, user_id, item_id"
DAY_US = 86_400_000_000


def make_events(rows: int, path: Path, seed: int = 1) -> None:
    """Write ``rows`` events over 90 days; one in a hundred is a duplicate."""
    rng = np.random.default_rng(seed)
    n = rows - rows // 100
    types = [event_type.value for event_type in EventType]
    table = pa.table(
        {
            "user_id": _make_ids("user", rng.integers(rows // 20 + 1, size=n)),
            "item_id": _make_ids("item", rng.integers(rows // 10 + 1, size=n)),
            "event_type": pa.array(types).take(pa.array(rng.integers(len(types), size=n))),
            "event_time": pa.array(
                1_700_000_000_000_000 + rng.integers(90 * DAY_US, size=n), pa.timestamp("us", "UTC")
            ),
            "session_id": _make_ids("visit", rng.integers(rows // 4 + 1, size=n)),
            "price": pa.array(rng.gamma(2.0, 20.0, n).round(2)),
        }
    )
    again = table.take(pa.array(rng.integers(n, size=rows - n)))
    pq.write_table(pa.concat_tables([table, again]).combine_chunks(), path)


def time_scan(path: Path, out: Path) -> float:
    """Return the seconds that plain DuckDB takes to scan and drop duplicates."""
    return _time_query(f"SELECT count(*) FROM ({DISTINCT.format(path=path)})")


def time_write(path: Path, out: Path) -> float:
    """Return the seconds that plain DuckDB takes to scan, drop duplicates, sort and write."""
    query = f"{DISTINCT.format(path=path)} {ORDER}"
    return _time_query(f"COPY ({query}) TO '{out}' (FORMAT parquet)")


def time_ingest(path: Path, out: Path) -> float:
    """Return the seconds that the ingestion step takes."""
    settings = IngestSettings(source="files", path=str(path), validation_days=7, test_days=7)
    start = time.perf_counter()
    ingest(settings, out)
    return time.perf_counter() - start


def main(rows: int = 2_000_000, rounds: int = 5) -> None:
    """Time the three in turn, and print how they compare."""
    folder = Path(mkdtemp())
    try:
        path = folder / "events.parquet"
        make_events(rows, path)
        timers = {"scan": time_scan, "write": time_write, "ingest": time_ingest}
        seconds: dict[str, list[float]] = {name: [] for name in timers}
        for number in range(rounds):
            for name, timer in timers.items():
                seconds[name].append(timer(path, folder / f"{name}-{number}"))
        lines = [f"{rows} rows, {path.stat().st_size / 1e6:.0f} MB, {rounds} alternating rounds"]
        for name, taken in seconds.items():
            ratio = median(plain / own for plain, own in zip(taken, seconds["ingest"], strict=True))
            rate = rows / median(taken) / 1e6
            lines.append(f"{name:>7}: {rate:6.2f} M rows/s, ingest is {ratio:.2f} of it")
        sys.stdout.write("\n".join(lines) + "\n")
    finally:
        shutil.rmtree(folder)


def _make_ids(prefix: str, numbers: np.ndarray) -> pa.Array:
    digits = pa.array(numbers).cast(pa.string())
    return pa.compute.binary_join_element_wise(prefix, pa.compute.utf8_lpad(digits, 8, "0"), "")


def _time_query(query: str) -> float:
    with duckdb.connect(config={"memory_limit": "2GB"}) as con:
        start = time.perf_counter()
        con.execute(query).fetchall()
        return time.perf_counter() - start


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
