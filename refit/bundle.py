"""The Bundle: one immutable version of all artifacts that serving needs.

A bundle is a folder. Its manifest holds the checksum of every other file, and the bundle's id holds
a checksum of the manifest, so every change of a file is detected.
"""

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from refit.dataset import DatasetManifest
from refit.errors import RefitError
from refit.files import checksum, fingerprint, read_json, remove, write_atomically, write_json
from refit.model import ModelKind
from refit.settings import Settings
from refit.subject import INDEX_VERDICT_FILE, MODEL_PARTS, VerdictSubject
from refit.verdict import Verdict

MANIFEST_FILE = "manifest.json"
VERDICT_FILE = "verdict.json"
FOLDERS = ("query_tower", "item_tower", "index", "reference", "evaluation")
PAIRED = ("model.json", "index/index.json", "reference/thresholds.json")
"""The files that contain the ``embedding_version`` of the towers they belong to."""
UNNAMED = "its verdict does not name what it judged"


class BundleManifest(Settings):
    """The contents and the origin of a bundle.

    Attributes:
        bundle_id: UTC creation time, to the millisecond, and 8 hex digits of a checksum of the
            rest of this manifest.
        embedding_version: The towers that index and reference belong to.
        as_of: The time at which the items of the index are live.
        trained_from, trained_until: The data window that the towers were trained on.
        dataset_fingerprint: The dataset that the towers were trained on.
        kind: ``model``, or ``baseline`` where a baseline is served as itself.
        source, simulated: Name of the data source, and whether its data is simulated.
        checksums: SHA-256 of every file, by its path inside the bundle.
    """

    bundle_id: str
    created_at: datetime
    embedding_version: str
    as_of: datetime
    trained_from: datetime | None = None
    trained_until: datetime | None = None
    dataset_fingerprint: str = ""
    kind: ModelKind = "model"
    source: str = ""
    simulated: bool = False
    settings: dict[str, Any] = {}
    packages: dict[str, str] = {}
    checksums: dict[str, str]

    @property
    def index_fingerprint(self) -> str:
        """Hash of the checksums of the index's data; its manifest has times of measurement."""
        files = {name for name in self.checksums if name.startswith("index/")} - set(PAIRED)
        return fingerprint({name: self.checksums[name] for name in files})


@dataclass(frozen=True)
class Bundle:
    """An existing bundle folder, with the paths of its parts."""

    path: Path
    manifest: BundleManifest

    @property
    def bundle_id(self) -> str:
        """The bundle's id, which is also its folder name in a registry."""
        return self.manifest.bundle_id

    @property
    def query_tower(self) -> Path:
        """SavedModel base folder of the query tower; holds an integer version folder."""
        return self.path / "query_tower"

    @property
    def item_tower(self) -> Path:
        """SavedModel base folder of the item tower; holds an integer version folder."""
        return self.path / "item_tower"

    @property
    def index(self) -> Path:
        """Index folder."""
        return self.path / "index"

    @property
    def reference(self) -> Path:
        """Drift reference folder."""
        return self.path / "reference"

    @property
    def evaluation(self) -> Path:
        """Evaluation folder, with the verdict."""
        return self.path / "evaluation"

    def read_verdict(self) -> Verdict | None:
        """Read the gate's verdict; None if the bundle has none."""
        return _read_verdict(self.evaluation / VERDICT_FILE)

    def find_unjudged(self) -> str:
        """Why the verdicts in the bundle are not about its own parts; "" if they are.

        The evaluation's verdict must be on these towers and data. The index must be the one that
        it judged, or one that a passed verdict of its own judged with these towers.
        """
        actual = VerdictSubject.of_checksums(
            self.manifest.checksums, self.manifest.dataset_fingerprint
        )
        verdict = self.read_verdict()
        if verdict is None or verdict.subject is None:
            return UNNAMED
        others = verdict.subject.differences(actual)
        if others == ("index",) and self._has_judged_index(actual):
            others = ()
        return f"its verdict is on another {' and another '.join(others)}" if others else ""

    def _has_judged_index(self, actual: VerdictSubject) -> bool:
        """Whether a passed verdict in the index folder is on this index, with these towers."""
        verdict = _read_verdict(self.index / INDEX_VERDICT_FILE)
        if verdict is None or not verdict.passed or verdict.subject is None:
            return False
        return not {"model", "index"} & {*verdict.subject.differences(actual)}


