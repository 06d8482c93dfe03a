"""Find the files that belong to a table: each is read once, and nothing else is."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from refit.errors import UsageError
from refit.progress import log_message

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
PARQUET = ".parquet"
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_KEY = re.compile(r"(?P<key>[^=]+)=(?P<value>.*)")
_NO_DATA = (
    *(".md", ".json", ".yaml", ".yml", ".html", ".pdf", ".log", ".sql", ".sh", ".py"),
    *(".md5", ".sha256", ".avsc", ".crc", ".png", ".jpg", ".ini", ".db"),
)
"""Endings of files that lie beside data and hold none."""
_LEFT_OUT = "._~"
"""What the names of files and folders begin with that are no data."""
_VERSION_WORDS = (
    *("old", "new", "copy", "backup", "bak", "final", "full", "all", "latest", "export", "dump"),
    *("data", "table", "part", "csv", "tsv", "txt", "dat", "parquet", "pq", "gz", "zip", "bz2"),
    *("zst", "xz", "snappy", "xls", "xlsx", "jsonl", "ndjson", "avro", "orc", "feather"),
)
"""Words after a table's name with which a file may still be that table."""
_VERSIONED = ("_delta_log", ".hoodie")
"""Folders of table formats whose files do not all belong to the present table."""


def has_suffix(path: Path, suffixes: Sequence[str] = SUFFIXES) -> bool:
    """Whether a file's name ends in one of ``suffixes``, in upper or lower case."""
    return path.name.lower().endswith(tuple(suffixes))


def is_parquet(path: Path) -> bool:
    """Whether a file's name says that it is Parquet."""
    return has_suffix(path, (PARQUET,))


def find_named(folder: Path, name: str) -> list[Path]:
    """The folder ``name`` and the files ``name`` with a suffix in a folder, in any case, sorted."""
    wanted = {name, *(f"{name}{suffix}" for suffix in SUFFIXES)}
    return sorted(path for path in folder.iterdir() if path.name.lower() in wanted)


def find_similar(folder: Path, name: str) -> list[Path]:
    """Files and folders that may hold a table, too, by their names, such as ``items_old.csv``.

    Those that ``find_named`` finds, and notes beside data, are not among them.
    """
    own = find_named(folder, name)
    return sorted(
        path
        for path in folder.iterdir()
        if path not in own and _may_be_called(path, name) and not has_suffix(path, _NO_DATA)
    )


def _may_be_called(path: Path, name: str) -> bool:
    """Whether a file is called like a table but for numbers, versions and its format."""
    if path.name[0] in _LEFT_OUT:
        return False
    first, *rest = [word for word in re.split(r"[\W_]+", path.name.lower()) if word] or [""]
    is_more = all(any(c.isdigit() for c in word) or word in _VERSION_WORDS for word in rest)
    return first in (name, name.removesuffix("s")) and is_more


def find_parts(path: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Return a file as it is, or the files of a folder that end in one of ``suffixes``, sorted.

    Folders such as ``day=2026-01-01`` and ``2026`` below it are read too; files and folders whose
    names begin with a dot, an underscore or ``~`` are not.

    Raises:
        UsageError: There is no such file, or one of which it is not clear whether it belongs.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_file():
        return [path]
    parts = sorted(_walk(path, suffixes))
    if not parts:
        raise UsageError(f"{path} holds no {' or '.join(suffixes)} file")
    return parts


def partition_keys(part: Path, root: Path) -> dict[str, str | None]:
    """The keys and values in the names of the folders between a table's folder and a part."""
    keys: dict[str, str | None] = {}
    for folder in part.relative_to(root).parts[:-1] if part != root else ():
        if match := _KEY.fullmatch(folder):
            value = unquote(match["value"])
            keys[unquote(match["key"])] = None if value == _NO_VALUE else value
    return keys


def name_with_keys(part: Path) -> str:
    """A part's name, and those of the ``key=value`` folders that it is in: they are data too."""
    return "/".join([*(name for name in part.parts[:-1] if _KEY.fullmatch(name)), part.name])


def _walk(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name in _VERSIONED:
            raise UsageError(
                f"{folder} is a table of versions ({path.name}): some of its files hold rows that "
                "were deleted; export the present table to Parquet"
            )
        if path.name[0] in _LEFT_OUT:
            continue
        if path.is_symlink() and not path.exists():
            raise UsageError(f"{path} is a link to {path.readlink()}, which does not exist")
        if path.is_dir():
            if path.resolve() in (folder.resolve(), *folder.resolve().parents):
                raise UsageError(f"{path} is a link to a folder that it is in; remove the link")
            inside = list(_walk(path, suffixes))
            if inside and not (_KEY.fullmatch(path.name) or path.name.isdigit()):
                raise UsageError(
                    f"{path} holds {len(inside)} files, and its name is not key=value: move it out "
                    f"of {folder} if it does not belong to the table, else move its files up"
                )
            yield from inside
        elif has_suffix(path, suffixes):
            yield path
        elif not has_suffix(path, _NO_DATA):
            if not is_text_note(path):
                raise UsageError(
                    f"{path} may be part of the table, and cannot be read: rename or convert it to "
                    f"{' or '.join(suffixes)}, or move it out of {folder}"
                )
            log_message(f"not read: {path}")


def is_text_note(path: Path) -> bool:
    """Whether a file is by its name a note to people, such as ``README`` or ``LICENSE.txt``."""
    return bool(re.match(r"(readme|licen[cs]e|notice|changelog|about)\b", path.name.lower()))


def describe_keys(keys: Mapping[str, str | None]) -> str:
    """The keys of a partitioned table, for messages."""
    return ", ".join(f"{key}=" for key in keys)
