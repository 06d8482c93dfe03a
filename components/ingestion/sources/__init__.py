"""Where data comes from: one module a source, found by name."""

from importlib import import_module
from typing import cast

from components.ingestion.source import Source
from refit.errors import UsageError

SOURCES = ("files", "hm", "merrec", "online_retail", "renttherunway", "simulated", "vibrent")


def find_source(name: str) -> Source:
    """Load a source by its name.

    Raises:
        UsageError: There is none of that name; the message lists those that there are.
    """
    if name not in SOURCES:
        raise UsageError(f"unknown source {name!r}; the sources are {', '.join(SOURCES)}")
    return cast(Source, import_module(f"components.ingestion.sources.{name}"))
