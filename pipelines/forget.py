"""Remove a person from what Refit keeps beside bundles and runs: logs, feeds, tables, pages."""

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from refit.errors import UsageError
from refit.log_keeping import compact, remove_person
from refit.log_parts import LogParts
from refit.remote import open_store, put_whole, remove_files

PEOPLE = ("user_id", "seller_id")
JOURNALS = "_journal"
OUT_OF_REACH = (
    "your own tables: remove the person there first, or the next run brings them back",
    "bundles, with histories, drift reference and evaluation: train again, then refresh the index, "
    "and keep no older bundles",
    "outputs of earlier runs (artifacts): they are a cache, remove them",
    "Kafka: a topic forgets a message when its retention ends; servers that run keep what they "
    "have read until an index refresh",
    "answers that wait in the staging area of a pod while the store is away: repeat this when "
    "refit_log_waiting_parts is 0",
    "backups, versions that a bucket keeps of deleted objects, caches of bundles on other machines",
)
"""What no command of Refit removes."""


@dataclass(frozen=True)
class Forgotten:
    """What was removed in one place.

    Attributes:
        place: The folder, URL or file.
        what: What was removed: answers, rows, lines, pages.
        count: How many.
        files: In how many files.
        left: What may still be there, and what to do; empty: nothing.
    """

    place: str
    what: str
    count: int
    files: int
    left: str = ""


@dataclass(frozen=True)
class PersonalPlaces:
    """Where a person may be; an empty place is left out.

    Attributes:
        log: The prediction log, a folder or URL.
        landing: Folder or URL of the tables that ``serving.feeds.landing`` writes.
        feeds: Folders of feeds.
        letters: Folders of dead letters.
        pages: Folder of the alerts' pages.
    """

    log: str = ""
    landing: str = ""
    feeds: tuple[Path, ...] = ()
    letters: tuple[Path, ...] = ()
    pages: Path | None = None


def forget(
    user_id: str,
    places: PersonalPlaces,
    *,
    dry_run: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Forgotten]:
    """Remove a person from places; to repeat it does no harm.

    Args:
        user_id: The person, as user or seller.
        places: Where.
        dry_run: Only count.
        tell: Called before each place is read.

    Returns:
        What was removed, place by place; also where nothing was.

    Raises:
        RefitError, OSError: A place cannot be read or written; what was removed before is gone.
    """
    if not user_id:
        raise UsageError("name the person: an empty id would match answers to nobody known")
    if places.landing:
        _open_landing(places.landing)  # before anything is removed
    found = []
    for place, remove in _list_places(places):
        tell(place)
        found += remove(user_id, dry_run)
    return found


def _list_places(
    places: PersonalPlaces,
) -> Iterator[tuple[str, Callable[[str, bool], list[Forgotten]]]]:
    if places.log:
        yield places.log, lambda user, dry: [forget_answers(places.log, user, dry)]
    if places.landing:
        yield places.landing, lambda user, dry: forget_rows(places.landing, user, dry)
    for folder in places.feeds:
        yield str(folder), lambda user, dry, at=folder: [blank_lines(at, user, _names, dry)]  # type: ignore[misc]
    for folder in places.letters:
        yield str(folder), lambda user, dry, at=folder: [blank_lines(at, user, mentions, dry)]  # type: ignore[misc]
    if (pages := places.pages) is not None:
        yield str(pages), lambda user, dry: [remove_pages(pages, user, dry)]


def forget_answers(log: str, user_id: str, dry_run: bool) -> Forgotten:
    """Remove the answers to a person from a prediction log."""
    parts, now = LogParts.at(log), datetime.now(UTC)
    if not dry_run:
        compact(parts, now)  # so that few files are looked through
    days = remove_person(parts, user_id, now, dry_run=dry_run)
    left = []
    if broken := [f"date={day.day}/{name}" for day in days for name in day.unreadable]:
        left.append(f"{', '.join(broken)} cannot be read, and may hold the person: remove them")
    if "file" in parts.store.protocol and (waiting := _count_waiting(Path(parts.root), user_id)):
        left.append(f"{waiting} answers are about to be written: repeat this in some seconds")
    return Forgotten(log, "answers", sum(day.removed for day in days), len(days), "; ".join(left))


