"""Keep a prediction log: merge small parts, drop old days, remove a person's answers.

All of it may run beside servers, readers and itself, and may be killed at any time: what counts is
switched by one compare and set, see ``refit.log_parts``. Of two that change the same day at once,
one begins again, after a wait of random length, so that both come to an end.
"""

import io
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from refit.errors import RefitError
from refit.log_parts import DAY, MANIFEST, MERGED, LogParts
from refit.prediction import PREDICTION_SCHEMA, build_predictions
from refit.progress import log_message
from refit.remote import has_folders, put_whole, remove_files

GRACE = timedelta(hours=1)
"""So long a part that was replaced stays for those who are reading it."""
ROWS = 500_000
"""The most answers of a merged part."""
GROUP_ROWS = 20_000
"""The answers of a row group, which bounds the memory that merging takes."""
LEAST_TODAY = 100
"""With fewer small parts a day that goes on is left alone."""
AT_ONCE = 64
"""So many small parts are read at once."""
ATTEMPTS = 10
FIRST_WAIT, LONGEST_WAIT = 0.05, 5.0
"""Seconds: the bounds of the random waits between attempts, which double."""


@dataclass(frozen=True)
class KeptDay:
    """What was done to one day of a log.

    Attributes:
        day: Such as ``2026-03-01``.
        before, after: Number of parts that counted before and afterwards.
        rows: Answers that were written again.
        removed: Answers that were removed.
        unreadable: Names of parts that could not be read; they were left as they are.
    """

    day: str
    before: int
    after: int
    rows: int = 0
    removed: int = 0
    unreadable: tuple[str, ...] = ()


@dataclass
class _Written:
    """Merged parts that are not named yet."""

    names: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    rows: int = 0
    removed: int = 0
    unreadable: list[str] = field(default_factory=list)


def compact(
    log: LogParts,
    now: datetime,
    *,
    dry_run: bool = False,
    tell: Callable[[KeptDay], None] = lambda day: None,
) -> list[KeptDay]:
    """Merge the small parts of each day into a few large ones, and remove what was merged before.

    Args:
        log: The log.
        now: The time; of the day that goes on, only many parts are merged.
        dry_run: Only tell what would be merged.
        tell: Called for each day that changes.

    Returns:
        The days that changed.

    Raises:
        RefitError: The store cannot compare before it writes, or a manifest is damaged.
        OSError: The log cannot be read or written.
    """
    done = []
    for day in log.days():
        if not dry_run:
            _sweep(log, day, now)
        live, is_over = log.live(day), day < f"{now:%Y-%m-%d}"
        sources = _find_sources(live, is_over=is_over)
        if not sources:
            continue
        if dry_run:
            kept = KeptDay(day, len(live), len(live) - len(sources) + 1)
        else:
            kept = _rewrite(log, day, now, partial(_find_sources, is_over=is_over))
        if kept.before != kept.after or kept.unreadable:  # else somebody else has merged them
            tell(kept)
            done.append(kept)
    return done


