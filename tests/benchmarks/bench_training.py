"""The speed of training, what its time goes to, and what is learned meanwhile, in one table.

    make bench-training
    make bench-training ARGS='--only refit --epochs 2 --settings {"batch_size":512}'

On the simulated market ``large`` (1.1 million events, 90 days) it trains Refit's towers; the towers
of TensorFlow Recommenders' tutorial, an embedding of users and one of items with
``tfrs.tasks.Retrieval``; and Refit's towers with tables of 10,000 and 1,000,000 ids. Those ids are
synthetic: each item has one at random. The features are kept in ``build/bench-training``.

Recall ranks all listings that were live for each of the validation examples. To measure other code
of Refit: ``PYTHONPATH=<checkout> python tests/benchmarks/bench_training.py``.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import pyarrow.parquet as pq

from components.features.build import build_features
from components.ingestion.ingest import ingest
from components.training import batches, recall, train, vocabulary
from components.training.settings import TrainSettings
from pipelines.settings import read_settings
from refit.feature_tables import examples_file, read_snapshot
from refit.files import write_atomically
from refit.model import Epoch
from refit.progress import set_up_logging, timed
from simulation.history import write_history
from simulation.settings import PRESETS

BUILT = Path("build/bench-training")
K = 10
ID_TABLES = (10_000, 1_000_000)
TUTORIAL_BATCH, TUTORIAL_SIZE, TUTORIAL_RATE = 4096, 32, 0.1
"""The tutorial's embedding size and rate; it trains its 80,000 ratings in batches of 8,192."""
WIDTH = 40

Parts = dict[str, float]


@dataclass
class Measured:
    """One training.

    Attributes:
        name: What was trained.
        epochs: Its epochs; those of all pairs of towers.
        parts: Seconds by part of the work.
        pairs: The pairs, if there are several.
        joined_recall: Of all pairs together.
    """

    name: str
    epochs: Sequence[Epoch]
    parts: Parts = field(default_factory=dict)
    pairs: Sequence[Any] = ()
    joined_recall: float | None = None


def main() -> None:
    """Measure what is asked for, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--market", default="large", choices=PRESETS, help="a simulated market")
    parser.add_argument("--features", type=Path, help="a features folder in its place")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--settings", default="{}", help="of the training, as JSON")
    parser.add_argument("--only", default="", choices=("", "refit", "tutorial", "ids"))
    options = parser.parse_args()
    set_up_logging()
    features = options.features or prepare_features(options.market)
    given = {"max_epochs": options.epochs, "patience": options.epochs, "recall_at": K}
    settings = TrainSettings.parse(given | {"final_fit": False} | json.loads(options.settings))
    _print(_describe(features))
    _print(f"{'':{WIDTH}}  examples/s  s/epoch  validation recall@{settings.recall_at} by epoch")
    if options.only in ("", "refit"):
        _print_rows(measure("the two towers", settings, features))
    if options.only in ("", "tutorial"):
        _print_rows(measure_tutorial(settings, features))
    if options.only in ("", "ids"):
        for n in ID_TABLES:
            with _made_up_ids(n, settings):
                _print_rows(measure(f"the two towers, {n:,} synthetic ids", settings, features))


def prepare_features(market: str) -> Path:
    """The features of a simulated market, built unless that was done."""
    folder = BUILT / market
    if not folder.exists():
        settings = read_settings("simulated", ["scale=standard", f"ingestion.path={folder}/market"])
        with write_atomically(folder) as staging:
            with timed(f"simulated {market}"):
                write_history({"preset": market}, staging / "market")
            moved = settings.ingestion.model_copy(update={"path": str(staging / "market")})
            ingest(moved, staging / "dataset")
            build_features(settings.features, staging / "dataset", staging / "features")
    return folder / "features"


def measure(name: str, settings: TrainSettings, features: Path) -> Measured:
    """Train Refit's towers once."""
    parts: Parts = {}
    with TemporaryDirectory() as folder, _profile(parts):
        manifest = train.train(settings, features, Path(folder) / "model")
    pairs = getattr(manifest, "pairs", ())  # earlier code has none
    epochs = [epoch for pair in pairs for epoch in pair.epochs] or manifest.epochs
    total = sum(epoch.seconds for epoch in epochs)
    waited = parts.pop("waiting", parts["building batches"])
    parts = {"steps": total - waited, "waiting for batches": waited, **parts}
    return Measured(name, epochs, parts, pairs, manifest.joined_recall if pairs else None)


