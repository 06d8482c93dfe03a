"""The protocol of encoders, and how the encoders of a run are found and opened."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from components.encoding.encoders import ENCODERS
from components.encoding.settings import Device, EncoderSettings, EncodingSettings
from refit.encoding import EncodedPart
from refit.errors import RefitError, UsageError
from refit.extensions import naming
from refit.files import checksum, fingerprint
from refit.remote import download, is_url
from refit.settings import Settings

ADVICE = "correct its code; the traceback is in the log"


class Encoder(Protocol):
    """An encoder that is open."""

    @property
    def size(self) -> int:
        """Number of entries of its vectors."""

    def encode(self, contents: Sequence[Any]) -> NDArray[np.float32]:
        """[B, size] vectors of B contents, at least one; zeros where one has no meaning to it.

        Args:
            contents: Texts, or pictures as ``PIL.Image.Image`` in RGB.
        """


class EncoderKind(Protocol):
    """A module, or an object in one, that opens encoders of one kind.

    One that takes options also has ``Options``, a subclass of ``refit.settings.Settings``.
    """

    READS: Literal["text", "picture"]
    """What its encoders read."""
    CODE: str
    """Version of its code; another one whenever the same content gets another vector by it."""

    def find_files(self, options: Any, folder: Path | None) -> Sequence[Path]:
        """The files that the encoder consists of; their content is part of its version.

        Args:
            options: The options, as ``Options``; None for a kind without options.
            folder: The local folder of the encoder's files; None where no ``path`` is set.

        Raises:
            UsageError: A file is missing; the message says what is needed.
        """

    def open_encoder(
        self, options: Any, folder: Path | None, device: Device, threads: int
    ) -> Encoder:
        """Load the encoder.

        Raises:
            UsageError: It does not fit the options, or the device is not visible.
        """


@dataclass(frozen=True)
class FoundEncoder:
    """An encoder whose files are there, not loaded yet.

    Attributes:
        settings: Its settings, with the checksum of its files.
        kind: What opens it.
        options: Its options, as its kind reads them.
        folder: The local folder of its files, if it has one.
    """

    settings: EncoderSettings
    kind: EncoderKind
    options: Any
    folder: Path | None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"encoder {self.settings.encoder!r}"

    @property
    def version(self) -> str:
        """Hash of what shapes the vector of a content: files, options and code."""
        return fingerprint(
            {
                "encoder": self.settings.encoder,
                "checksum": self.settings.checksum,
                "options": self._given_options,
                "code": self.kind.CODE,
            }
        )

    def open(self, settings: EncodingSettings) -> Encoder:
        """Load it; an error of its code names it."""
        with naming(self.name, ADVICE):
            return self.kind.open_encoder(
                self.options, self.folder, self.settings.device, settings.threads
            )

    def describe(self, full_size: int) -> EncodedPart:
        """The record of its part of the vectors.

        Raises:
            UsageError: The vectors are shorter than they are to be cut.
        """
        size = self.settings.size or full_size
        if size > full_size:
            raise UsageError(
                f"{self.name}: its vectors have {full_size} entries, which cannot be cut to {size}"
            )
        written = self.settings.model_copy(update={"options": self._given_options})
        return EncodedPart(
            encoder=self.settings.encoder,
            reads=self.kind.READS,
            size=size,
            checksum=self.settings.checksum,
            code=self.kind.CODE,
            columns=self.settings.columns,
            settings=written.model_dump(mode="json"),
        )

    @property
    def _given_options(self) -> dict[str, Any]:
        """The options that differ from their defaults, so that a new one changes no version."""
        if self.options is None:
            return {}
        given: dict[str, Any] = self.options.model_dump(mode="json", exclude_defaults=True)
        return given


@contextmanager
def finding(settings: EncoderSettings) -> Iterator[FoundEncoder]:
    """Find an encoder, and download its files for the time of the block.

    Raises:
        UsageError: It does not exist, lacks a file, does not take its options, reads something
            else than it is set to, or its files are not those of ``checksum``.
        ServiceUnreachable: Its URL cannot be read.
    """
    kind = cast(EncoderKind, ENCODERS.load(settings.encoder))
    name = f"encoder {settings.encoder!r}"
    wanted = "text" if settings.columns else "picture"
    if wanted != kind.READS:
        setting = "columns" if kind.READS == "text" else "pictures"
        raise UsageError(f"{name} reads {kind.READS}s: give its {setting}")
    options = _read_options(settings, kind)
    with _local_folder(settings.path) as folder:
        with naming(name, "correct its find_files()"):
            files = sorted(kind.find_files(options, folder))
        if not files:
            raise UsageError(
                f"{name} finds no file: without one a change of it would not be noticed"
            )
        found = fingerprint([f"{path.name}:{checksum(path)}" for path in files])
        if settings.checksum and found != settings.checksum:
            raise UsageError(
                f"{name}: its files have the checksum {found}, and not {settings.checksum}, with"
                " which they are named; give the files of that version, or, for a new model with"
                " these files, remove the checksum"
            )
        pinned = settings.model_copy(update={"checksum": found})
        yield FoundEncoder(pinned, kind, options, folder)


def pin_encoders(settings: EncodingSettings) -> EncodingSettings:
    """The settings with the checksum of every encoder, so that a step sees that one has changed.

    Raises:
        UsageError: See ``finding``.
        ServiceUnreachable: See ``finding``.
    """
    pinned = []
    for each in settings.encoders:
        with finding(each) as found:
            pinned.append(found.settings)
    return settings.model_copy(update={"encoders": tuple(pinned)})


def encode_checked(encoder: Encoder, name: str, contents: Sequence[Any]) -> NDArray[np.float32]:
    """[B, size] unit vectors, zeros where a content has no meaning to the encoder.

    Raises:
        RefitError: The encoder fails, or its vectors are of another shape or not finite.
    """
    with naming(name, ADVICE):
        vectors = np.asarray(encoder.encode(contents), dtype=np.float32)
    if vectors.shape != (len(contents), encoder.size):
        raise RefitError(
            f"{name} gave an array of shape {vectors.shape} for {len(contents)} contents, and not"
            f" [{len(contents)}, {encoder.size}]; {ADVICE}"
        )
    if not np.isfinite(vectors).all():
        raise RefitError(f"{name} gave numbers that are not finite; {ADVICE}")
    return to_unit(vectors)


def cut_vectors(vectors: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """[N, size] the first entries of unit vectors, rounded to 16 bits, and of length 1 again."""
    return to_unit(vectors[:, :size].astype(np.float16).astype(np.float32))


def to_unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, V] vectors of length 1; zeros stay zeros."""
    length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), dtype=np.float32)


def _read_options(settings: EncoderSettings, kind: EncoderKind) -> Any:
    options: type[Settings] | None = getattr(kind, "Options", None)
    if options is None:
        if settings.options:
            raise UsageError(
                f"encoding.encoders: encoder {settings.encoder!r} takes no options, got"
                f" {', '.join(settings.options)}"
            )
        return None
    return options.parse(settings.options, source=f"options of encoder {settings.encoder!r}")


@contextmanager
def _local_folder(path: str) -> Iterator[Path | None]:
    if not path:
        yield None
    elif is_url(path):
        with TemporaryDirectory(prefix="encoder-") as folder:
            yield download(path, Path(folder))
    else:
        if not Path(path).is_dir():
            raise UsageError(f"encoding.encoders: path: {path} is no folder")
        yield Path(path)
