"""Atomic writes, and checksums that detect changes."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refit.errors import RefitError


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and rename it to ``path`` on success.

    Works for a file, and for a folder that does not exist yet. After an error nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield staging
        for written in (staging, *(staging.rglob("*") if staging.is_dir() else ())):
            _sync(written)
        staging.replace(path)
        _sync(path.parent)
    except BaseException:
        remove(staging)
        raise


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically.

    Raises:
        ValueError: The value contains NaN or infinity.
    """
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=str)
    with write_atomically(path) as staging:
        staging.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        RefitError: The file is missing or is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RefitError(f"{path} does not exist") from None
    except ValueError as error:
        raise RefitError(f"{path} is not valid JSON: {error}") from None


def checksum(path: Path) -> str:
    """SHA-256 of a file, or of the relative names and contents of a folder's files, in hex."""
    digest = hashlib.sha256()
    if path.is_file():
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file_path.relative_to(path).as_posix().encode())
        digest.update(checksum(file_path).encode())
    return digest.hexdigest()


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON-serialisable value, independent of key order, in hex."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
