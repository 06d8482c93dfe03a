"""What is encoded of each item: its texts, joined, or the place of its picture.

The items are read as a stream, twice: first the keys of their contents, then the contents that have
no vector yet. So the texts of millions of items are never in memory together.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.encoding.cache import KEY_BYTES, Keys
from components.encoding.settings import EncoderSettings, find_names
from refit.contract import VALID_FROM
from refit.dataset import ITEM_VERSIONS_FILE, ITEMS_FILE
from refit.errors import DataValidationError, UsageError

BATCH_ROWS = 16_384
BETWEEN = ". "
"""Between the texts of two columns."""


@dataclass(frozen=True)
class Content:
    """What is encoded of an item.

    Attributes:
        value: The text, or the place of the picture.
        stamp: What else has to be the same for the vector to be the same.
    """

    value: str
    stamp: str = ""

    @property
    def key(self) -> bytes:
        """Hash of the content."""
        digest = hashlib.blake2b(digest_size=KEY_BYTES)
        digest.update(self.value.encode())
        if self.stamp:
            digest.update(b"\0" + self.stamp.encode())
        return digest.digest()


class ItemRows:
    """The rows of a dataset's items, or of their versions if there are any.

    Args:
        dataset: A dataset folder.
    """

    def __init__(self, dataset: Path) -> None:
        versions = dataset / ITEM_VERSIONS_FILE
        self.path = versions if versions.exists() else dataset / ITEMS_FILE
        self.names: tuple[str, ...] = tuple(pq.read_schema(self.path).names)
        self.keys = ("item_id", VALID_FROM) if versions.exists() else ("item_id",)

    def __len__(self) -> int:
        return int(pq.read_metadata(self.path).num_rows)

    def require(self, columns: Sequence[str], setting: str) -> None:
        """Check that the items have columns.

        Raises:
            UsageError: They do not; the message names those that they have.
        """
        if missing := [name for name in columns if name not in self.names]:
            raise UsageError(
                f"{setting}: the items have no column {missing[0]!r}; they have:"
                f" {', '.join(sorted(self.names))}"
            )

    def stream(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows in their order, in batches."""
        with pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(columns)))


def contents_of(settings: EncoderSettings, batch: pa.RecordBatch) -> list[Content | None]:
    """[B] what an encoder reads of the rows of a batch; None where a row has nothing for it."""
    if settings.columns:
        return [Content(text) if text else None for text in _join_texts(settings, batch)]
    return _find_pictures(settings, batch)


@dataclass(frozen=True)
class DistinctContents:
    """The U distinct contents of N rows.

    Attributes:
        keys: [U] sorted.
        of_row: [N] the position in ``keys`` of each row's content; -1 where it has none.
    """

    keys: Keys
    of_row: NDArray[np.int64]


def find_distinct(rows: ItemRows, settings: EncoderSettings) -> DistinctContents:
    """Find the distinct contents of all rows, by their keys."""
    parts, there = [], []
    for batch in rows.stream(settings.read_columns):
        found = contents_of(settings, batch)
        there.append(np.array([content is not None for content in found], dtype=np.bool_))
        of_batch = [content.key for content in found if content is not None]
        parts.append(np.array(of_batch, dtype=f"S{KEY_BYTES}"))
    has_content = np.concatenate(there) if there else np.empty(0, np.bool_)
    every = np.concatenate(parts) if parts else np.empty(0, f"S{KEY_BYTES}")
    keys, positions = np.unique(every, return_inverse=True)
    of_row = np.full(len(has_content), -1, dtype=np.int64)
    of_row[has_content] = positions
    return DistinctContents(keys, of_row)


def stream_new(
    rows: ItemRows,
    settings: EncoderSettings,
    distinct: DistinctContents,
    is_wanted: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
) -> Iterator[tuple[int, Content]]:
    """The contents without a vector, each once: its position in the keys, and itself.

    Args:
        rows: The rows.
        settings: What the encoder reads.
        distinct: From ``find_distinct``.
        is_wanted: Whether positions have no vector, as far as is known when it is called.
    """
    start = 0
    seen = np.zeros(len(distinct.keys), dtype=np.bool_)
    for batch in rows.stream(settings.read_columns):
        positions = distinct.of_row[start : start + len(batch)]
        start += len(batch)
        candidates = np.flatnonzero(positions >= 0)
        candidates = candidates[is_wanted(positions[candidates]) & ~seen[positions[candidates]]]
        if not len(candidates):
            continue
        found = contents_of(settings, batch.take(pa.array(candidates)))
        for position, content in zip(positions[candidates].tolist(), found, strict=True):
            if not seen[position] and content is not None:
                seen[position] = True
                yield position, content


def find_kept_size(rows: ItemRows, column: str) -> int:
    """The length of the vectors that the items have.

    Raises:
        DataValidationError: They have several lengths, or none, or are no vectors.
    """
    lengths: set[int] = set()
    kind = pq.read_schema(rows.path).field(column).type
    if not (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise DataValidationError(f"encoding.keep: items.{column} holds no vectors, but {kind}")
    for batch in rows.stream((column,)):
        found = pc.unique(pc.list_value_length(batch.column(column)).drop_null())
        lengths.update(found.to_pylist())
    if len(lengths) != 1:
        raise DataValidationError(
            f"encoding.keep: the vectors of items.{column} must have one length, found"
            f" {sorted(lengths) or 'none'}"
        )
    return lengths.pop()


def _join_texts(settings: EncoderSettings, batch: pa.RecordBatch) -> list[str]:
    # Not by Arrow's binary_join_element_wise: it leaves out a row in which all texts are null.
    columns = [[text.strip() for text in _texts(batch.column(name))] for name in settings.columns]
    return [BETWEEN.join(filter(None, texts)) for texts in zip(*columns, strict=True)]


def _find_pictures(settings: EncoderSettings, batch: pa.RecordBatch) -> list[Content | None]:
    named = {name: _texts(batch.column(name)) for name in settings.read_columns}
    changes_with = named.get(settings.changes_with)
    from_columns = find_names(settings.pictures)
    found: list[Content | None] = []
    for row in range(len(batch)):
        values = {name: named[name][row] for name in from_columns}
        if not all(values.values()):
            found.append(None)
            continue
        place = settings.pictures.format_map(values)
        found.append(Content(place, changes_with[row] if changes_with else ""))
    return found


def _texts(column: pa.Array) -> list[str]:
    """[B] the values as text, "" where missing."""
    texts: list[str] = pc.fill_null(pc.cast(column, pa.string()), "").to_pylist()
    return texts
