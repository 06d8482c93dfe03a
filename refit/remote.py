"""Download and upload files at fsspec URLs, for code that needs local paths."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from refit.errors import ServiceUnreachable, UsageError
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
    except OSError as error:
        raise ServiceUnreachable(f"{url} cannot be read: {error}") from error
    log_message(f"{len(names)} files from {url}")
    return folder


def open_store(url: str) -> tuple[Any, str]:
    """The file system of a path or a URL, and the place in it.

    It keeps no listings: other processes write to the same place, and s3fs looks for a file in a
    listing that it has kept before it asks the store.

    Raises:
        ValueError, ImportError: No installed library supports the URL.
    """
    files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return files, str(root)


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
