"""Compare exact scan, FAISS IVF, FAISS HNSW and ScaNN on trained vectors.

    .venv/bin/python tests/benchmarks/bench_index.py INDEX_FOLDER FEATURES_FOLDER MODEL_FOLDER
    .venv/bin/python tests/benchmarks/bench_index.py --clusters 200000

One query at a time on one thread, k = 100. Latencies depend on the machine; compare the ratios.
With ``--clusters N`` the vectors are N synthetic ones around N / 50 centres, for sizes that no
available data set has; state that wherever such figures are shown. ScaNN runs in a separate
environment, which the first call installs into ``.build/scann``: its wheels and TensorFlow cannot
share one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from components.indexing.queries import embed_queries, query_histories, sample_queries
from components.indexing.settings import IndexSettings
from refit.feature_tables import read_catalogue
from refit.features import FeaturesManifest, item_inputs
from refit.index import VECTORS_FILE
from refit.towers import load_tower, run_tower

os.environ["TF_USE_LEGACY_KERAS"] = "1"
K = 100
Search = Callable[[NDArray[np.float32]], NDArray[Any]]
ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / ".build" / "uv" / "bin" / "uv"
SCANN = ROOT / ".build" / "scann"
SCANN_FOLDER = Path(__file__).parent / "scann"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="index, features, model")
    parser.add_argument("--clusters", type=int, default=0)
    options = parser.parse_args()
    if options.clusters:
        vectors, queries = generate(options.clusters)
    elif len(options.folders) == 3:
        vectors, queries = read_trained(*options.folders)
    else:
        parser.error("give the index, features and model folders, or --clusters N")
    faiss.omp_set_num_threads(1)
    exact = faiss.knn(queries, vectors, K, metric=faiss.METRIC_INNER_PRODUCT)[1]
    sys.stdout.write(f"{len(vectors)} x {vectors.shape[1]}, {len(queries)} queries\n")
    sys.stdout.write(f"{'':24}{'recall@100':>12}{'p50 ms':>9}{'x exact':>9}{'build s':>9}\n")
    base = 0.0
    for name, build_seconds, found, p50 in results(vectors, queries):
        hits = [len(set(a) & set(b)) / K for a, b in zip(found, exact, strict=True)]
        base = base or p50
        sys.stdout.write(
            f"{name:24}{np.mean(hits):12.4f}{p50:9.3f}{base / p50:9.1f}{build_seconds:9.1f}\n"
        )
        sys.stdout.flush()


def results(
    vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> Iterator[tuple[str, float, NDArray[Any], float]]:
    """Each index's name, build seconds, rows found [Q, K], and median ms of a search."""
    for name, build_seconds, search in indexes(vectors):
        found = np.concatenate([search(queries[i : i + 1]) for i in range(len(queries))])
        yield name, build_seconds, found, median_ms(search, queries)
    yield from scann_results(vectors, queries)


def indexes(vectors: NDArray[np.float32]) -> Iterator[tuple[str, float, Search]]:
    n, d = vectors.shape
    flat = faiss.IndexFlatIP(d)
    flat.add(vectors)
    yield "exact (flat)", 0.0, lambda q: flat.search(q, K)[1]
    started = time.monotonic()
    lists = max(1, min(round(4 * n**0.5), n // 64))
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, lists, faiss.METRIC_INNER_PRODUCT)
    ivf.train(vectors)
    ivf.add(vectors)
    seconds = time.monotonic() - started
    for n_probe in (8, 16, 32, 64, 128, 256):
        if n_probe <= lists // 2:
            yield f"IVF, {n_probe} of {lists}", seconds, with_ivf(ivf, n_probe)
    started = time.monotonic()
    # One more entry makes all lengths equal: HNSW has low recall on inner products of unequal ones.
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    rest = np.sqrt(np.maximum(lengths.max() ** 2 - lengths**2, 0))
    hnsw = faiss.IndexHNSWFlat(d + 1, 32)
    hnsw.hnsw.efConstruction = 200
    hnsw.add(np.hstack([vectors, rest]))
    seconds = time.monotonic() - started
    for depth in (128, 256, 512):
        yield f"HNSW, ef {depth}", seconds, with_hnsw(hnsw, depth)


def scann_results(
    vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> Iterator[tuple[str, float, NDArray[Any], float]]:
    python = SCANN / "bin" / "python"
    if not python.exists():
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, SCANN], check=True)
    locked = SCANN_FOLDER / "requirements.txt"
    sync = [UV, "pip", "sync", "--quiet", "--require-hashes", "--python", python, locked]
    subprocess.run(sync, check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "vectors.npy", vectors)
        np.save(folder / "queries.npy", queries)
        command = [python, SCANN_FOLDER / "search.py", folder]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for i, line in enumerate(lines.splitlines()):
            result = json.loads(line)
            found = np.load(folder / f"found-{i}.npy")
            yield result["name"], result["build_seconds"], found, result["ms"]


def with_ivf(index: Any, n_probe: int) -> Search:
    parameters = faiss.SearchParametersIVF(nprobe=n_probe)
    return lambda q: index.search(q, K, params=parameters)[1]


def with_hnsw(index: Any, depth: int) -> Search:
    parameters = faiss.SearchParametersHNSW(efSearch=depth)
    return lambda q: index.search(np.pad(q, ((0, 0), (0, 1))), K, params=parameters)[1]


def median_ms(search: Search, queries: NDArray[np.float32]) -> float:
    durations = []
    for i in range(min(len(queries), 300)):
        started = time.perf_counter()
        search(queries[i : i + 1])
        durations.append((time.perf_counter() - started) * 1e3)
    return float(np.median(durations))


def read_trained(
    index: Path, features: Path, model: Path
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    manifest = FeaturesManifest.read(features)
    table = sample_queries(IndexSettings(), manifest, features)
    items = np.unique(query_histories(manifest, table).item)
    items = items[items >= 0]
    catalogue = read_catalogue(features)
    row_of = np.zeros(len(catalogue), dtype=np.int64)
    row_of[items] = np.arange(len(items))
    part = type(catalogue)(catalogue.table.take(items))
    spec = manifest.spec
    texts = ("item_id", *spec.item_categorical, *spec.item_text)
    columns: dict[str, Any] = {name: part.strings(name) for name in texts}
    columns |= {name: part.numbers(name) for name in spec.item_numeric}
    if spec.item_vector:
        columns[spec.item_vector] = part.vectors(spec.item_vector, manifest.vector_size)
    popularity = np.zeros((len(items), manifest.popularity_size), np.float32)
    inputs = item_inputs(spec, columns, np.zeros(len(items), np.float32), popularity)
    content = run_tower(load_tower(model / "item_tower"), inputs)["content"]
    queries = embed_queries(manifest, model, table, content, row_of)
    return np.load(index / VECTORS_FILE), np.ascontiguousarray(queries)


def generate(n: int, d: int = 64) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n // 50, d))

    def around(count: int) -> NDArray[np.float32]:
        points = centres[rng.integers(0, len(centres), count)] + 0.7 * rng.normal(size=(count, d))
        return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)

    return around(n), around(200)


if __name__ == "__main__":
    main()
