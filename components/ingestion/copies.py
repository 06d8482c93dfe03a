"""Copies of what lies behind URLs, for sources that read local files."""

from pathlib import Path

from components.ingestion.settings import IngestSettings
from refit.errors import UsageError
from refit.remote import download, is_url


def download_sources(settings: IngestSettings, folder: Path) -> IngestSettings:
    """The same settings, with a copy in ``folder`` in place of every URL among their paths.

    Raises:
        UsageError: Nothing lies behind a URL.
        ServiceUnreachable: One could not be read.
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
        raise UsageError(f"there is nothing at {url}")
    return copy