def _count_waiting(log: Path, user_id: str) -> int:
    """Answers to a person in the journals of servers that run."""
    lines = (
        line for path in (log / JOURNALS).glob("*.jsonl") for line in path.read_bytes().split(b"\n")
    )
    return sum(_names(line, user_id) for line in lines)


def forget_rows(landing: str, user_id: str, dry_run: bool) -> list[Forgotten]:
    """Remove a person's rows from the tables of activity, and their lines from its dead letters."""
    store, root = _open_landing(landing)
    found = []
    for table in ("events", "impressions"):
        rows = files = 0
        for path in store.glob(f"{root}/{table}/*.parquet"):
            part = pq.read_table(io.BytesIO(store.cat_file(path)))
            kept = part.filter(pc.fill_null(pc.not_equal(part["user_id"], user_id), True))
            if len(kept) == len(part):
                continue
            rows, files = rows + len(part) - len(kept), files + 1
            if not dry_run:
                _replace(store, path, _as_parquet(kept) if len(kept) else b"")
        found.append(Forgotten(f"{landing}/{table}", "rows", rows, files))
    lines = files = 0
    for path in store.glob(f"{root}/dead_letters/*.jsonl"):
        letters = store.cat_file(path).splitlines(keepends=True)
        others = [line for line in letters if not mentions(line, user_id)]
        if len(others) == len(letters):
            continue
        lines, files = lines + len(letters) - len(others), files + 1
        if not dry_run:
            _replace(store, path, b"".join(others))
    found.append(Forgotten(f"{landing}/dead_letters", "lines", lines, files))
    return found


def _open_landing(landing: str) -> tuple[Any, str]:
    store, root = open_store(landing)
    if not store.exists(root):
        raise UsageError(f"there are no activity tables at {landing}")
    return store, root


def _replace(store: Any, path: str, content: bytes) -> None:
    """Write a file anew; one without content is removed."""
    if content:
        put_whole(store, content, path)
    else:
        remove_files(store, [path])


def _as_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def blank_lines(
    folder: Path, user_id: str, matches: Callable[[bytes, str], bool], dry_run: bool
) -> Forgotten:
    """Overwrite a person's lines with spaces, which every reader of a feed skips.

    Nothing moves: who writes to a file goes on at its end, and who reads it stays in its place. A
    last line without its end is still being written, and is left.
    """
    lines = files = 0
    left = ""
    for path in sorted(folder.glob("*.jsonl")):
        *whole, rest = path.read_bytes().split(b"\n")
        at = hits = 0
        with path.open("rb" if dry_run else "r+b") as file:
            for line in whole:
                if matches(line, user_id):
                    hits += 1
                    if not dry_run:
                        file.seek(at)
                        file.write(b" " * len(line))
                at += len(line) + 1
        if matches(rest, user_id):
            left = f"the last line of {path.name} is being written: repeat this"
        lines, files = lines + hits, files + bool(hits)
    return Forgotten(str(folder), "lines", lines, files, left)


def _names(line: bytes, user_id: str) -> bool:
    """Whether a line of a feed is about a person."""
    if user_id.encode() not in line and b"\\u" not in line:
        return False
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return mentions(line, user_id)  # rather one line too many
    return isinstance(values, dict) and any(values.get(name) == user_id for name in PEOPLE)


def mentions(line: bytes, user_id: str) -> bool:
    """Whether the id of a person is in a text, as a word; the text may be no JSON."""
    texts = {user_id, json.dumps(user_id)[1:-1], json.dumps(json.dumps(user_id)[1:-1])[1:-1]}
    word = "|".join(re.escape(text) for text in sorted(texts))
    return re.search(rf"(?<![\w-])({word})(?![\w-])", line.decode(errors="replace")) is not None


def remove_pages(folder: Path, user_id: str, dry_run: bool) -> Forgotten:
    """Remove the pages of alerts that show a person."""
    named = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and mentions(path.read_bytes(), user_id)
    ]
    for path in named if not dry_run else ():
        path.unlink(missing_ok=True)
    return Forgotten(str(folder), "pages", len(named), len(named))