@contextmanager
def _profile(parts: Parts) -> Iterator[None]:
    """Add up the seconds of the parts of a training: wall time, or processor time of a thread."""

    def add(part: str, seconds: float) -> None:
        parts[part] = parts.get(part, 0.0) + seconds

    def timed_call(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                add(part, time.perf_counter() - started)

        return run

    def timed_items(part: str, make: Callable[..., Any], clock: Callable[[], float]) -> Any:
        def run(*arguments: Any, **named: Any) -> Iterator[Any]:
            items, end = iter(make(*arguments, **named)), object()
            while True:
                started = clock()
                item = next(items, end)
                add(part, clock() - started)
                if item is end:
                    return
                yield item

        return run

    epochs = timed_items("building batches", batches.Batches.of_epoch, time.thread_time)
    with ExitStack() as stack:
        for owner, name, call in (
            (batches.Batches, "of_epoch", epochs),
            (batches.Snapshots, "_read", timed_call("snapshot reads", batches.Snapshots._read)),
            (
                recall.RecallMeter,
                "recall_at",
                timed_call("validation", recall.RecallMeter.recall_at),
            ),
            (train, "_write_model", timed_call("export", train._write_model)),
        ):
            stack.enter_context(patch.object(owner, name, call))
        try:
            ahead = importlib.import_module("components.training.ahead")
        except ModuleNotFoundError:  # code that builds a batch before each step
            pass
        else:
            waits = timed_items("waiting", ahead.build_ahead, time.perf_counter)
            stack.enter_context(patch.object(ahead, "build_ahead", waits))
        yield


@contextmanager
def _made_up_ids(n: int, settings: TrainSettings) -> Iterator[None]:
    """Let a training know ``n`` ids, and give each item one of them at random."""
    learn, encode = vocabulary.learn_vocabulary, batches.encode_catalogue

    def learn_ids(*arguments: Any) -> vocabulary.Vocabulary:
        learned = learn(*arguments)
        ids = tuple(f"synthetic-{i}" for i in range(n))
        return replace(learned, values={**learned.values, "item_id": ids})

    def encode_ids(*arguments: Any) -> batches.Batch:
        encoded = encode(*arguments)
        drawn = np.random.default_rng(settings.seed).integers(1, n + 1, len(encoded["id"]))
        return encoded | {"id": drawn.astype(np.int32)}

    with (
        patch.object(vocabulary, "learn_vocabulary", learn_ids),
        patch.object(batches, "encode_catalogue", encode_ids),
    ):
        yield


def measure_tutorial(settings: TrainSettings, features: Path) -> Measured:
    """Train and validate the tutorial's towers on the same examples."""
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    users, items, _ = _read_pairs(features, "train")
    known = tf.keras.layers.StringLookup(vocabulary=np.unique(users), mask_token=None)
    n_items = pq.read_metadata(features / "items.parquet").num_rows
    user_tower = tf.keras.Sequential(
        [known, tf.keras.layers.Embedding(known.vocabulary_size(), TUTORIAL_SIZE)]
    )
    item_tower = tf.keras.layers.Embedding(n_items, TUTORIAL_SIZE)
    task = tfrs.tasks.Retrieval()

    class Tutorial(tfrs.Model):
        def compute_loss(self, inputs: Any, training: bool = False) -> Any:
            return task(user_tower(inputs["user"]), item_tower(inputs["item"]))

    model = Tutorial()
    model.user_tower, model.item_tower = user_tower, item_tower
    model.compile(optimizer=tf.keras.optimizers.Adagrad(TUTORIAL_RATE))
    data = tf.data.Dataset.from_tensor_slices({"user": users.astype(str), "item": items}).cache()
    data = data.shuffle(len(users), seed=settings.seed).batch(TUTORIAL_BATCH).prefetch(4)
    held_out = _read_pairs(features, "validation")
    epochs = []
    for number in range(1, settings.max_epochs + 1):
        started = time.monotonic()
        loss = model.fit(data, verbose=0).history["loss"][-1]
        seconds = time.monotonic() - started
        queries = user_tower(tf.constant(held_out[0].astype(str))).numpy()
        found = _recall(queries, item_tower.embeddings.numpy(), held_out, features, settings)
        epochs.append(
            Epoch(number=number, loss=loss, recall=found, seconds=seconds, examples=len(users))
        )
    return Measured("a TFRS tutorial tower", epochs)


def _read_pairs(features: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User, item and snapshot of each example."""
    columns = ["user_id", "item_index", "snapshot"]
    table = pq.read_table(features / examples_file(split), columns=columns)
    user, item, snapshot = (table[name].to_numpy() for name in columns)
    return user, item, snapshot


def _recall(
    queries: np.ndarray,
    items: np.ndarray,
    held_out: tuple[np.ndarray, np.ndarray, np.ndarray],
    features: Path,
    settings: TrainSettings,
) -> float:
    """Recall@K of vectors over the live items of each example's snapshot; ties count against it."""
    _, positive, snapshot = held_out
    hits = []
    for number in np.unique(snapshot):
        live = read_snapshot(features, int(number))[0]
        at = np.flatnonzero((snapshot == number) & np.isin(positive, live))
        scores = queries[at] @ items[live].T
        own = scores[np.arange(len(at)), np.searchsorted(live, positive[at])]
        hits.append((scores >= own[:, None]).sum(axis=1) <= settings.recall_at)
    return float(np.concatenate(hits).mean())


def _describe(features: Path) -> str:
    sizes = {
        split: pq.read_metadata(features / examples_file(split)).num_rows
        for split in ("train", "validation")
    }
    items = pq.read_metadata(features / "items.parquet").num_rows
    live = pq.read_metadata(features / "snapshots/0.parquet").num_rows
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{sizes['train']:,} training and {sizes['validation']:,} validation examples of "
        f"{items:,} items, {live:,} of them live in the first snapshot; "
        f"{len(os.sched_getaffinity(0))} cores, {names[0] if names else 'unknown'}\n"
    )


def _print_rows(measured: Measured) -> None:
    """The rate and the recall of all epochs, and the parts below."""
    epochs = measured.epochs
    fastest = max(epoch.examples / epoch.seconds for epoch in epochs)
    seconds = min(epoch.seconds for epoch in epochs)
    recalls = "" if measured.pairs else _recalls(epochs)
    _print(f"{measured.name:{WIDTH}}  {fastest:>10,.0f}  {seconds:>7.1f}  {recalls}")
    for i, pair in enumerate(measured.pairs, start=1):
        _print(f"{f'  pair {i} alone':{WIDTH + 21}}  {_recalls(pair.epochs)}")
    if measured.joined_recall is not None:
        _print(f"{'  all pairs together':{WIDTH + 21}}  {measured.joined_recall:.4f}")
    for part, spent in measured.parts.items():
        _print(f"  {part:{WIDTH - 2}}  {'':10}  {spent:>7.1f}  s in all")


def _recalls(epochs: Sequence[Epoch]) -> str:
    return " ".join(f"{epoch.recall:.4f}" for epoch in epochs if epoch.recall is not None)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