def _find_sources(names: Sequence[str], is_over: bool) -> list[str]:
    """The parts to merge: the small ones, and on days that are over merged ones with few rows."""
    small = [name for name in names if not name.startswith(MERGED)]
    if not is_over:
        return small if len(small) >= LEAST_TODAY else []
    few = [name for name in names if name.startswith(MERGED) and _rows_of(name) < ROWS // 2]
    return [*small, *few] if len(small) + len(few) > 1 else []


def _rows_of(merged: str) -> int:
    return int(merged.removeprefix(MERGED).partition("-")[0])


def drop_days(
    log: LogParts, keep_days: int, today: datetime, now: datetime, *, dry_run: bool = False
) -> list[KeptDay]:
    """Remove the days that are older than so many days.

    Age is counted from ``today`` or the log's newest day, whichever is earlier, so that a log whose
    time is not that of the clock is not lost.

    Raises:
        RefitError, OSError: As ``compact``.
    """
    days = log.days()
    if not days:
        return []
    newest = datetime.fromisoformat(days[-1]).replace(tzinfo=today.tzinfo)
    first = min(newest, today) - timedelta(days=keep_days)
    done = []
    for day in days:
        if day >= f"{first:%Y-%m-%d}" or not log.list_day(day):
            continue
        count = len(log.live(day))
        if not dry_run:
            _drop(log, day, now)
        done.append(KeptDay(day, count, 0))
    return done


def _drop(log: LogParts, day: str, now: datetime) -> None:
    for _ in _take_turns():
        seen, manifest = log.see_manifest(day)
        names = log.list_day(day)
        live = manifest.select(names)
        if not live or log.replace_manifest(day, seen, manifest.replace(live, (), now)):
            remove_files(log.store, [log.path(day, n) for n in names if n != MANIFEST])
            remove_files(log.store, [log.path(day, MANIFEST)])
            _remove_folder(log, day)
            return
    raise RefitError(f"{log.place}: {DAY}{day} is changed by others all the time; try again")


def _take_turns() -> Iterator[None]:
    """Attempts to change what others may change too, with a random wait before each but one."""
    yield
    for attempt in range(ATTEMPTS - 1):
        time.sleep(random.uniform(0, min(FIRST_WAIT * 2**attempt, LONGEST_WAIT)))
        yield


def _remove_folder(log: LogParts, day: str) -> None:
    if has_folders(log.store):
        with suppress(OSError):  # a part has come
            log.store.rmdir(f"{log.root}/{DAY}{day}")


def remove_person(
    log: LogParts,
    user_id: str,
    now: datetime,
    *,
    dry_run: bool = False,
    tell: Callable[[KeptDay], None] = lambda day: None,
) -> list[KeptDay]:
    """Remove all answers to a person.

    The parts that held them are removed at once: who is reading them begins again.

    Args:
        log: The log.
        user_id: The person.
        now: The time.
        dry_run: Only count.
        tell: Called for each day that changes.

    Returns:
        The days that held answers to the person.

    Raises:
        RefitError, OSError: As ``compact``.
    """
    done = []
    for day in log.days():
        if not dry_run:
            _remove_replaced(log, day, now)
        kept = _count_all(log, day, user_id)
        if kept.removed and not dry_run:
            kept = _rewrite(log, day, now, partial(_find_holding, log, day, user_id), user_id)
            _remove_replaced(log, day, now)
        if kept.removed or kept.unreadable:
            tell(kept)
            done.append(kept)
    return done


def _count_all(log: LogParts, day: str, user_id: str) -> KeptDay:
    counts = {name: _count(log, day, name, user_id) for name in log.live(day)}
    unreadable = tuple(name for name, count in counts.items() if count is None)
    found = sum(count or 0 for count in counts.values())
    return KeptDay(day, len(counts), len(counts), removed=found, unreadable=unreadable)


def _find_holding(log: LogParts, day: str, user_id: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if _count(log, day, name, user_id)]


def _count(log: LogParts, day: str, name: str, user_id: str) -> int | None:
    """Answers to a person in a part; None if it cannot be read."""
    count = 0
    try:
        with log.store.open(log.path(day, name), "rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=["user_id"]):
                count += pc.sum(pc.equal(batch["user_id"], user_id)).as_py() or 0
    except FileNotFoundError:
        return 0  # merged meanwhile
    except pa.ArrowException:
        return None
    return count


def _rewrite(
    log: LogParts,
    day: str,
    now: datetime,
    choose: Callable[[list[str]], Sequence[str]],
    without: str = "",
) -> KeptDay:
    """Replace parts of a day by merged ones, in one step; without the answers to a person."""
    for _ in _take_turns():
        seen, manifest = log.see_manifest(day)
        live = manifest.select(log.list_day(day))
        sources = [name for name in choose(live) if name in live]
        try:
            written = _write(log, day, sources, without)
        except FileNotFoundError:
            continue  # somebody else has replaced a part, and it is gone
        unreadable = tuple(written.unreadable)
        if not written.sources:
            return KeptDay(day, len(live), len(live), unreadable=unreadable)
        changed = manifest.replace(written.sources, written.names, now)
        if log.replace_manifest(day, seen, changed):
            after = len(live) - len(written.sources) + len(written.names)
            return KeptDay(day, len(live), after, written.rows, written.removed, unreadable)
        remove_files(log.store, [log.path(day, name) for name in written.names])
    raise RefitError(f"{log.place}: {DAY}{day} is changed by others all the time; try again")


def _write(log: LogParts, day: str, sources: Sequence[str], without: str) -> _Written:
    """Write the answers of parts as merged parts, which do not count yet."""
    written = _Written()
    with tempfile.TemporaryDirectory(prefix="refit-merge-") as folder:
        writer = _MergeWriter(Path(folder))
        for name, tables in _read(log, day, sources):
            if tables is None:
                written.unreadable.append(name)
                log_message(f"prediction log: {log.path(day, name)} cannot be read; it is left")
                continue
            written.sources.append(name)
            for table in tables:
                kept = _leave_out(table, without) if without else table
                written.rows += len(kept)
                written.removed += len(table) - len(kept)
                writer.add(kept)
        for path, rows in writer.finish():
            name = f"{MERGED}{rows:09d}-{uuid.uuid4().hex}.parquet"
            put_whole(log.store, path, log.path(day, name))
            written.names.append(name)
    return written


def _leave_out(table: pa.Table, user_id: str) -> pa.Table:
    return table.filter(pc.fill_null(pc.not_equal(table["user_id"], user_id), True))


class _MergeWriter:
    """Writes tables as files of at most ``ROWS`` rows, with few of them in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0
        self._files: list[tuple[Path, int]] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._n_waiting += len(table)
        if self._n_waiting >= GROUP_ROWS:
            self._flush()

    def finish(self) -> list[tuple[Path, int]]:
        """The files, each with its number of rows."""
        self._flush()
        self._close()
        return self._files

    def _flush(self) -> None:
        if not self._n_waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting, self._n_waiting = [], 0
        if self._writer is None:
            path = self._folder / f"{len(self._files)}.parquet"
            self._writer = pq.ParquetWriter(path, PREDICTION_SCHEMA, compression="zstd")
            self._files.append((path, 0))
        self._writer.write_table(table, row_group_size=GROUP_ROWS)
        path, rows = self._files[-1]
        self._files[-1] = path, rows + len(table)
        if rows + len(table) >= ROWS:
            self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _read(
    log: LogParts, day: str, names: Sequence[str]
) -> Iterator[tuple[str, Iterator[pa.Table] | None]]:
    """The answers of each part; None for one that cannot be read."""
    small = [name for name in names if not name.startswith(MERGED)]
    for start in range(0, len(small), AT_ONCE):
        paths = {log.path(day, name): name for name in small[start : start + AT_ONCE]}
        # A store answers many requests at once; a part that is gone was merged by somebody else.
        contents = log.store.cat(list(paths), on_error="raise")
        for path, content in contents.items():
            name = path.rsplit("/", 1)[-1]
            try:
                yield name, iter([_conform(pq.read_table(io.BytesIO(content)))])
            except (pa.ArrowException, OSError):
                yield name, None
    for name in names:
        if name.startswith(MERGED):
            with log.store.open(log.path(day, name), "rb") as file:
                yield name, _read_groups(file)


def _read_groups(file: Any) -> Iterator[pa.Table]:
    parquet = pq.ParquetFile(file)
    for group in range(parquet.num_row_groups):
        yield _conform(parquet.read_row_group(group))


def _conform(table: pa.Table) -> pa.Table:
    """A part as one of today's schema; columns that it lacks are null."""
    if table.schema.equals(PREDICTION_SCHEMA):
        return table
    columns = {name: table[name] for name in PREDICTION_SCHEMA.names if name in table.column_names}
    return build_predictions(columns, len(table))


def _sweep(log: LogParts, day: str, now: datetime) -> None:
    """Remove parts that were replaced a while ago, and what killed merges have left."""
    names = log.list_day(day)
    if MANIFEST not in names and not any(name.startswith(MERGED) for name in names):
        return
    manifest = log.read_manifest(day)
    old = manifest.replaced_before(now - GRACE).intersection(names)
    remove_files(log.store, [log.path(day, name) for name in old])
    unnamed = manifest.find_unnamed(names)
    left = [name for name in unnamed if _is_old(log, log.path(day, name), now)]
    _remove_unnamed(log, day, left, now)


def _is_old(log: LogParts, path: str, now: datetime) -> bool:
    try:
        modified: datetime = log.store.modified(path)
    except FileNotFoundError:
        return False
    return modified <= now - GRACE


def _remove_unnamed(log: LogParts, day: str, names: Sequence[str], now: datetime) -> None:
    """Remove merged parts that do not count, once nobody can make them count any more."""
    if not names:
        return
    seen, manifest = log.see_manifest(day)
    left = set(names) - set(manifest.parts)
    if log.replace_manifest(day, seen, manifest.replace((), (), now)):
        remove_files(log.store, [log.path(day, name) for name in left])


def _remove_replaced(log: LogParts, day: str, now: datetime) -> None:
    """Remove everything of a day that does not count."""
    names = log.list_day(day)
    if MANIFEST not in names and not any(name.startswith(MERGED) for name in names):
        return
    manifest = log.read_manifest(day)
    gone = manifest.gone.intersection(names)
    remove_files(log.store, [log.path(day, name) for name in gone])
    _remove_unnamed(log, day, manifest.find_unnamed(names), now)
