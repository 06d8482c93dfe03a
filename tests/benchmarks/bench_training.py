"""Speed of training: ``python tests/benchmarks/bench_training.py FEATURES [SETTINGS]``.

FEATURES is a features folder, SETTINGS a JSON object of TrainSettings. Prints one JSON object:
seconds in total, and examples/s of the fastest epoch, which tracing and cold caches do not slow.
"""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from components.training.settings import TrainSettings
from components.training.train import train


def measure(features: Path, settings: TrainSettings) -> dict[str, float]:
    """Train once."""
    with TemporaryDirectory() as folder:
        started = time.monotonic()
        manifest = train(settings, features, Path(folder) / "model")
        seconds = time.monotonic() - started
    return {
        "seconds": round(seconds, 1),
        "examples_per_second": round(max(e.examples / e.seconds for e in manifest.epochs)),
        "examples": manifest.train_examples,
        "epochs": len(manifest.epochs) + manifest.chosen_epoch * manifest.final_fit,
    }


if __name__ == "__main__":
    settings = TrainSettings.parse(json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]), settings)) + "\n")
