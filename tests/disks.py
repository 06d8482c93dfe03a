"""Disks of their own, for what happens on a full or a read-only one."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A small disk at ``folder``; the test is skipped where it may not be mounted.

    Args:
        folder: A folder that does not exist yet.
        options: Of the mount, such as ``ro,size=256k``.
    """
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted, which takes root: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily: an error that pytest keeps may hold a file open.
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def full_disk(folder: Path, *folders: str) -> Iterator[Path]:
    """A disk at ``folder`` without any space left.

    Args:
        folder: A folder that does not exist yet.
        folders: Names of folders to make on it before it is filled.
    """
    with disk(folder, "size=256k") as full:
        for name in folders:
            (full / name).mkdir()
        with suppress(OSError), (full / "filler").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        yield full
