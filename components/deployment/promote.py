"""Assemble a bundle, add it to the registry, and make it the champion or the candidate.

A bundle that its gate refused is added, too, so that a person can promote it by name.
"""

import tempfile
from pathlib import Path

from components.deployment.settings import DeploySettings
from refit.bundle import Bundle, assemble_bundle
from refit.dataset import DatasetManifest
from refit.errors import GateRefused, RefitError, UsageError
from refit.features import FeaturesManifest
from refit.files import read_json
from refit.index import IndexManifest
from refit.progress import log_message
from refit.registry import Registry, explain_other_champion


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
    first_model: bool = False,
    force: bool = False,
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
        first_model: Whether there is no champion because this is the first model.
        force: Whether a person has promoted these towers in spite of their verdict, so that a new
            index of theirs needs no passed verdict either.

    Returns:
        The bundle id of the new champion or candidate.

    Raises:
        GateRefused: The verdict did not pass, the model is blocked, or the champion has changed
            since the evaluation.
        UsageError: There was no champion, and nobody said that this is the first model.
        RefitError: The parts were built from different data or different towers.
    """
    data = DatasetManifest.read(dataset)
    _check_same_data(data, features, index)
    store = Registry(registry)
    if not champion and not first_model:
        raise UsageError(
            f"the evaluation compared with no champion, and it is not said that this is the first "
            f"model of {registry}: nothing is deployed (--first-model says so)"
        )
    with tempfile.TemporaryDirectory() as folder:
        bundle = assemble_bundle(
            model=model,
            index=index,
            evaluation=evaluation,
            reference=reference,
            out_root=Path(folder),
            dataset=data,
        )
        _check_kind(store, bundle, champion)
        bundle_id = _promoted_before(store, bundle, champion)
        bundle_id = bundle_id or _proposed_before(store, bundle, champion)
        if not bundle_id:
            _check_champion(store, champion)
            bundle_id = store.add(bundle)
            reason = reason or "passed the gate"
            if bundle.manifest.kind == "baseline":
                reason = f"{reason} (a baseline as itself)"
            if settings.target == "seldon":
                store.propose(bundle_id, champion, settings.by, reason, force)
            else:
                store.promote(bundle_id, settings.by, reason, force, expected=champion)
    _prune(store, settings, _compared_with(evaluation))
    return bundle_id


def keep_refused(
    settings: DeploySettings,
    *,
    features: Path,
    dataset: Path,
    model: Path,
    index: Path,
    evaluation: Path,
    reference: Path,
    registry: str,
) -> str:
    """Assemble a bundle that its gate refused, and add it to the registry; nothing is promoted.

    Args:
        settings: How many refused bundles to keep.
        features: Features folder that the index was built from.
        dataset: Dataset folder that the features were built from.
        model: Model folder.
        index: Index folder.
        evaluation: Evaluation folder with a verdict that did not pass.
        reference: Drift reference folder.
        registry: Folder or URL of the registry.

    Returns:
        The bundle's id. After a kill it is the id of the bundle that was added before.

    Raises:
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
        bundle_id = _refused_before(store, bundle) or store.add(bundle)
    log_message(f"{bundle_id} is kept as refused")
    _prune(store, settings, _compared_with(evaluation))
    return bundle_id


def _prune(store: Registry, settings: DeploySettings, compared: set[str]) -> None:
    needed = compared if settings.keep_compared else set()
    for removed in store.prune(settings.keep_bundles, settings.keep_refused, needed):
        log_message(f"removed the old bundle {removed}")


def _compared_with(evaluation: Path) -> set[str]:
    """Bundles that the evaluation compared with; later evaluations may need them again."""
    metrics = evaluation / "metrics.json"
    methods = read_json(metrics).get("methods", ()) if metrics.is_file() else ()
    return {m["extension"] for m in methods if m["kind"] == "champion" and m["extension"]}


def _refused_before(store: Registry, bundle: Bundle) -> str:
    """Id of the latest refused bundle, if it has the same towers and index; else ""."""
    refused = [bundle_id for bundle_id, role in store.roles().items() if role == "refused"]
    if not refused:
        return ""
    return refused[-1] if _serves_same(bundle, store.get(refused[-1])) else ""


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
        raise GateRefused(explain_other_champion(champion, current))


def _check_kind(store: Registry, bundle: Bundle, champion: str) -> None:
    """Check that a baseline takes no model's place; a new index of its own towers may follow it."""
    manifest = bundle.manifest
    if manifest.kind != "baseline" or not champion:
        return
    if store.get(champion).manifest.embedding_version != manifest.embedding_version:
        raise GateRefused(
            f"a baseline is served as itself only while there is no champion, but {champion} serves"
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
