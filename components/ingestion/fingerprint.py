"""The fingerprint of a source; apart from ``ingest``, whose imports take a second."""

import inspect
from pathlib import Path
from tempfile import TemporaryDirectory

from components.ingestion.copies import download_source
from components.ingestion.settings import IngestSettings
from components.ingestion.source import Source, load_source
from refit import __version__
from refit.errors import UsageError
from refit.extensions import naming
from refit.files import checksum, fingerprint
from refit.tabular.table_files import name_with_keys

_DOES_NOT_SHAPE_THE_DATA = {"path", "paths", "rejected_folder", "memory_limit", "threads"}


def fingerprint_source(settings: IngestSettings) -> str:
    """Compute the cache key of a dataset: SHA-256 over all that shapes it; hex.

    It covers the content of the source's files, the module that defines the source, Refit's version
    and the settings, but no path: the same data in another place has the same fingerprint. Every
    file is read once. With neither ``end`` nor ``as_of`` the window ends now, and the fingerprint
    is the same tomorrow.

    Raises:
        UsageError: The source cannot be loaded, or one of its files is missing.
        ServiceUnreachable: A URL could not be read.
    """
    with TemporaryDirectory() as folder:
        local = download_source(settings, Path(folder))
        source = load_source(local)
        with naming(f"source {settings.source!r}", "correct its find_files()"):
            files = source.find_files(local)
        if not files:
            raise UsageError(
                f"source {settings.source!r} finds no file: without one a change of its data would "
                "not be noticed; export the data to files first"
            )
        return fingerprint(
            {
                "files": [f"{name_with_keys(path)}:{checksum(path)}" for path in files],
                "source": checksum(_find_code(source)),
                "settings": local.model_dump(mode="json", exclude=_DOES_NOT_SHAPE_THE_DATA),
                "version": __version__,
            }
        )


def _find_code(source: Source) -> Path:
    """The file of the module that defines a source."""
    module = inspect.getmodule(source)
    assert module is not None  # it was imported
    return Path(inspect.getfile(module))
