"""What order costs: ``python tests/benchmarks/bench_query_tower.py [HISTORY_LENGTH CONTENT_SIZE]``.

Exports a pooled query tower, one with the sequence of events, in one layer and in two, two pooled
ones side by side, one with spectral vectors of 512 numbers, and a pooled one that reads 20 events,
untrained, for the process that answers, and runs them in turn on single queries with full
histories. Prints one JSON object: the 50th and 99th percentile of each in milliseconds, and the
ratios of the medians to that of the pooled one, and to that of 20 events.
"""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from components.training.recommenders import require_legacy_keras
from components.training.settings import TrainSettings
from refit.contract import INTEREST
from refit.features import FeaturesManifest, FeatureSpec, Inputs, query_inputs
from refit.in_process_tower import InProcessTower

WARM_UP, QUERIES = 200, 3000
SHORT = 20
"""Events that a history had by default before it had 50."""
SURFACES = ("home", "search", "category")


def export(settings: TrainSettings, manifest: FeaturesManifest, base: Path) -> InProcessTower:
    """Export an untrained query tower and load it."""
    require_legacy_keras()
    from components.training.export import export_query_tower
    from components.training.in_process import export_in_process_tower
    from components.training.pairs import JoinedQueryTower
    from components.training.spectral import SpectralQueryTower
    from components.training.towers import QueryTower, check_embedding_size
    from components.training.vocabulary import Vocabulary

    values = {"context_surface": SURFACES, "user_country": ("FR", "DE")}
    shares = {"surface": np.full(len(SURFACES), 1 / len(SURFACES), np.float32)}
    vocabulary = Vocabulary(values, {"user_age": (30.0, 9.0)}, shares, 1)
    towers = [QueryTower(settings, manifest, vocabulary) for _ in range(settings.tower_pairs)]
    tower = JoinedQueryTower(towers, settings.learned_size) if towers[1:] else towers[0]
    size = size_of_content(settings)
    if (spectral := settings.spectral_size) != "auto" and spectral:
        rng = np.random.default_rng(2)
        own = check_embedding_size(settings, manifest)
        root = rng.normal(size=(own, own)).astype(np.float32)
        tower = SpectralQueryTower(tower, np.ones(spectral, np.float32), root)
    tower(make_query(manifest.spec, size))
    export_query_tower(tower, manifest, size, base)
    export_in_process_tower(tower, manifest, size, base)
    return InProcessTower(base)


def size_of_content(settings: TrainSettings) -> int:
    """Length of the content vectors of a history."""
    from components.training.spectral import added_to_content

    spectral = 0 if settings.spectral_size == "auto" else settings.spectral_size
    return settings.tower_pairs * settings.content_size + added_to_content(spectral)


def make_query(spec: FeatureSpec, content_size: int) -> Inputs:
    """One query with a full history."""
    rng = np.random.default_rng(1)
    length = spec.history_length
    return query_inputs(
        spec,
        {"surface": ["search"]},
        {"country": ["FR"], "age": [31.0]},
        rng.normal(size=(1, length, content_size)).astype(np.float32),
        rng.choice(INTEREST, (1, length)).astype(object),
        np.cumsum(rng.exponential(2, (1, length)), axis=1).astype(np.float32),
    )


def measure(length: int, content_size: int) -> dict[str, object]:
    """Run the towers in turn, so that whatever else the machine does hits all."""
    pooled = TrainSettings(content_size=content_size)
    variants = {
        "pooled_of_20": (SHORT, pooled),
        "pooled": (length, pooled),
        "sequence": (length, TrainSettings(content_size=content_size, history="sequence")),
        "sequence_of_two_layers": (
            length,
            TrainSettings(content_size=content_size, history="sequence", sequence_layers=2),
        ),
        "two_pooled_pairs": (length, TrainSettings(content_size=content_size, tower_pairs=2)),
        "pooled_and_spectral": (
            length,
            TrainSettings(content_size=content_size, id_embedding="always", spectral_size=512),
        ),
    }
    with TemporaryDirectory() as folder:
        towers = {}
        for name, (events, settings) in variants.items():
            manifest = make_manifest(events)
            query = make_query(manifest.spec, size_of_content(settings))
            towers[name] = export(settings, manifest, Path(folder) / name), query
        took: dict[str, list[float]] = {name: [] for name in towers}
        for _ in range(WARM_UP + QUERIES):
            for name, (tower, query) in towers.items():
                started = time.perf_counter()
                tower.run(query)
                took[name].append(1000 * (time.perf_counter() - started))
    found = {
        name: [round(float(np.percentile(times[WARM_UP:], q)), 4) for q in (50, 99)]
        for name, times in took.items()
    }
    return {
        "history_length": length,
        "content_size": content_size,
        "queries": QUERIES,
        "p50_p99_ms": found,
        **{
            f"p50_to_that_of_{reference}": {
                name: round(times[0] / found[reference][0], 2) for name, times in found.items()
            }
            for reference in ("pooled", "pooled_of_20")
        },
    }


def make_manifest(length: int) -> FeaturesManifest:
    """Features with histories of a length."""
    spec = FeatureSpec(
        context_categorical=("surface",),
        user_categorical=("country",),
        user_numeric=("age",),
        history_length=length,
        popularity_by=("surface",),
    )
    return FeaturesManifest(
        spec=spec, popularity_values={"surface": SURFACES}, vector_size=0, snapshots=()
    )


if __name__ == "__main__":
    length, content_size = (int(each) for each in sys.argv[1:3] or (50, 32))
    sys.stdout.write(json.dumps(measure(length, content_size)) + "\n")
