"""Local copies of data behind URLs: sources read local files only."""

from pathlib import Path

from components.ingestion.settings import IngestSettings
from refit.errors import UsageError
from refit.remote import download, is_url


def download_source(settings: IngestSettings, folder: Path) -> IngestSettings:
    """Copy what is behind the URLs in ``path`` and ``paths`` to ``folder``.

    Returns:
        The settings with local paths in place of the URLs.

    Raises:
        UsageError: A URL is empty, or no library can read it.
        ServiceUnreachable: A URL could not be read.
    """
    places = {"path": settings.path, **settings.paths.model_dump()}
    copies = {
        name: str(_download(url, folder / name)) for name, url in places.items() if is_url(url)
    }
    path = copies.pop("path", settings.path)
    paths = settings.paths.model_copy(update=copies)
    return settings.model_copy(update={"path": path, "paths": paths})


def _download(url: str, folder: Path) -> Path:
    copy = download(url, folder)
    if copy.is_dir() and not any(copy.iterdir()):
        raise UsageError(f"there are no files at {url}")
    return copy
