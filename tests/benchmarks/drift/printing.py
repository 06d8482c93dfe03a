"""Rows of the benches' tables."""

import sys

from scipy.special import ndtri

WIDTHS = (58, 26, 16)


def print_row(*cells: str) -> None:
    """Print the cells of a row; the last one has no width."""
    padded = [cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=False)]
    sys.stdout.write("  ".join([*padded, *cells[len(WIDTHS) :]]).rstrip() + "\n")
    sys.stdout.flush()


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95% interval of a share. Source: Wilson, 1927."""
    if not trials:
        return 0.0, 1.0
    z, p = float(ndtri(0.975)), hits / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * (p * (1 - p) / trials + z * z / (4 * trials**2)) ** 0.5 / (1 + z * z / trials)
    return max(0.0, centre - half), min(1.0, centre + half)
