"""What a model folder holds: the two towers, how they came about, and how to tell them apart."""

from datetime import datetime
from pathlib import Path
from typing import Any

from refit.files import read_json, write_json
from refit.settings import Settings

MODEL_FILE = "model.json"
QUERY_TOWER = "query_tower"
ITEM_TOWER = "item_tower"
CURVE_FILE = "curve.png"


class Epoch(Settings):
    """One pass over the training examples.

    Attributes:
        loss: Mean weighted training loss.
        recall: Validation recall@K by full ranking; None where it was not measured.
        seconds: Training time, without the measuring.
    """

    number: int
    loss: float
    recall: float | None
    seconds: float
    examples: int


class ModelManifest(Settings):
    """What the towers of a model folder are and what they were trained on.

    Attributes:
        embedding_version: Checksum over both tower folders; index and reference must name the same.
        embedding_size: Length D of query and item embeddings; a score is their dot product.
        content_size: Length C of an item's content vector, by which histories hold it.
        learned_size: The first entries of the embeddings, learned; the rest is popularity.
        settings: TrainSettings as plain values.
        packages: Versions of the packages that made it.
        trained_from, trained_until: The examples behind the exported weights, [from, until).
        recall_at: The K of ``epochs[].recall``.
        epochs: Training with validation held out, epoch by epoch; where the number of epochs was
            settled beforehand, the only training.
        chosen_epoch: How many epochs the exported weights were trained for.
        final_fit: Whether these were trained anew, on train and validation together.
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

    @classmethod
    def read(cls, folder: Path) -> "ModelManifest":
        """Read the manifest of a model or bundle folder."""
        return cls.parse(read_json(folder / MODEL_FILE))

    def write(self, folder: Path) -> None:
        """Write the manifest into a folder."""
        write_json(folder / MODEL_FILE, self.model_dump(mode="json"))
