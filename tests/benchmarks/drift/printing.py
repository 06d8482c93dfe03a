"""Rows of the benches' tables, on the screen and as a page."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from monitoring.quality.intervals import wilson_interval

WIDTHS = (58, 26, 16)


@dataclass
class PrintedRows:
    """The rows that were printed since it was entered.

    Attributes:
        rows: Their cells.
    """

    rows: list[tuple[str, ...]] = field(default_factory=list)

    def __enter__(self) -> "PrintedRows":
        _KEEPERS.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _KEEPERS.remove(self)


_KEEPERS: list[PrintedRows] = []


def print_row(*cells: str) -> None:
    """Print the cells of a row; the last one has no width."""
    for keeper in _KEEPERS:
        keeper.rows.append(cells)
    padded = [cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=False)]
    sys.stdout.write("  ".join([*padded, *cells[len(WIDTHS) :]]).rstrip() + "\n")
    sys.stdout.flush()


def to_markdown(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a table: a row whose first cell is empty goes on with the one above."""
    for cells in _join_rows(rows):
        padded = [*cells, *[""] * (len(WIDTHS) + 1 - len(cells))]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in padded) + " |"


def find_interval(hits: int, trials: int) -> tuple[float, float]:
    """95% interval of a share."""
    return wilson_interval(hits / trials, trials) if trials else (0.0, 1.0)


def _join_rows(rows: Sequence[tuple[str, ...]]) -> list[list[str]]:
    joined: list[list[str]] = []
    for cells in rows:
        if cells[0] or not joined:
            joined.append(list(cells))
            continue
        last = joined[-1]
        last += [""] * (len(WIDTHS) + 1 - len(last))
        words = " ".join(cell for cell in cells if cell)
        last[-1] = f"{last[-1]}<br>{words}" if last[-1] else words
    return joined
