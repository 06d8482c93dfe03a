"""The subject of a verdict: checksums of the model, index, data and settings that were judged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from refit.files import checksum, fingerprint, read_json
from refit.settings import Settings

MODEL_PARTS = ("query_tower", "item_tower", "features.json", "model.json")
INDEX_VERDICT_FILE = "verdict.json"
"""In an index folder: the verdict on a refreshed index, no part of the index that was judged."""


class VerdictSubject(Settings):
    """What a gate judged. A bundle is promoted only by a verdict on its own parts.

    Attributes:
        model: Checksum of both towers, features.json and model.json.
        index: Checksum of the index folder's files.
        dataset: Fingerprint of the dataset that the features were built from.
        settings: Fingerprint of the gate's settings.
    """

    model: str
    index: str
    dataset: str = ""
    settings: str = ""

    @classmethod
    def of_folders(cls, model: Path, index: Path, settings: Settings | None = None) -> Self:
        """Describe the folders that a gate judges.

        Args:
            model: Model folder, or a bundle folder if only the index is new.
            index: Index folder.
            settings: The gate's settings.
        """
        checksums = {
            path.relative_to(model).as_posix(): checksum(path)
            for part in MODEL_PARTS
            for path in _files(model / part)
        }
        checksums |= {
            f"index/{path.relative_to(index).as_posix()}": checksum(path) for path in _files(index)
        }
        features = model / "features.json"
        dataset = read_json(features).get("dataset_fingerprint", "") if features.is_file() else ""
        judged_by = fingerprint(settings.model_dump(mode="json")) if settings else ""
        return cls.of_checksums(checksums, dataset, judged_by)

    @classmethod
    def of_checksums(
        cls, checksums: Mapping[str, str], dataset: str = "", settings: str = ""
    ) -> Self:
        """Describe the parts of a bundle by the checksums in its manifest.

        Args:
            checksums: SHA-256 of every file, by its path inside the bundle.
            dataset: Fingerprint of the dataset.
            settings: Fingerprint of the gate's settings.
        """
        model = {n: c for n, c in checksums.items() if n.split("/")[0] in MODEL_PARTS}
        skipped = f"index/{INDEX_VERDICT_FILE}"
        index = {n: c for n, c in checksums.items() if n.startswith("index/") and n != skipped}
        return cls(
            model=fingerprint(model), index=fingerprint(index), dataset=dataset, settings=settings
        )

    def differences(self, other: "VerdictSubject") -> tuple[str, ...]:
        """The parts in which two subjects differ; settings are no part of a bundle."""
        return tuple(
            name for name in ("model", "index", "dataset")
            if getattr(self, name) != getattr(other, name)
        )  # fmt: skip


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
