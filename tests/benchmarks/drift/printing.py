"""Rows of the benches' tables."""

import sys

from monitoring.quality.intervals import wilson_interval

WIDTHS = (58, 26, 16)


def print_row(*cells: str) -> None:
    """Print the cells of a row; the last one has no width."""
    padded = [cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=False)]
    sys.stdout.write("  ".join([*padded, *cells[len(WIDTHS) :]]).rstrip() + "\n")
    sys.stdout.flush()


def find_interval(hits: int, trials: int) -> tuple[float, float]:
    """95% interval of a share."""
    return wilson_interval(hits / trials, trials) if trials else (0.0, 1.0)
