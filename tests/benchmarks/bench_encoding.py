"""What it takes to encode a marketplace's texts: seconds, memory, disk.

Run: ``python -m tests.benchmarks.bench_encoding [rows] [words]``. It writes items of that many
distinct texts of about that many words, and encodes them by ``wordllama``: with an empty store,
again when the store has all of them, and again when one in a hundred is new; each time in a process
of its own. Leave both processors to it.
"""

import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PASSES = ("new", "known", "1% new")


@dataclass(frozen=True)
class Cost:
    """What one pass took.

    Attributes:
        rows: Rows of the items.
        seconds: Of the step, from reading the items to the written vectors.
        megabytes: The most memory that the process held, with its libraries and mapped files.
        store: Megabytes of the store of vectors.
        written: Megabytes of the vectors that the next step reads.
    """

    rows: int
    seconds: float
    megabytes: float
    store: float
    written: float


def make_items(rows: int, words: int, folder: Path, changed: float = 0.0) -> None:
    """Write ``rows`` distinct texts of common English pieces of words, as in Zipf's law."""
    rng = np.random.default_rng(1)
    known = _read_words()
    folder.mkdir(parents=True, exist_ok=True)
    writer = None
    for start in range(0, rows, 100_000):
        n = min(100_000, rows - start)
        lengths = np.maximum(rng.poisson(words, n), 1)
        ranks = np.minimum(rng.zipf(1.3, int(lengths.sum())), len(known)) - 1
        chosen = np.split(known[ranks], np.cumsum(lengths)[:-1])
        texts = [f"{' '.join(each)} {start + i}" for i, each in enumerate(chosen)]
        for i in range(int(n * changed)):
            texts[i] += " new"
        table = pa.table({"item_id": [f"item-{start + i:08d}" for i in range(n)], "title": texts})
        writer = writer or pq.ParquetWriter(folder / "items.parquet", table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def encode(dataset: Path, out: Path, store: Path) -> Cost:
    """Encode in this process."""
    from components.encoding.encode import encode_items
    from components.encoding.plan import plan_run
    from components.encoding.settings import EncodingSettings

    encoder = {"encoder": "wordllama", "columns": ["title"]}
    plan = plan_run(EncodingSettings.parse({"encoders": [encoder]}), "", "")
    start = time.perf_counter()
    record = encode_items(plan, dataset, out, str(store))
    return Cost(
        record.rows,
        time.perf_counter() - start,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        _measure_folder(store),
        _measure_folder(out),
    )


def measure(rows: int, words: int, folder: Path) -> list[Cost]:
    """The three passes, each in a process of its own."""
    costs = []
    for number, changed in enumerate((0.0, 0.0, 0.01)):
        make_items(rows, words, folder / "dataset", changed)
        out = folder / f"out-{number}"
        command = [sys.executable, "-m", "tests.benchmarks.bench_encoding", "--pass"]
        places = [str(folder / "dataset"), str(out), str(folder / "store")]
        done = subprocess.run([*command, *places], stdout=subprocess.PIPE, text=True, check=True)
        costs.append(Cost(**json.loads(done.stdout.splitlines()[-1])))
        shutil.rmtree(out)
    return costs


def main(rows: int = 1_000_000, words: int = 10) -> None:
    """Measure, and print a line for each pass."""
    folder = Path(mkdtemp())
    try:
        costs = measure(rows, words, folder)
    finally:
        shutil.rmtree(folder)
    lines = [f"{rows:,} distinct texts of about {words} words, wordllama"]
    lines += [f"  {name:<6} {_show(cost)}" for name, cost in zip(PASSES, costs, strict=True)]
    sys.stdout.write("\n".join(lines) + "\n")


def _show(cost: Cost) -> str:
    return (
        f"{cost.seconds:6.1f} s, {cost.rows / cost.seconds:8,.0f} rows/s,"
        f" {cost.megabytes:6,.0f} MB of memory, store {cost.store:6,.0f} MB,"
        f" written {cost.written:6,.0f} MB"
    )


def _measure_folder(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _read_words() -> np.ndarray:
    """Pieces that begin a word, in the order of the tokenizer, which is about that of frequency."""
    from components.encoding.encoders.wordllama import find_files

    _, tokenizer = find_files(None, None)
    vocabulary = json.loads(tokenizer.read_text("utf-8"))["model"]["vocab"]
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    words = [piece[1:] for piece in pieces if piece[0] == "\u2581" and piece[1:].isalpha()]
    return np.array([word for word in words if len(word) > 2], dtype=object)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pass"]:
        cost = encode(*(Path(place) for place in sys.argv[2:5]))
        sys.stdout.write(json.dumps(asdict(cost)) + "\n")
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