def assemble_bundle(
    *,
    model: Path,
    index: Path,
    evaluation: Path,
    reference: Path,
    out_root: Path,
    dataset: DatasetManifest | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Bundle:
    """Copy the parts of a bundle into one folder under ``out_root``, atomically.

    Args:
        model: Model folder, or a bundle folder if only the index is new.
        index: Index folder.
        evaluation: Evaluation folder.
        reference: Drift reference folder.
        out_root: Parent of the bundle's folder, which is named by its id.
        dataset: Manifest of the dataset; its source is recorded in the bundle's manifest.
        settings: The run's settings, recorded in the manifest beside those of the model.

    Raises:
        RefitError: A part is missing, or belongs to other towers; the message names the file.
    """
    parts = {name: model / name for name in MODEL_PARTS}
    parts |= {"index": index, "evaluation": evaluation, "reference": reference}
    for path in parts.values():
        if not path.exists():
            raise RefitError(f"{path} does not exist; a bundle cannot be assembled without it")
    draft = out_root / f".{uuid.uuid4().hex[:8]}.partial"
    try:
        draft.mkdir(parents=True)
        for name, source in parts.items():
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, draft / name)
        _check_pairing(draft)
        manifest = _describe(draft, dataset, settings or {})
        write_json(draft / MANIFEST_FILE, manifest.model_dump(mode="json"))
        fault = Bundle(draft, manifest).find_unjudged()
        if fault and fault != UNNAMED:
            raise RefitError(f"{evaluation / VERDICT_FILE}: {fault}; evaluate these parts")
        path = out_root / manifest.bundle_id
        with write_atomically(path) as staging:
            draft.rename(staging)
    finally:
        remove(draft)
    return Bundle(path, manifest)


def load_bundle(path: Path, verify: bool = True) -> Bundle:
    """Open a bundle folder.

    Args:
        path: The bundle's folder.
        verify: Read every file and verify its checksum. If not set, only the manifest, the
            presence of the files and the pairing of the parts are checked.

    Raises:
        RefitError: A file is missing, changed, not part of the bundle, or from other towers; the
            message names it.
    """
    if not (path / MANIFEST_FILE).is_file():
        raise RefitError(f"{path} is not a bundle: it has no {MANIFEST_FILE}")
    written = read_json(path / MANIFEST_FILE)
    if "embedding_version" not in written:
        raise RefitError(
            f"{path} was built by an earlier state of Refit, whose files have other names: "
            "build a new bundle with refit run"
        )
    manifest = BundleManifest.parse(written)
    if not manifest.bundle_id.endswith(f"-{_content_id(written)}"):
        raise _broken(path / MANIFEST_FILE, "was changed after the bundle was created")
    present = set(_files(path))
    for name, expected in manifest.checksums.items():
        if name not in present:
            raise _broken(path / name, "is missing")
        if verify and checksum(path / name) != expected:
            raise _broken(path / name, "does not match its checksum")
    if unknown := sorted(present - manifest.checksums.keys()):
        raise _broken(path / unknown[0], "is not part of the bundle")
    _check_pairing(path)
    return Bundle(path, manifest)


def _check_pairing(path: Path) -> None:
    """Check that model, index and reference belong to the same towers."""
    expected = read_json(path / PAIRED[0]).get("embedding_version")
    if not expected:
        raise _broken(path / PAIRED[0], "has no embedding_version")
    for name in PAIRED[1:]:
        actual = read_json(path / name).get("embedding_version")
        if actual != expected:
            raise _broken(
                path / name, f"has embedding_version {actual}, but the model has {expected}"
            )


def _read_verdict(path: Path) -> Verdict | None:
    return Verdict.parse(read_json(path)) if path.is_file() else None


def name_bundle(built: datetime, rest: str) -> str:
    """The id of a bundle; ids sort by the time at which they were built."""
    return f"{built:%Y%m%dT%H%M%S}{built.microsecond // 1000:03}Z-{rest}"


def find_build_time(bundle_id: str) -> datetime | None:
    """When a bundle was built, from its id; None where the id holds no time."""
    try:
        built = datetime.strptime(bundle_id.split("-")[0], "%Y%m%dT%H%M%S%fZ")
    except ValueError:
        return None
    return built.replace(tzinfo=UTC)


def _describe(
    path: Path, dataset: DatasetManifest | None, settings: Mapping[str, Any]
) -> BundleManifest:
    model = read_json(path / "model.json")
    features = read_json(path / "features.json")
    now = datetime.now(UTC)
    draft = BundleManifest(
        bundle_id="",
        created_at=now,
        embedding_version=model["embedding_version"],
        as_of=read_json(path / "index" / "index.json")["as_of"],
        trained_from=model.get("trained_from"),
        trained_until=model.get("trained_until"),
        dataset_fingerprint=features.get("dataset_fingerprint", ""),
        kind=model.get("kind", "model"),
        source=dataset.source if dataset else "",
        simulated=dataset.simulated if dataset else False,
        settings={**settings, "model": model.get("settings", {})},
        packages=model.get("packages", {}),
        checksums={name: checksum(path / name) for name in _files(path)},
    )
    content_id = _content_id(draft.model_dump(mode="json"))
    return draft.model_copy(update={"bundle_id": name_bundle(now, content_id)})


def _content_id(manifest: Mapping[str, Any]) -> str:
    """Hash the manifest as written, so that older bundles stay valid when a field is added."""
    return fingerprint({name: v for name, v in manifest.items() if name != "bundle_id"})[:8]


def _files(path: Path) -> list[str]:
    files = (p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    return sorted(name for name in files if name != MANIFEST_FILE)


def _broken(path: Path, fault: str) -> RefitError:
    return RefitError(f"bundle refused: {path} {fault}; promote another bundle or build it again")
