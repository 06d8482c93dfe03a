"""Download and upload files at fsspec URLs, for code that needs local paths."""

import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from refit.errors import ServiceUnreachable, UsageError
from refit.files import write_atomically
from refit.progress import log_message


def is_url(location: str) -> bool:
    """Whether a location is a URL rather than a local path."""
    return "://" in location


def download(
    url: str, folder: Path, wanted: Callable[[PurePosixPath], bool] = lambda name: True
) -> Path:
    """Copy a file, or the files under a folder, from a URL.

    Args:
        url: Such as ``s3://bucket/events``.
        folder: Target folder; created if it is missing.
        wanted: Whether to copy a file of a folder, by its relative path; hidden files are skipped.

    Returns:
        The copied file, or ``folder``, which stays empty if the URL has no files.

    Raises:
        UsageError: No installed library supports the URL.
        ServiceUnreachable: The URL could not be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        files, root = open_store(url)
        if files.isfile(root):
            copy = folder / PurePosixPath(root).name
            files.get_file(root, str(copy))
            return copy
        found = (PurePosixPath(name) for name in files.find(root))
        names = [name for name in found if wanted(name.relative_to(root)) and name.name[0] != "."]
        copies = [folder / name.relative_to(root) for name in names]
        for copy in copies:
            copy.parent.mkdir(parents=True, exist_ok=True)
        files.get([str(name) for name in names], [str(copy) for copy in copies])
    except (ValueError, ImportError) as error:
        raise UsageError(f"{url} cannot be read: {error}") from error
    except Exception as error:  # clients of stores have errors of their own
        raise ServiceUnreachable(f"{url} cannot be read: {error}") from error
    log_message(f"{len(names)} files from {url}")
    return folder


def open_store(url: str, **options: Any) -> tuple[Any, str]:
    """The file system of a path or a URL, and the place in it.

    It keeps no listings: other processes write to the same place, and s3fs looks for a file in a
    listing that it has kept before it asks the store.

    Args:
        url: The path or URL.
        options: More options of the file system.

    Raises:
        ValueError, ImportError: No installed library supports the URL.
    """
    files, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    return files, str(root)


def put_whole(store: Any, content: Path | bytes, target: str) -> None:
    """Write a file of a file system so that others see it whole or not at all.

    Args:
        store: The file system.
        content: The content, or the local file that is copied.
        target: Its path there; its folder is made if the file system has folders.

    Raises:
        FileNotFoundError: The local file is gone.
        OSError: It could not be written.
    """
    if not has_folders(store):
        _put(store, content, target)  # an object appears whole
    elif "file" in store.protocol:
        with write_atomically(Path(target)) as staging:
            _put(store, content, str(staging))
    else:
        folder, _, name = target.rpartition("/")
        store.makedirs(folder, exist_ok=True)
        partial = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}.partial"
        _put(store, content, partial)
        store.mv(partial, target)


def _put(store: Any, content: Path | bytes, target: str) -> None:
    if isinstance(content, bytes):
        store.pipe_file(target, content)
    else:
        store.put_file(str(content), target)


def has_folders(store: Any) -> bool:
    """Whether a file system is no object store: files in it grow while they are written."""
    return "file" in store.protocol or "sftp" in store.protocol or "hdfs" in store.protocol


def remove_files(store: Any, paths: Iterable[str]) -> None:
    """Remove files; those that are gone already are none of its business.

    Raises:
        OSError: One could not be removed.
    """
    paths = list(paths)
    if paths and "s3" in store.protocol:
        store.rm(paths)  # a thousand at once
        return
    for path in paths:
        with suppress(FileNotFoundError):
            store.rm_file(path)


def upload(folder: Path, url: str) -> None:
    """Copy the files of a local folder to a folder at a URL.

    Raises:
        UsageError: No installed library supports the URL.
        ServiceUnreachable: The files could not be written.
    """
    try:
        files, root = open_store(url)
        files.makedirs(root, exist_ok=True)
        files.put(f"{folder}/", f"{root.rstrip('/')}/", recursive=True)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{url} cannot be written: {error}") from error
    except OSError as error:
        raise ServiceUnreachable(f"{url} cannot be written: {error}") from error
