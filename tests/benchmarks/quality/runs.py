"""One run of a set: ingestion, features, training, index and evaluation, resumable.

``python -m tests.benchmarks.quality.runs SET SEED DATA OUT`` is one run in a process of its own, so
that its peak memory is its own. Dataset and features are shared by the seeds.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.settings import RunSettings, read_settings
from refit.files import fingerprint, read_json, write_json
from refit.progress import set_up_logging
from tests.benchmarks.quality.sets import SETS, PublicSet

COSTS_FILE, METRICS_FILE, LISTS_FILE = "costs.json", "metrics.json", "lists.json"
FEW_QUERIES = ("evaluation.leaks.queries=200", "evaluation.examples=2")
"""What the report needs, and this bench does not."""
PARTS = ("known users", "new users")
GAINS = ("guard_gain", "gain")


@dataclass(frozen=True)
class Part:
    """A metric on a part of the test queries.

    Attributes:
        queries: Such as ``known users``.
        n: Their number.
        metric: Its name.
        value: Of the model.
        best_baseline: The best baseline's name and value there.
        gain_low: Lower end of the 95% interval of the model's gain over it, paired.
    """

    queries: str
    n: int
    metric: str
    value: float
    best_baseline: tuple[str, float]
    gain_low: float


@dataclass(frozen=True)
class Found:
    """What a run of one seed found.

    Attributes:
        metrics: Of the model, by name.
        best_baseline: By metric, the best baseline's name and value.
        parts: Primary and guard metric on known users and on new ones.
        minutes: Of all steps.
        peak_gb: The largest memory that a step held.
        epochs: That the exported model was trained for.
        recall: The best validation recall, or that of all pairs together; None where the epochs
            were set.
        lists: What ``measure_lists`` found, of a simulated market.
    """

    metrics: Mapping[str, float]
    best_baseline: Mapping[str, tuple[str, float]]
    parts: Sequence[Part]
    minutes: float
    peak_gb: float
    epochs: int
    recall: float | None
    lists: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def run_seed(public: PublicSet, seed: int, data: Path, out: Path) -> Found:
    """Run one seed in a process of its own, unless it was run, and read what it found.

    Raises:
        subprocess.CalledProcessError: It failed; the error is on the screen.
    """
    settings = read_run(public, seed, data)
    folder = find_folder(settings, out)
    last = LISTS_FILE if settings.ingestion.source == "simulated" else METRICS_FILE
    if not (find_evaluation(settings, out) / last).exists():
        arguments = [public.name, str(seed), str(data), str(out)]
        subprocess.run([sys.executable, "-m", __name__, *arguments], check=True)
    metrics = (settings.evaluation.guard_metric, settings.evaluation.metric)
    return read_found(folder, find_evaluation(settings, out), metrics)


def read_run(public: PublicSet, seed: int, data: Path) -> RunSettings:
    """The settings of one seed."""
    path = (f"ingestion.path={data / public.folder}",) if public.folder else ()
    changes = (*path, f"training.seed={seed}", *FEW_QUERIES, *public.changes)
    return read_settings(public.config, changes)


def find_folder(settings: RunSettings, out: Path) -> Path:
    """Where a run keeps its model: another one for other data, features or training."""
    kept = settings.model_dump(mode="json", include={"ingestion", "features"})
    trained = settings.model_dump(mode="json", include={"training"})
    return out / fingerprint(kept)[:12] / fingerprint(trained)[:12]


def find_evaluation(settings: RunSettings, out: Path) -> Path:
    """Where a run keeps its results: another one for another evaluation too."""
    key = fingerprint(settings.evaluation.model_dump(mode="json"))
    return find_folder(settings, out) / f"evaluation-{key[:12]}"


def run_steps(settings: RunSettings, out: Path) -> None:
    """Run every step that has not been run."""
    from components.evaluation.evaluate import evaluate
    from components.features.build import build_features
    from components.indexing.build import build_index
    from components.ingestion.ingest import ingest
    from components.training.train import train

    folder = find_folder(settings, out)
    shared = folder.parent
    shared.mkdir(parents=True, exist_ok=True)
    dataset, features, model = shared / "dataset", shared / "features", folder / "model"
    if not dataset.exists():
        with _counted(shared, "ingest"):
            ingest(settings.ingestion, dataset)
    if not features.exists():
        with _counted(shared, "features"):
            build_features(settings.features, dataset, features)
    folder.mkdir(exist_ok=True)
    if not model.exists():
        with _counted(folder, "train"):
            train(settings.training, features, model, folder / "checkpoints")
    with _counted(folder, "index"):
        build_index(settings.indexing, features, model, folder / "index")
    with _counted(folder, "evaluate"):
        found = find_evaluation(settings, out)
        evaluate(settings.evaluation, features, model, folder / "index", found)
    if settings.ingestion.source == "simulated":
        from tests.benchmarks.quality.perfect import measure_lists

        write_json(found / LISTS_FILE, measure_lists(settings, features, model))


def read_found(folder: Path, evaluation: Path, metrics: tuple[str, str]) -> Found:
    """Read what a run found, from the folders of its model and of its evaluation.

    Args:
        folder: Of the model.
        evaluation: Of its evaluation.
        metrics: Names of the guard metric and of the primary metric.
    """
    results = read_json(evaluation / METRICS_FILE)
    model, *others = results["methods"]
    values = {name: found["value"] for name, found in model["metrics"].items()}
    baselines = [method for method in others if method["metrics"]]
    best = {
        name: max((method["metrics"][name]["value"], method["name"]) for method in baselines)
        for name in values
        if baselines
    }
    costs = [cost for at in (folder.parent, folder) for cost in _read_costs(at).values()]
    trained = read_json(folder / "model" / "model.json")
    recalls = [epoch["recall"] for epoch in trained["epochs"] if epoch["recall"] is not None]
    joined = trained.get("joined_recall")
    return Found(
        metrics=values,
        best_baseline={name: (who, value) for name, (value, who) in best.items()},
        parts=list(_read_parts(results, [method["name"] for method in baselines], metrics)),
        minutes=sum(cost["seconds"] for cost in costs) / 60,
        peak_gb=max((cost["peak_gb"] for cost in costs), default=0.0),
        epochs=trained["chosen_epoch"],
        recall=max(recalls, default=None) if joined is None else joined,
        lists=read_json(lists) if (lists := evaluation / LISTS_FILE).exists() else {},
    )


def _read_parts(
    results: Mapping[str, Any], baselines: Sequence[str], metrics: tuple[str, str]
) -> Iterator[Part]:
    """Known and new users, of a set that has both."""
    found = [part for part in results["slices"] if part["name"] in PARTS and part["n"]]
    for part in found if len(found) == len(PARTS) and baselines else ():
        for metric, kind, gain in zip(metrics, ("guard", "metrics"), GAINS, strict=True):
            value, best = max((part[kind][name]["value"], name) for name in baselines)
            yield Part(
                queries=part["name"],
                n=part["n"],
                metric=metric,
                value=part[kind]["model"]["value"],
                best_baseline=(best, value),
                gain_low=part[gain][best]["low"],
            )


@contextmanager
def _counted(folder: Path, step: str) -> Iterator[None]:
    """Add the seconds of a step to those of earlier tries, also if it is cut off by an error."""
    started = time.monotonic()
    try:
        yield
    finally:
        costs = _read_costs(folder)
        before = costs.get(step, {"seconds": 0.0, "peak_gb": 0.0})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        costs[step] = {
            "seconds": round(before["seconds"] + time.monotonic() - started, 1),
            "peak_gb": round(max(before["peak_gb"], peak), 2),
        }
        write_json(folder / COSTS_FILE, costs)


def _read_costs(folder: Path) -> dict[str, Any]:
    path = folder / COSTS_FILE
    costs: dict[str, Any] = read_json(path) if path.exists() else {}
    return costs


def main(arguments: list[str]) -> None:
    """Run one seed in this process."""
    name, seed, data, out = arguments
    set_up_logging()
    (public,) = (each for each in SETS if each.name == name)
    run_steps(read_run(public, int(seed), Path(data)), Path(out))


if __name__ == "__main__":
    main(sys.argv[1:])
