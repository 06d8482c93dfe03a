"""The encoding step: the vectors of a dataset's items, of which only new contents are encoded."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.encoding.cache import VectorCache
from components.encoding.contents import (
    BATCH_ROWS,
    Content,
    DistinctContents,
    ItemRows,
    find_distinct,
    find_kept_size,
    stream_new,
)
from components.encoding.encoder import (
    FoundEncoder,
    cut_vectors,
    encode_checked,
    finding,
    to_unit,
)
from components.encoding.pictures import PictureReader, Unread, read_ahead
from components.encoding.plan import EncodingPlan, encoders_of
from components.encoding.settings import EncoderSettings, EncodingSettings
from refit.encoding import (
    CHAMPION_FOLDER,
    ENCODED_FILE,
    ITEM_VECTORS,
    UNREAD_FILE,
    EncodedItems,
    EncodedPart,
    ItemEncoding,
    differ,
)
from refit.errors import DataValidationError, RefitError, ServiceUnreachable, UsageError
from refit.feature_tables import vectors
from refit.files import remove, write_atomically
from refit.health import HealthCheck, count_share
from refit.progress import Meter, log_message, timed

SAVED_ROWS = 16_384
SAVED_SECONDS = 60.0
"""New vectors go to the store after so many, or so long: a killed run loses no more."""
SORTED_BATCHES = 64
"""Texts are sorted by length within so many batches, so that few of a batch are padded."""
FEW_PICTURES = 20
"""Of fewer, a share says little: one that does not come in time is no reason to end the step."""
TRIED_PICTURES = 200
"""After so many, a store that does not answer ends the step."""


def encode_items(plan: EncodingPlan, dataset: Path, out: Path, store: str = "") -> EncodedItems:
    """Write the vectors of a dataset's items to ``out``, atomically.

    Args:
        plan: By which encoders; without one nothing but the record is written. What prevents the
            champion's own vectors is no error, but a ``problem`` of their record.
        dataset: A dataset folder of the ingestion step.
        out: The output folder; it is replaced.
        store: Folder or URL of the vectors that earlier runs made; empty encodes everything.

    Raises:
        UsageError: An encoder cannot be loaded or is not the planned one, a column does not exist,
            or the device is not visible.
        DataValidationError: Too many pictures cannot be read.
        ServiceUnreachable: The store, or that of the pictures, does not answer.
    """
    if out.exists() and not (out / ENCODED_FILE).exists() and any(out.iterdir()):
        raise UsageError(f"{out} does not contain encoded items: choose another folder")
    theirs = plan.champion
    with write_atomically(out) as folder:
        encoded = _write(plan.settings, dataset, folder, store, plan.like)
        if theirs is not None and differ(theirs, encoded.encoding):
            log_message(f"the champion has other encoders: {theirs}")
            own = folder / CHAMPION_FOLDER
            try:
                _write(encoders_of(theirs, plan.settings), dataset, own, store, theirs)
            except RefitError as error:
                remove(own)
                own.mkdir()
                EncodedItems(encoding=theirs, problem=str(error)).write(own)
                log_message(f"the items cannot be encoded as for the champion: {error}")
        remove(out)
    return encoded


@dataclass
class _Part:
    """The vectors of one encoder.

    Attributes:
        record: What made them.
        distinct: Which content each row has.
        vectors: [U, V] of the distinct contents, zeros where there is none.
    """

    record: EncodedPart
    distinct: DistinctContents
    vectors: NDArray[np.float16]

    def of_rows(self, start: int, n: int) -> NDArray[np.float32]:
        """[n, size] the vectors of rows from ``start`` on, zeros where one is missing."""
        positions = self.distinct.of_row[start : start + n]
        whole = np.zeros((n, self.vectors.shape[1]), dtype=np.float32)
        there = positions >= 0
        whole[there] = self.vectors[positions[there]]
        return cut_vectors(whole, self.record.size)


@dataclass
class _Tally:
    """What happened to the contents of one encoder.

    Attributes:
        rows: Number of rows.
        without: Rows without a content.
        encoded: Contents that were encoded now.
        unread: By position of the content: the place of a picture, and why it is not read.
    """

    rows: int
    without: int
    encoded: int = 0
    unread: dict[int, tuple[str, Unread]] = field(default_factory=dict)


def _write(
    settings: EncodingSettings,
    dataset: Path,
    folder: Path,
    store: str,
    like: ItemEncoding | None,
) -> EncodedItems:
    folder.mkdir()
    if not settings.encoders:
        encoded = EncodedItems()
        encoded.write(folder)
        return encoded
    rows = ItemRows(dataset)
    _check_columns(rows, settings)
    health, encoded_now, unread = list[HealthCheck](), 0, list[dict[str, str]]()
    with TemporaryDirectory(dir=folder.parent, prefix=".scratch-") as scratch:
        parts = []
        for number, each in enumerate(settings.encoders):
            with finding(each) as found, timed(f"{found.name}: vectors of the items"):
                part, tally = _encode(found, settings, rows, store, Path(scratch) / f"{number}.npy")
            parts.append(part)
            encoded_now += tally.encoded
            health += _check_missing(part, tally, settings)
            unread += _list_unread(rows, part, tally)
        kept = tuple(_describe_kept(rows, column) for column in settings.keep)
        records = (*(part.record for part in parts), *kept)
        encoding = ItemEncoding(column=settings.column, parts=records)
        if like is not None and differ(like, encoding):
            raise UsageError(
                f"the encoders give vectors of version {encoding.encoder_version} ({encoding}), and"
                f" not those that the model was trained with ({like}); give its encoders, or train"
                " a new model"
            )
        with timed("wrote the vectors"):
            n_vectors = _write_vectors(rows, encoding, parts, folder / ITEM_VECTORS)
    _write_unread(unread, folder / UNREAD_FILE)
    health.append(_check_vectors(len(rows), n_vectors, settings))
    for check in health:
        log_message(str(check))
    encoded = EncodedItems(
        encoding=encoding, rows=len(rows), encoded=encoded_now, health=tuple(health)
    )
    encoded.write(folder)
    log_message(f"encoded {encoded_now:,} new contents of {len(rows):,} rows: {encoding}")
    return encoded


def _check_columns(rows: ItemRows, settings: EncodingSettings) -> None:
    for number, each in enumerate(settings.encoders):
        rows.require(each.read_columns, f"encoding.encoders.{number}")
    rows.require(settings.keep, "encoding.keep")
    if settings.column in rows.names:
        raise UsageError(
            f"encoding.column: the items have a column {settings.column!r} already; name another"
        )


def _encode(
    found: FoundEncoder, settings: EncodingSettings, rows: ItemRows, store: str, scratch: Path
) -> tuple[_Part, _Tally]:
    distinct = find_distinct(rows, found.settings)
    tally = _Tally(len(rows), int((distinct.of_row < 0).sum()))
    encoder = found.open(settings)
    record = found.describe(encoder.size)
    shape = (len(distinct.keys), encoder.size)
    # A file that is mapped: vectors of many items need not fit into the memory.
    vectors = (
        np.lib.format.open_memmap(scratch, "w+", np.float16, shape)
        if len(distinct.keys)
        else np.zeros(shape, np.float16)
    )
    known = np.zeros(len(distinct.keys), dtype=np.bool_)
    cache = VectorCache(store, f"{found.settings.encoder.replace(':', '.')}-{found.version[:16]}")
    cache.fill(distinct.keys, vectors, known)
    missing = int((~known).sum())
    log_message(
        f"{found.name}: {missing:,} of {len(distinct.keys):,} distinct contents are new"
        + ("" if store else "; without a store for vectors, every run encodes all of them")
    )
    with Meter(f"encode {found.kind.READS}s", missing, "items", logs=True) as meter:
        new = stream_new(rows, found.settings, distinct, lambda positions: ~known[positions])
        batches = (
            _text_batches(new, found.settings.batch_size)
            if found.kind.READS == "text"
            else _picture_batches(new, found.settings, settings, tally, meter)
        )
        save = _Saving(cache, distinct, vectors)
        try:
            for positions, contents in batches:
                vectors[positions] = encode_checked(encoder, found.name, contents)
                known[positions] = True
                tally.encoded += len(positions)
                save.add(positions)
                meter.advance(len(positions))
        finally:  # what was encoded before an error is kept
            save.finish()
    cache.merge()
    return _Part(record, distinct, vectors), tally


class _Saving:
    """Puts new vectors into the store, many at a time."""

    def __init__(
        self, cache: VectorCache, distinct: DistinctContents, vectors: NDArray[np.float16]
    ) -> None:
        self._cache, self._distinct, self._vectors = cache, distinct, vectors
        self._waiting: list[int] = []
        self._since = time.monotonic()

    def add(self, positions: Sequence[int]) -> None:
        self._waiting += positions
        is_late = time.monotonic() - self._since >= SAVED_SECONDS
        if len(self._waiting) >= SAVED_ROWS or is_late:
            self.finish()

    def finish(self) -> None:
        places = np.array(self._waiting, dtype=np.int64)
        self._cache.add(self._distinct.keys[places], self._vectors[places])
        self._waiting, self._since = [], time.monotonic()


def _text_batches(
    new: Iterator[tuple[int, Content]], size: int
) -> Iterator[tuple[list[int], list[Any]]]:
    """Batches of texts that are about as long."""
    while chunk := list(islice(new, size * SORTED_BATCHES)):
        chunk.sort(key=lambda one: len(one[1].value))
        for start in range(0, len(chunk), size):
            batch = chunk[start : start + size]
            yield [position for position, _ in batch], [one.value for _, one in batch]


def _picture_batches(
    new: Iterator[tuple[int, Content]],
    encoder: EncoderSettings,
    settings: EncodingSettings,
    tally: _Tally,
    meter: Meter,
) -> Iterator[tuple[list[int], list[Any]]]:
    """Batches of pictures that could be read.

    Raises:
        ServiceUnreachable: The store of the pictures does not answer.
    """
    reader = PictureReader(encoder.picture_roots, settings)
    places = ((position, content.value) for position, content in new)
    ahead = max(2 * encoder.batch_size, settings.fetch_threads)
    positions, pictures, tried, away = list[int](), list[Any](), 0, 0
    for position, place, picture in read_ahead(reader, places, settings.fetch_threads, ahead):
        tried += 1
        if isinstance(picture, Unread):
            tally.unread[position] = (place, picture)
            away += picture.is_away
            meter.advance()
        else:
            positions.append(position)
            pictures.append(picture)
        if len(pictures) >= encoder.batch_size:
            yield positions, pictures
            positions, pictures = [], []
        if tried >= TRIED_PICTURES:
            _check_store(tally, tried, away, settings)
    if pictures:
        yield positions, pictures
    _check_store(tally, tried, away, settings)


def _check_store(tally: _Tally, tried: int, away: int, settings: EncodingSettings) -> None:
    if away > settings.most_unread * max(tried, FEW_PICTURES):
        place, why = next(one for one in tally.unread.values() if one[1].is_away)
        raise ServiceUnreachable(
            f"the store of the pictures does not answer for {count_share(away, tried)}, such as"
            f" {place}: {why.reason}"
        )


def _check_missing(
    part: _Part, tally: _Tally, settings: EncodingSettings
) -> tuple[HealthCheck, ...]:
    """Say how many items have nothing to encode, or a picture that cannot be read.

    Raises:
        DataValidationError: Of the pictures, more than the settings allow cannot be read.
    """
    name, kind = part.record.encoder, part.record.reads
    nothing = HealthCheck(
        topic="assumptions",
        name=f"items without a {kind} for {name}",
        shown=count_share(tally.without, tally.rows),
        measured=tally.without / tally.rows if tally.rows else None,
        look=0.5 if tally.rows else None,
        advice="their part of the vector is zeros",
    )
    if kind == "text":
        return (nothing,)
    failed = int(np.isin(part.distinct.of_row, list(tally.unread)).sum()) if tally.unread else 0
    named = tally.rows - tally.without
    why = Counter(unread.reason for _, unread in tally.unread.values()).most_common(3)
    shown = count_share(failed, named)
    reasons = "; ".join(f"{n:,} {reason}" for reason, n in why)
    if named and failed > settings.most_unread * named:
        place = next(iter(tally.unread.values()))[0]
        raise DataValidationError(
            f"{shown} of the pictures cannot be read, more than the {settings.most_unread:.1%} of"
            f" encoding.most_unread: {reasons}; such as {place}"
        )
    unread = HealthCheck(
        topic="assumptions",
        name=f"pictures for {name} that cannot be read",
        shown=shown + (f": {reasons}" if reasons else ""),
        measured=failed / named if named else None,
        look=0.01 if named else None,
        advice=f"their part of the vector is zeros; {UNREAD_FILE} has each with its reason",
    )
    return nothing, unread


def _check_vectors(rows: int, there: int, settings: EncodingSettings) -> HealthCheck:
    return HealthCheck(
        topic="assumptions",
        name=f"items without a {settings.column}",
        shown=count_share(rows - there, rows),
        measured=(rows - there) / rows if rows else None,
        look=0.1 if rows else None,
        advice="the item tower reads zeros for them",
    )


def _describe_kept(rows: ItemRows, column: str) -> EncodedPart:
    return EncodedPart(encoder=column, reads="vector", size=find_kept_size(rows, column))


def _write_vectors(
    rows: ItemRows, encoding: ItemEncoding, parts: Sequence[_Part], path: Path
) -> int:
    """Write the vectors of all rows; return how many rows have one."""
    kept = [part for part in encoding.parts if part.reads == "vector"]
    columns = (*rows.keys, *(part.encoder for part in kept))
    writer, start, n_vectors = None, 0, 0
    try:
        for batch in rows.stream(columns):
            own = [part.of_rows(start, len(batch)) for part in parts]
            theirs = [to_unit(vectors(batch.column(part.encoder), part.size)) for part in kept]
            joined = np.concatenate([*own, *theirs], axis=1)
            there = joined.any(axis=1)
            n_vectors += int(there.sum())
            offsets = pa.array(np.arange(len(batch) + 1) * encoding.size, pa.int32())
            lists = pa.ListArray.from_arrays(
                offsets, pa.array(joined.reshape(-1)), mask=pa.array(~there)
            )
            keys = {name: batch.column(name) for name in rows.keys}
            table = pa.table({**keys, encoding.column: lists})
            writer = writer or pq.ParquetWriter(path, table.schema, use_dictionary=False)
            writer.write_table(table, row_group_size=BATCH_ROWS)
            start += len(batch)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise DataValidationError(f"{rows.path} has no items")
    return n_vectors


def _list_unread(rows: ItemRows, part: _Part, tally: _Tally) -> list[dict[str, str]]:
    if not tally.unread:
        return []
    found, start = [], 0
    for batch in rows.stream(("item_id",)):
        positions = part.distinct.of_row[start : start + len(batch)].tolist()
        for row, position in enumerate(positions):
            if position in tally.unread:
                place, unread = tally.unread[position]
                item_id = str(batch.column("item_id")[row].as_py())
                found.append({"item_id": item_id, "picture": place, "reason": unread.reason})
        start += len(batch)
    return found


def _write_unread(unread: Sequence[dict[str, str]], path: Path) -> None:
    schema = pa.schema([(name, pa.string()) for name in ("item_id", "picture", "reason")])
    pq.write_table(pa.Table.from_pylist(list(unread), schema), path)
