"""ScaNN's part of bench_index.py; runs in an environment with ScaNN and without TensorFlow.

    search.py FOLDER

Reads ``vectors.npy`` [N, D] and ``queries.npy`` [Q, D]; for each of three settings writes what it
found to ``found-<i>.npy`` [Q, K], and prints a line of JSON: name, build seconds, median ms.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import scann

K = 100
TIMED_QUERIES = 300


def main() -> None:
    folder = Path(sys.argv[1])
    vectors, queries = np.load(folder / "vectors.npy"), np.load(folder / "queries.npy")
    n = len(vectors)
    lists = max(1, round(n**0.5))
    for i, (share, reorder) in enumerate(((0.05, 300), (0.2, 500), (0.5, 1000))):
        started = time.monotonic()
        leaves = max(1, round(lists * share))
        searcher = (
            scann.scann_ops_pybind.builder(vectors, K, "dot_product")
            .tree(lists, leaves, training_sample_size=min(n, 250_000))
            .score_ah(2, anisotropic_quantization_threshold=0.2)
            .reorder(min(reorder, n))
            .build()
        )
        built = time.monotonic() - started
        found, taken = [], []
        for query in queries:
            started = time.perf_counter()
            rows = searcher.search(query)[0].astype(np.int64)
            taken.append((time.perf_counter() - started) * 1e3)
            # Fewer than K where the leaves hold fewer.
            found.append(np.pad(rows, (0, K - len(rows)), constant_values=-1))
        np.save(folder / f"found-{i}.npy", np.stack(found))
        line = {"name": f"ScaNN, {leaves} of {lists}", "build_seconds": built}
        sys.stdout.write(json.dumps({**line, "ms": float(np.median(taken[:TIMED_QUERIES]))}) + "\n")


if __name__ == "__main__":
    main()
