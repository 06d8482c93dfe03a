"""Output of the command line: tables on a terminal, plain lines in a pipe, JSON for scripts."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)
_OUT = Console(highlight=False, soft_wrap=True)


def write_line(text: str) -> None:
    """Write one line as it is: brackets and colons in it mean nothing."""
    _OUT.print(text, markup=False, emoji=False)


def write_progress(text: str) -> None:
    """Write one line of progress to standard error, so that a pipe gets results only."""
    ERRORS.print(text, style="dim" if ERRORS.is_terminal else None, markup=False, emoji=False)


def write_result(ok: bool, subject: str, detail: str) -> None:
    """Write the result of a check: a mark, what was checked, and what was found or is to do."""
    line = Text("ok      " if ok else "NOT OK  ", style="green" if ok else "bold red")
    _OUT.print(line.append(f"{subject}: {detail}", style="default" if ok else "bold"))


def write_json(value: Any) -> None:
    """Write one JSON document to standard output, for scripts."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def write_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], when_empty: str = ""
) -> None:
    """Write a table on a terminal, tab-separated lines with a header in a pipe.

    Args:
        title: Shown on a terminal.
        columns: The header.
        rows: The cells, shown as they are.
        when_empty: What to write to standard error when there are no rows.
    """
    rows = list(rows)
    if not rows and when_empty:
        write_progress(when_empty)
    if not _OUT.is_terminal:
        for row in (columns, *rows):
            sys.stdout.write("\t".join(str(cell) for cell in row) + "\n")
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")  # an id that is cut off cannot be copied
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    _OUT.print(table)
