"""Settings of the encoding step."""

from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from components.encoding.encoders import ENCODERS
from refit.settings import FiniteSettings, Settings

Device = Literal["cpu", "gpu"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class EncoderSettings(Settings):
    """One encoder, and what it reads of each item.

    Attributes:
        encoder: The encoder: ``wordllama`` (texts; its weights come with its package),
            ``onnx_text`` or ``onnx_picture`` (a folder with an exported model), one that an
            installed package offers, or a dotted name such as ``acme.refit:ENCODER``.
        columns: For texts: the item columns that are joined, in order, such as ``[title,
            description]``.
        pictures: For pictures: where an item's picture is, with item columns in braces, such as
            ``"{picture_url}"`` or ``s3://acme/pictures/{item_id}.jpg``; a path, or any URL that
            fsspec can read.
        roots: For pictures: only what is below one of these folders or URLs is read, such as
            ``[https://img.acme.com/]``. Empty: what stands before the first brace of ``pictures``.
        changes_with: For pictures: an item column that changes when the picture at the same place
            does, such as a time. Empty: a place's picture never changes, and is encoded once.
        path: Folder or URL of the encoder's files; empty where they come with a package.
        options: Options of the encoder.
        size: Cut each vector to its first entries, this many, and scale it to length 1 again: for
            encoders that were trained for it (Matryoshka). None keeps all.
        batch_size: Texts or pictures that are encoded at a time.
        device: Where the model runs. ``gpu`` is an error where none is visible.
        checksum: SHA-256 of the encoder's files, to refuse others. Each run fills it in.
    """

    encoder: str
    columns: tuple[str, ...] = ()
    pictures: str = ""
    roots: tuple[str, ...] = ()
    changes_with: str = ""
    path: str = ""
    options: dict[str, Any] = {}
    size: PositiveInt | None = None
    batch_size: PositiveInt = 64
    device: Device = "cpu"
    checksum: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    @field_validator("encoder")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if not ENCODERS.is_known(name):
            raise ValueError(ENCODERS.explain_unknown(name))
        return name

    @field_validator("pictures")
    @classmethod
    def _is_a_template(cls, template: str) -> str:
        if template and not find_names(template):
            raise ValueError(
                "names no item column: write one in braces, such as"
                ' "https://img.example/{item_id}.jpg"'
            )
        return template

    @model_validator(mode="after")
    def _reads_one_thing(self) -> Self:
        if bool(self.columns) == bool(self.pictures):
            raise ValueError("give either columns, for texts, or pictures")
        if not self.pictures and (self.roots or self.changes_with):
            raise ValueError("roots and changes_with are for pictures")
        if self.pictures and not self.picture_roots:
            raise ValueError(
                "roots: name the folders or URLs below which pictures may be read, since the items"
                f" give the whole place ({self.pictures!r})"
            )
        return self

    @property
    def picture_roots(self) -> tuple[str, ...]:
        """The places below which pictures may be read."""
        literal = self.pictures.partition("{")[0]
        return self.roots or ((literal.rpartition("/")[0] + "/",) if "/" in literal else ())

    @property
    def read_columns(self) -> tuple[str, ...]:
        """The item columns that it reads."""
        further = (self.changes_with,) if self.changes_with else ()
        return (*self.columns, *find_names(self.pictures), *further)


class EncodingSettings(FiniteSettings):
    """Settings of the encoding step. Without an encoder it does nothing.

    Attributes:
        encoders: The encoders, each of which gives a part of the vectors, in this order.
        keep: Vector columns of the items, such as ``[image_embedding]``, whose vectors are further
            parts, scaled to length 1.
        column: The item column that gets the vectors; ``features.spec.item_vector`` names it.
        threads: Threads of a model on a CPU; 0 is one for each core.
        most_unread: The largest share of the pictures that are named and may be missing or
            unreadable; above it the step fails.
        fetch_threads: Pictures that are read at the same time.
        fetch_seconds: How long the reading of one picture may take.
        largest_picture_mb: Larger pictures are not read.
    """

    encoders: tuple[EncoderSettings, ...] = ()
    keep: tuple[str, ...] = ()
    column: str = Field(default="listing_vector", min_length=1)
    threads: int = Field(default=0, ge=0)
    most_unread: Share = 0.1
    fetch_threads: PositiveInt = 16
    fetch_seconds: PositiveFloat = 20.0
    largest_picture_mb: PositiveFloat = 20.0

    @model_validator(mode="after")
    def _has_an_encoder(self) -> Self:
        if self.keep and not self.encoders:
            raise ValueError(
                "keep: there is no encoder to join its vectors with; name the column in"
                " features.spec.item_vector instead"
            )
        if self.column in self.keep:
            raise ValueError(f"column: {self.column!r} is kept as it is; give another name")
        return self


def find_names(template: str) -> tuple[str, ...]:
    """The names in braces of a template.

    Raises:
        ValueError: Braces do not match, or hold more than a name.
    """
    names = []
    for _, name, form, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name.isidentifier() or form or conversion:
            raise ValueError(f"braces may hold the name of an item column only, not {{{name}}}")
        names.append(name)
    return tuple(dict.fromkeys(names))
