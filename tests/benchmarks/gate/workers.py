"""What a worker process does before it imports DuckDB; this module therefore imports little."""

import sys


def name_main() -> None:
    """Give the main module a file: without one DuckDB takes a person to watch, and draws bars."""
    sys.modules["__main__"].__file__ = __file__
