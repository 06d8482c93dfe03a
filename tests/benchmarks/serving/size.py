"""Measure one process of the recommender at a marketplace's size: memory, start, filters, listings.

    make bench-size
    make bench-size ARGS="--items 200000 --users 100000 --vectors int8"

The market is simulated: clustered vectors, attributes of uneven frequency, histories. Answers run
through the stages of a real serving snapshot (query inputs, rules, search, slate) with a query
vector at hand instead of a query tower. What counts against a pod's limit is anonymous memory; the
index is mapped from files, whose pages the processes share and the system takes back when memory
is short. Where this process may make a control group, a worker is also run under a real limit.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.indexing.choose import choose_index
from components.indexing.popular import POPULARITY_SCHEMA
from components.indexing.settings import IndexSettings
from refit import bundle as bundles
from refit.features import FeaturesManifest, FeatureSpec
from refit.files import write_json
from refit.index import (
    CONTENT_FILE,
    DELISTED_FILE,
    HIDES_FILE,
    HISTORIES_FILE,
    INDEX_FILE,
    ITEMS_FILE,
    POPULARITY_FILE,
    PURCHASES_FILE,
    VECTORS_FILE,
    IndexManifest,
)
from refit.served import write_served
from serving.processes import PROJECT
from serving.settings import SERVING_PYTHON

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
DIMENSION = 64
BLOCK = 100_000
VERSION = "0" * 16
KINDS = np.array(["view", "like", "cart", "purchase"])
CGROUPS = Path("/sys/fs/cgroup")
GROUPS = (
    {
        "folder": "memory",
        "limit": "memory.limit_in_bytes",
        "peak": "memory.max_usage_in_bytes",
        "events": "memory.oom_control",
    },
    {"folder": "", "limit": "memory.max", "peak": "memory.peak", "events": "memory.events"},
)
"""Names of the two versions of Linux' control groups."""
TABLES = {
    "brand": 5000,
    "category_1": 40,
    "category_2": 400,
    "colour": 20,
    "condition": 5,
    "country": 10,
    "size": 60,
}
"""Text attributes, and how many values each has."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=2_000_000, help="live listings")
    parser.add_argument("--users", type=int, default=1_000_000, help="people with a history")
    parser.add_argument("--fresh", type=int, default=20_000, help="listings newer than the bundle")
    parser.add_argument("--requests", type=int, default=300, help="requests for each figure")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--vectors", choices=["float32", "float16", "int8"], default="float32")
    parser.add_argument("--limit", type=int, default=2048, help="memory of the pod, in MiB")
    parser.add_argument("--folder", type=Path, help="where to build it; kept if it is given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        path = folder / "bundle"
        if not path.exists():
            started = time.monotonic()
            partial = folder / "partial"
            build(partial, options)
            partial.rename(path)
            log(f"built in {time.monotonic() - started:.0f} s")
        report(path, options)
    return 0


def build(path: Path, options: argparse.Namespace) -> None:
    """Write a bundle of the given size; its towers are empty files."""
    rng = np.random.default_rng(0)
    index, n = path / "index", options.items
    n_items = n + n // 10
    for folder in (index, path / "query_tower", path / "item_tower"):
        folder.mkdir(parents=True)
    vectors, queries = make_vectors(index / VECTORS_FILE, n, rng)
    settings = IndexSettings(vectors=options.vectors)
    import faiss

    searcher, measured = choose_index(settings, vectors, queries)
    faiss.write_index(searcher, str(index / INDEX_FILE))
    del searcher, vectors
    log(f"{measured}")
    np.save(path / "queries.npy", queries)
    make_vectors(index / CONTENT_FILE, n_items, rng)
    ids = make_ids(n_items + n // 10, rng)
    pq.write_table(make_items(ids[:n_items], n, options.users, rng), index / ITEMS_FILE)
    delisted = pa.table({"item_id": pa.array(np.sort(ids[n_items:]))})
    pq.write_table(delisted, index / DELISTED_FILE)
    pq.write_table(make_histories(n_items, options.users, rng), index / HISTORIES_FILE)
    for file, share in ((PURCHASES_FILE, 2), (HIDES_FILE, 1)):
        pq.write_table(
            make_pairs(share * options.users, options.users, len(ids), rng), index / file
        )
    best = rng.choice(n, 500, replace=False)
    row = {"column": "", "value": "", "item_row": best, "score": np.linspace(1, 0.1, 500)}
    pq.write_table(pa.Table.from_pylist([row], POPULARITY_SCHEMA), index / POPULARITY_FILE)
    write_served(index, n)
    IndexManifest(
        embedding_version=VERSION,
        dimension=DIMENSION,
        n_live=n,
        n_items=n_items,
        as_of=AS_OF,
        **measured,
    ).write(index)
    spec = FeatureSpec(user_categorical=("city",), history_length=20)
    FeaturesManifest(spec=spec, popularity_values={}, vector_size=0).write(path)
    for name in bundles.PAIRED[::2]:
        write_json(path / name, {"embedding_version": VERSION})
    # As assemble_bundle does, which would copy all parts first.
    manifest = bundles._describe(path, None, {})
    write_json(path / bundles.MANIFEST_FILE, manifest.model_dump(mode="json"))


def make_vectors(path: Path, n: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Unit vectors around n / 50 centres in a file, and 100 more as queries.

    Their variance falls from one direction to the next as that of trained towers does: as if it
    were spread evenly over 14 of the 64.
    """
    spread = np.arange(1, DIMENSION + 1, dtype=np.float32) ** -0.5
    centres = rng.standard_normal((max(n // 50, 1), DIMENSION), dtype=np.float32)

    def around(count: int) -> Any:
        points = centres[rng.integers(0, len(centres), count)]
        points += 0.7 * rng.standard_normal((count, DIMENSION), dtype=np.float32)
        points *= spread
        return points / np.linalg.norm(points, axis=1, keepdims=True)

    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (n, DIMENSION))
    for start in range(0, n, BLOCK):
        vectors[start : start + BLOCK] = around(min(BLOCK, n - start))
    vectors.flush()
    return np.load(path, mmap_mode="r"), around(100)


def make_ids(n: int, rng: np.random.Generator) -> Any:
    """Distinct ids of 12 to 24 characters."""
    numbers = rng.permutation(n)
    lengths = rng.integers(12, 25, n)
    return np.array(
        [f"{number:x}".rjust(length, "x") for number, length in zip(numbers, lengths, strict=True)],
        dtype=object,
    )


def make_items(ids: Any, n_live: int, users: int, rng: np.random.Generator) -> pa.Table:
    n = len(ids)
    columns: dict[str, Any] = {"item_id": pa.array(ids, pa.string())}
    columns["seller_id"] = coded("u", users // 5, n, rng)
    for name, values in TABLES.items():
        columns[name] = coded(name, values, n, rng)
    columns["price"] = np.round(np.exp(rng.normal(3, 1, n)), 2)
    columns["like_count"] = rng.poisson(3, n)
    seconds = rng.integers(0, 90 * 86_400, n)
    listed = np.datetime64(AS_OF.replace(tzinfo=None), "us") - seconds.astype("timedelta64[s]")
    columns["known_at"] = pa.array(listed, pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    columns["live"] = np.arange(n) < n_live
    return pa.table(columns)


def coded(name: str, values: int, n: int, rng: np.random.Generator) -> pa.Array:
    """A column of so many texts, of which the first are the most frequent."""
    codes = (values * rng.random(n) ** 2).astype(np.int32)
    texts = pa.array([f"{name}-{value:06}" for value in range(values)])
    return pa.DictionaryArray.from_arrays(codes, texts).dictionary_decode()


def make_histories(n_items: int, users: int, rng: np.random.Generator) -> pa.Table:
    """Ten events a person on average, at most 50."""
    lengths = np.minimum(rng.geometric(0.1, users), 50)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    events = int(offsets[-1])
    ago = rng.integers(0, 90 * 86_400 * 10**6, events)
    person = np.repeat(np.arange(users), lengths)
    ago = ago[np.lexsort((ago, person))]
    times = pa.array(int(AS_OF.timestamp() * 1e6) - ago).cast(pa.timestamp("us", "UTC"))
    types = pa.DictionaryArray.from_arrays(rng.integers(0, 4, events, np.int32), pa.array(KINDS))
    lists = {
        "item_row": pa.array(rng.integers(0, n_items, events, np.int32)),
        "event_type": types.dictionary_decode(),
        "event_time": times,
    }
    columns = {"user_id": [f"u-{user:06}" for user in range(users)], "city": ["Lund"] * users}
    return pa.table(
        {**columns, **{k: pa.ListArray.from_arrays(offsets, v) for k, v in lists.items()}}
    )


def make_pairs(n: int, users: int, n_numbers: int, rng: np.random.Generator) -> pa.Table:
    """Purchases or hides: distinct pairs of users and items."""
    keys = np.unique(rng.integers(0, users, n) * n_numbers + rng.integers(0, n_numbers, n))
    user, item = np.divmod(keys, n_numbers)
    return pa.table({"user_row": user.astype(np.int32), "item_row": item.astype(np.int32)})


def report(path: Path, options: argparse.Namespace) -> None:
    manifest = json.loads((path / "index" / "index.json").read_text())
    sizes = {file.name: file.stat().st_size / 2**20 for file in (path / "index").iterdir()}
    files = ", ".join(f"{name} {size:.0f}" for name, size in sorted(sizes.items()))
    say(
        f"{options.items:,} live listings, {options.users:,} people, simulated; k = {options.k}, "
        f"{options.requests} requests for each figure, one thread\n"
        f"MiB on disk: {files}\n"
        f"vectors: {manifest['vectors']}; {manifest['kind']}, {manifest['n_probe']} of "
        f"{manifest['n_lists']} lists; recall@100 {manifest['recall_at_100']:.4f} "
        f"on {manifest['n_queries']} queries\n"
    )
    with workers(path, options, 1) as (alone,):
        times = alone.ask("measure")
        memory = [alone.ask("memory")]
    with workers(path, options, 2) as both:
        for worker in both:
            worker.ask("measure")
        memory.append(add_up([worker.ask("memory") for worker in both]))
    say(f"ready after {times['ready']:.1f} s, of which {times['verified']:.1f} s checksums\n")
    say("| MiB | anonymous | proportional share (PSS) | resident, summed |\n|---|---|---|---|\n")
    for name, one in zip(("one worker", "two workers"), memory, strict=True):
        say(f"| {name} | {one['anonymous']:.0f} | {one['pss']:.0f} | {one['rss']:.0f} |\n")
    write_times(times)
    limited(path, options)


def write_times(times: dict[str, Any]) -> None:
    say("\n| filter | leaves | p50 ms | p99 ms | CPU ms, median | p50 and CPU to none |\n")
    say("|---|---|---|---|---|---|\n")
    for one in times["filters"]:
        say(f"| {one['name']} | {one['share']:.4f} | {compare(one, times['filters'][0])} |\n")
    fresh, added = times["fresh"]["answers"], times["fresh"]["add_ms"]
    say("\n| fresh listings | p50 ms | p99 ms | CPU ms, median | p50 and CPU to none |\n")
    say("|---|---|---|---|---|\n")
    for one in fresh:
        say(f"| {one['n']:,} | {compare(one, fresh[0])} |\n")
    say(
        f"\nwith {fresh[-1]['n']:,} fresh: a listing is added in {added:.3f} ms, "
        f"taken off in {times['fresh']['remove_ms']:.4f} ms\n"
    )


def compare(one: dict[str, Any], base: dict[str, Any]) -> str:
    wall, cpu = one["p50"] / base["p50"], one["cpu"] / base["cpu"]
    return f"{one['p50']:.2f} | {one['p99']:.2f} | {one['cpu']:.2f} | {wall:.2f}, {cpu:.2f}"


def limited(path: Path, options: argparse.Namespace) -> None:
    """Run two workers in a control group with the pod's memory, where that can be made."""
    version = GROUPS[(CGROUPS / "cgroup.controllers").exists()]
    group = CGROUPS / version["folder"] / f"refit-bench-{os.getpid()}"
    try:
        group.mkdir()
        (group / version["limit"]).write_text(str(options.limit * 2**20))
    except OSError as error:
        say(f"\nno control group can be made here ({error.strerror}); not run under a limit\n")
        return
    try:
        forget(path)
        with workers(path, options, 2, group) as both:
            times = [worker.ask("measure") for worker in both]
            peak = int((group / version["peak"]).read_text()) / 2**20
            events = dict(line.split() for line in (group / version["events"]).open())
        say(
            f"\ntwo workers in a control group of {options.limit} MiB, no file in memory before: "
            f"ready after {max(one['ready'] for one in times):.1f} s, peak {peak:.0f} MiB with the "
            f"pages of files, {events['oom_kill']} processes killed for memory\n"
        )
        write_times(times[0])
    finally:
        time.sleep(1)  # until its processes have ended
        group.rmdir()


def forget(path: Path) -> None:
    """Have the system forget the pages of files, which would be nobody's in a new group."""
    for file in path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Worker:
    """A process that has opened the bundle, and answers orders given by line."""

    def __init__(self, path: Path, options: argparse.Namespace, group: Path | None) -> None:
        script = str(Path(__file__).with_name("size_worker.py"))
        numbers = (options.fresh, options.requests, options.k)
        command = [str(PROJECT / SERVING_PYTHON), script, str(path), *map(str, numbers)]
        if group is not None:
            enter = f'echo $$ > {group}/cgroup.procs; exec "$@"'
            command = ["sh", "-c", enter, "sh", *command]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, order: str) -> Any:
        """Give an order, and read its result."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with {self.process.wait()}")
        return json.loads(line)


@contextmanager
def workers(
    path: Path, options: argparse.Namespace, n: int, group: Path | None = None
) -> Iterator[list[Worker]]:
    running = [Worker(path, options, group) for _ in range(n)]
    try:
        yield running
    finally:
        for worker in running:
            worker.process.kill()
            worker.process.communicate()


def add_up(parts: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def log(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
