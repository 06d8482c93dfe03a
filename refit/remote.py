"""Files behind URLs (any that fsspec knows), for what works on local paths only."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import fsspec

from refit.errors import ServiceUnreachable, UsageError
from refit.progress import log_message


def is_url(place: str) -> bool:
    """Whether a place is a URL and no local path."""
    return "://" in place


def download(
    url: str, folder: Path, wanted: Callable[[PurePosixPath], bool] = lambda name: True
) -> Path:
    """Copy a file, or the files under a folder, from a URL.

    Args:
        url: Such as ``s3://bucket/events``.
        folder: Where to; made when it is missing.
        wanted: Which of a folder's files, by their paths under it; hidden ones are left alone.

    Returns:
        The copied file, or ``folder``; empty when nothing lies behind the URL.

    Raises:
        UsageError: No installed library knows such URLs.
        ServiceUnreachable: It could not be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        files, root = fsspec.core.url_to_fs(url)
        files.invalidate_cache()
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


def upload(folder: Path, url: str) -> None:
    """Copy a local folder's files to under a URL.

    Raises:
        UsageError: No installed library knows such URLs.
        ServiceUnreachable: They could not be written.
    """
    try:
        files, root = fsspec.core.url_to_fs(url)
        files.makedirs(root, exist_ok=True)
        files.put(f"{folder}/", f"{root.rstrip('/')}/", recursive=True)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{url} cannot be written: {error}") from error
    except OSError as error:
        raise ServiceUnreachable(f"{url} cannot be written: {error}") from error
