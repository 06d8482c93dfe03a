"""What a source holds, in one value; apart from ingestion, whose imports take a second."""

from pathlib import Path
from tempfile import TemporaryDirectory

from components.ingestion.copies import download_sources
from components.ingestion.settings import IngestSettings
from components.ingestion.sources import find_source
from refit import __version__
from refit.files import checksum, fingerprint

_NOT_OF_THE_DATA = {"path", "paths", "rejected_folder", "memory_limit", "threads"}


def fingerprint_source(settings: IngestSettings) -> str:
    """SHA-256 over the source's files and whatever settings shape the dataset; hex.

    It reads every file once and knows nothing of where they lie, so that it can be the key of all
    caching: other data or another window is another key, the same data elsewhere is the same.
    A window that ends "now", since neither ``end`` nor ``as_of`` is set, is the same one tomorrow.

    Raises:
        UsageError: A file of the source is missing.
    """
    with TemporaryDirectory() as folder:
        near = download_sources(settings, Path(folder))
        files = find_source(near.source).find_files(near)
        return fingerprint(
            {
                "files": [f"{path.name}:{checksum(path)}" for path in files],
                "settings": near.model_dump(mode="json", exclude=_NOT_OF_THE_DATA),
                "version": __version__,
            }
        )
