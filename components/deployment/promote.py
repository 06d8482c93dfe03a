"""Assemble a bundle, add it to the registry, and make it the champion or the candidate."""

import tempfile
from pathlib import Path

from components.deployment.settings import DeploySettings
from refit.bundle import Bundle, assemble_bundle
from refit.dataset import DatasetManifest
from refit.errors import GateRefused, RefitError
from refit.features import FeaturesManifest
from refit.files import read_json
from refit.index import IndexManifest
from refit.progress import log_message
from refit.registry import Registry


def deploy(
    settings: DeploySettings,
    *,
    features: Path,
    dataset: Path,
    model: Path,
    index: Path,
    evaluation: Path,
    reference: Path,
    registry: str,
    champion: str = "",
    reason: str = "",
) -> str:
    """Assemble a bundle and promote it; the registry's servers load the new champion.

    With the target ``seldon`` the bundle is proposed instead, and a rollout makes it champion.
    The function is idempotent: after a kill it finds the bundle that it promoted or proposed.

    Args:
        settings: Target, author, and how many bundles to keep.
        features: Features folder that the index was built from.
        dataset: Dataset folder that the features were built from.
        model: Model folder; a bundle folder if only the index is new.
        index: Index folder.
        evaluation: Evaluation folder with a passed verdict.
        reference: Drift reference folder.
        registry: Folder or URL of the registry.
        champion: Id of the bundle that the evaluation compared with, "" if there was none.
        reason: Recorded in the audit trail.

    Returns:
        The bundle id of the new champion or candidate.

    Raises:
        GateRefused: The verdict did not pass, or the champion has changed since the evaluation.
        RefitError: The parts were built from different data or different towers.
    """
    data = DatasetManifest.read(dataset)
    _check_same_data(data, features, index)
    store = Registry(registry)
    with tempfile.TemporaryDirectory() as folder:
        bundle = assemble_bundle(
            model=model,
            index=index,
            evaluation=evaluation,
            reference=reference,
            out_root=Path(folder),
            dataset=data,
        )
        bundle_id = _promoted_before(store, bundle, champion)
        bundle_id = bundle_id or _proposed_before(store, bundle, champion)
        if not bundle_id:
            _check_champion(store, champion)
            bundle_id = store.add(bundle)
            reason = reason or "passed the gate"
            if settings.target == "seldon":
                store.propose(bundle_id, champion, settings.by, reason)
            else:
                store.promote(bundle_id, settings.by, reason)
    for removed in store.prune(settings.keep_bundles, _compared_with(evaluation)):
        log_message(f"removed the old bundle {removed}")
    return bundle_id


def _compared_with(evaluation: Path) -> set[str]:
    """Bundles that the evaluation compared with; later evaluations may need them again."""
    metrics = evaluation / "metrics.json"
    methods = read_json(metrics).get("methods", ()) if metrics.is_file() else ()
    return {m["extension"] for m in methods if m["kind"] == "champion" and m["extension"]}


def _promoted_before(store: Registry, bundle: Bundle, champion: str) -> str:
    """Id of the champion, if a killed attempt promoted the same towers and index; else ""."""
    current = store.champion()
    if current is None or current.action != "promote" or (current.previous or "") != champion:
        return ""
    return current.bundle_id if _serves_same(bundle, store.get(current.bundle_id)) else ""


def _proposed_before(store: Registry, bundle: Bundle, champion: str) -> str:
    """Id of the candidate, if a killed attempt proposed the same towers and index; else ""."""
    candidate = store.candidate()
    if candidate is None or candidate.champion != champion:
        return ""
    return candidate.bundle_id if _serves_same(bundle, store.get(candidate.bundle_id)) else ""


def _serves_same(one: Bundle, other: Bundle) -> bool:
    return _served_files(one) == _served_files(other)


def _served_files(bundle: Bundle) -> dict[str, str]:
    """Checksums of towers and index; a repeated evaluation may differ in its other files."""
    folders = ("query_tower/", "item_tower/", "index/")
    return {name: c for name, c in bundle.manifest.checksums.items() if name.startswith(folders)}


def _check_champion(store: Registry, champion: str) -> None:
    if (current := store.champion_id()) != champion:
        raise GateRefused(
            f"the evaluation compared with {champion or 'no champion'}, but the champion is now "
            f"{current or 'none'}; evaluate again"
        )


def _check_same_data(data: DatasetManifest, features: Path, index: Path) -> None:
    for folder, actual in (
        (features, FeaturesManifest.read(features).dataset_fingerprint),
        (index, IndexManifest.read(index).dataset_fingerprint),
    ):
        if actual != data.fingerprint:
            raise RefitError(
                f"{folder} was built from the data {actual!r}, but the dataset is "
                f"{data.fingerprint!r}; run the steps again on one dataset"
            )
