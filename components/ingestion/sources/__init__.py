"""Data sources: one module each. A file that is dropped here is a source under its own name."""

from refit.extensions import ExtensionKind

SOURCES = ExtensionKind(
    name="source",
    group="refit.sources",
    package=__name__,
    needs=("TERMS", "NAIVE_TIMES", "IS_SIMULATED", "find_files", "read"),
)
"""How sources are found; what each attribute is: ``components.ingestion.source.Source``."""
