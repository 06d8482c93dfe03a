"""A features folder without its test split: what tuning reads, so that it cannot read more."""

from pathlib import Path

import pyarrow.parquet as pq

from components.training.tuning.settings import HISTORY_LENGTH
from refit.errors import DataValidationError, UsageError
from refit.feature_tables import REQUESTS, examples_file, snapshot_file
from refit.features import FEATURES_FILE, FeaturesManifest

HIDDEN = frozenset(examples_file(split) for split in ("test", REQUESTS))


def hide_test(features: Path, folder: Path, history_length: int | None = None) -> Path:
    """Make a view of a features folder that ends with the validation split.

    Its files are links. The test examples, the requests and the item snapshots after the last one
    that a validation example reads are not among them: whatever reads them fails.

    Args:
        features: A features folder.
        folder: The view, a new folder.
        history_length: A shorter length of the histories; None keeps it.

    Raises:
        DataValidationError: There are no validation examples.
        UsageError: The histories are shorter than ``history_length``.
    """
    manifest = FeaturesManifest.read(features)
    last = _last_snapshot(features)
    later = {snapshot_file(i) for i in range(last + 1, len(manifest.snapshots))}
    folder.mkdir(parents=True)
    for path in sorted(path for path in features.rglob("*") if path.is_file()):
        name = path.relative_to(features).as_posix()
        if name not in HIDDEN | later | {FEATURES_FILE}:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(path.resolve())
    _with_history_length(manifest, history_length).write(folder)
    return folder


def _with_history_length(manifest: FeaturesManifest, length: int | None) -> FeaturesManifest:
    """The manifest of the same tables, of whose histories only the newest events are read."""
    if length is None or length == manifest.spec.history_length:
        return manifest
    if length > manifest.spec.history_length:
        raise UsageError(
            f"tuning: {HISTORY_LENGTH} is tried up to that of the config, "
            f"{manifest.spec.history_length}: raise it there, or narrow tuning.space"
        )
    spec = manifest.spec.model_copy(update={"history_length": length})
    return manifest.model_copy(update={"spec": spec})


def _last_snapshot(features: Path) -> int:
    numbers = pq.read_table(features / examples_file("validation"), columns=["snapshot"])
    if not numbers.num_rows:
        raise DataValidationError("there are no validation examples; widen the validation window")
    return int(numbers["snapshot"].to_numpy().max())
