"""Assemble a bundle, add it to the registry, and make it champion or candidate."""

import tempfile
from pathlib import Path

from components.deployment.settings import DeploySettings
from refit.bundle import Bundle, assemble_bundle
from refit.dataset import DatasetManifest
from refit.errors import GateRefused, RefitError
from refit.features import FeaturesManifest
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
    """Bundle what passed the gate and promote it; servers of the registry take it over.

    With the target ``seldon`` it is proposed instead, and a rollout leads it to its place. Done
    again after a kill, it finds what it promoted or proposed and does not do so twice.

    Args:
        settings: Where to, who does it, and how many bundles stay.
        features: Features folder that the index was built from.
        dataset: Dataset folder behind the features.
        model: Model folder; a bundle folder when only the index is new.
        index: Index folder.
        evaluation: Evaluation folder with a passed verdict.
        reference: Drift reference folder.
        registry: Folder or URL of the registry.
        champion: Id of the bundle that the verdict compared with, "" when there was none.
        reason: Kept in the audit line.

    Returns:
        The new champion's, or candidate's, bundle id.

    Raises:
        GateRefused: The verdict did not pass, or compared with another champion than today's.
        RefitError: The parts were made from different data or of different towers.
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
            reason = reason or "it passed the gate"
            if settings.target == "seldon":
                store.propose(bundle_id, champion, settings.by, reason)
            else:
                store.promote(bundle_id, settings.by, reason)
    for removed in store.prune(settings.keep_bundles):
        log_message(f"removed the old bundle {removed}")
    return bundle_id


def _promoted_before(store: Registry, bundle: Bundle, champion: str) -> str:
    """The champion, when an attempt that was killed before it could tell promoted the same."""
    today = store.champion()
    if today is None or today.action != "promote" or (today.previous or "") != champion:
        return ""
    return today.bundle_id if _serves_same(bundle, store.get(today.bundle_id)) else ""


def _proposed_before(store: Registry, bundle: Bundle, champion: str) -> str:
    """The candidate, when such an attempt proposed the same."""
    candidate = store.candidate()
    if candidate is None or candidate.champion != champion:
        return ""
    return candidate.bundle_id if _serves_same(bundle, store.get(candidate.bundle_id)) else ""


def _serves_same(one: Bundle, other: Bundle) -> bool:
    return _served_files(one) == _served_files(other)


def _served_files(bundle: Bundle) -> dict[str, str]:
    """Checksums of towers and index; a judgement made again is worded anew."""
    folders = ("query_tower/", "item_tower/", "index/")
    return {name: c for name, c in bundle.manifest.checksums.items() if name.startswith(folders)}


def _check_champion(store: Registry, champion: str) -> None:
    if (today := store.champion_id()) != champion:
        raise GateRefused(
            f"the verdict compared with {champion or 'no champion'}, but the champion is now "
            f"{today or 'none'}; judge again"
        )


def _check_same_data(data: DatasetManifest, features: Path, index: Path) -> None:
    for folder, actual in (
        (features, FeaturesManifest.read(features).dataset_fingerprint),
        (index, IndexManifest.read(index).dataset_fingerprint),
    ):
        if actual != data.fingerprint:
            raise RefitError(
                f"{folder} was made from the data {actual!r}, the dataset is {data.fingerprint!r}; "
                "run the steps again on one dataset"
            )
