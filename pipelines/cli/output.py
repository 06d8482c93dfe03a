"""How the command line speaks: tables and progress on a terminal, plain lines in a pipe, JSON."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)
_OUT = Console(highlight=False, soft_wrap=True)


def write_line(text: str) -> None:
    """One line for the reader; markup only shows on a terminal."""
    _OUT.print(text)


def write_progress(text: str) -> None:
    """One line of progress, on standard error so that a pipe gets results only."""
    ERRORS.print(text, style="dim" if ERRORS.is_terminal else None, markup=False)


def write_json(value: Any) -> None:
    """One JSON document on standard output, for scripts."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def write_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on a terminal, tab-separated lines with a header in a pipe."""
    if not _OUT.is_terminal:
        for row in (columns, *rows):
            sys.stdout.write("\t".join(str(cell) for cell in row) + "\n")
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    _OUT.print(table)
