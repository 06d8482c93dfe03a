"""Which encoders made the items' vectors; kept with the vectors, the features, and the bundle.

Vectors of two encoders cannot be compared, and a tower that was trained on one reads nonsense from
the other. So everything that carries such a vector also carries its ``encoder_version``.
"""

from pathlib import Path
from typing import Any, Literal

from refit.files import fingerprint, read_json, write_json
from refit.health import HealthCheck
from refit.settings import Settings

ENCODED_FILE = "encoded.json"
ITEM_VECTORS = "vectors.parquet"
"""One row for each row of the dataset's items, or of their versions: ``item_id``, ``valid_from``
where there are versions, and the column of vectors; null where an item has no vector."""
UNREAD_FILE = "unread.parquet"
"""Pictures that are named and cannot be read: ``item_id``, ``picture``, ``reason``."""
CHAMPION_FOLDER = "champion"
"""Inside: the same by the champion's encoders, where these are others."""
ENCODER_VERSION = "encoder_version"
"""The field of a stock feed's line that names the encoders behind its vector."""
VERSION_DIGITS = 16


class EncodedPart(Settings):
    """One part of the item vectors, and what made it. Each part has length 1, or is zeros.

    Attributes:
        encoder: Name of the encoder; of vectors that the items have, the name of their column.
        reads: What it reads.
        size: Number of entries.
        checksum: SHA-256 of the encoder's files; empty for vectors that the items have.
        code: Version of the code around those files.
        columns: The item columns whose texts are joined, in order.
        settings: All settings of the encoder, so that the same vectors can be made again.
    """

    encoder: str
    reads: Literal["text", "picture", "vector"]
    size: int
    checksum: str = ""
    code: str = ""
    columns: tuple[str, ...] = ()
    settings: dict[str, Any] = {}

    @property
    def version(self) -> str:
        """Hash of everything that shapes the vectors; where things are found shapes none."""
        options = self.settings.get("options", {})
        shaping = self.model_dump(mode="json", exclude={"settings"}) | {"options": options}
        return fingerprint(shaping)[:VERSION_DIGITS]


class ItemEncoding(Settings):
    """How the items' vectors were made: the parts of one column, in order.

    Attributes:
        column: The item column with the vectors.
        parts: At least one.
    """

    column: str
    parts: tuple[EncodedPart, ...]

    @property
    def encoder_version(self) -> str:
        """Hash over the parts in their order; only vectors of one version are compared."""
        return fingerprint([part.version for part in self.parts])[:VERSION_DIGITS]

    @property
    def size(self) -> int:
        """Number of entries of a vector."""
        return sum(part.size for part in self.parts)

    def __str__(self) -> str:
        """Such as ``wordllama (256) + onnx_picture (128), version 1f2e...``."""
        parts = " + ".join(f"{part.encoder} ({part.size})" for part in self.parts)
        return f"{parts}, version {self.encoder_version}"


class EncodedItems(Settings):
    """What the encoding step wrote into a folder.

    Attributes:
        encoding: How the vectors were made; None: no encoder is set, and there are no vectors.
        problem: Why there are no vectors although there should be; only for a champion's encoders.
        rows: Number of rows.
        encoded: How many contents were encoded now, because the store did not have them.
        health: What is missing.
    """

    encoding: ItemEncoding | None = None
    problem: str = ""
    rows: int = 0
    encoded: int = 0
    health: tuple[HealthCheck, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "EncodedItems":
        """Read the record of a folder."""
        return cls.parse(read_json(folder / ENCODED_FILE))

    def write(self, folder: Path) -> None:
        """Write the record into a folder."""
        write_json(folder / ENCODED_FILE, self.model_dump(mode="json"))


def differ(one: ItemEncoding | None, other: ItemEncoding | None) -> bool:
    """Whether two columns of vectors cannot be compared."""
    versions = (each.encoder_version if each else "" for each in (one, other))
    return len({*versions}) > 1
