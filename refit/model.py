"""The manifest of a model folder: the two towers, their training and their identity."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from refit.files import read_json, write_json
from refit.settings import Settings

MODEL_FILE = "model.json"
QUERY_TOWER = "query_tower"
ITEM_TOWER = "item_tower"
CURVE_FILE = "curve.png"


ModelKind = Literal["model", "baseline"]
"""Whether a model has learned to match people and items, or ranks as a baseline does."""


class Epoch(Settings):
    """One pass over the training examples.

    Attributes:
        loss: Mean weighted training loss.
        recall: Validation recall@K by full ranking; None if it was not measured.
        seconds: Training time, without the evaluation.
    """

    number: int
    loss: float
    recall: float | None
    seconds: float
    examples: int


def best_epoch(epochs: Sequence[Epoch]) -> int:
    """Number of the epoch with the highest recall, of equal ones the first."""
    return max(epochs, key=lambda epoch: (epoch.recall or 0.0, -epoch.number)).number


class TowerPair(Settings):
    """One of several pairs of towers that were joined, alone.

    Attributes:
        seed: Of its training.
        epochs: As ``ModelManifest.epochs``.
        chosen_epoch: Number of epochs that its exported weights were trained for.
        recall: Validation recall@K of the chosen epoch; None if it was not measured.
    """

    seed: int
    epochs: tuple[Epoch, ...]
    chosen_epoch: int
    recall: float | None


class ModelManifest(Settings):
    """The properties of the towers of a model folder, and their training data.

    Attributes:
        embedding_version: Checksum of both tower folders; that of index and reference must match.
        embedding_size: Length D of query and item embeddings; a score is their dot product.
        content_size: Length C of an item's content vector, which represents it in histories.
        learned_size: Number of leading entries of the embeddings that are learned or spectral; the
            rest is popularity.
        settings: TrainSettings as plain values.
        packages: Versions of the packages that it was trained with.
        trained_from, trained_until: Period of the examples behind the exported weights,
            [from, until).
        kind: ``model``, or ``baseline`` for one that is served as itself.
        recall_at: The K of ``epochs[].recall``.
        epochs: The epochs of the training without the validation split; if the number of epochs
            was fixed in advance, those of the only training. Of several pairs, the first one's.
        chosen_epoch: Number of epochs that the exported weights were trained for. Of several
            pairs, the first one's.
        final_fit: Whether the exported weights were trained again on train and validation together.
        pairs: Where several pairs of towers were joined, each of them.
        joined_recall: Their validation recall@K together, each after its chosen epoch; None for
            one pair, or if it was not measured.
        spectral_weight: What spectral scores count, of ``spectral_weights``; None without any.
        spectral_recall: Validation recall@K with them, of the towers of the chosen epoch; None if
            it was not measured.
    """

    embedding_version: str
    embedding_size: int
    content_size: int
    learned_size: int
    settings: dict[str, Any]
    packages: dict[str, str]
    trained_from: datetime
    trained_until: datetime
    train_examples: int
    recall_at: int
    epochs: tuple[Epoch, ...]
    chosen_epoch: int
    final_fit: bool
    dataset_fingerprint: str = ""
    kind: ModelKind = "model"
    pairs: tuple[TowerPair, ...] = ()
    joined_recall: float | None = None
    spectral_weight: float | None = None
    spectral_recall: float | None = None

    @classmethod
    def read(cls, folder: Path) -> "ModelManifest":
        """Read the manifest of a model or bundle folder."""
        return cls.parse(read_json(folder / MODEL_FILE))

    def write(self, folder: Path) -> None:
        """Write the manifest into a folder."""
        write_json(folder / MODEL_FILE, self.model_dump(mode="json"))
