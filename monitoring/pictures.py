"""Pictures that several drift metrics draw: the reference against a window, on Matplotlib axes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from monitoring.frame import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# From Okabe and Ito's palette, which colour-blind readers can distinguish.
REFERENCE_COLOUR, WINDOW_COLOUR = "#8a8a8a", "#D55E00"
REFERENCE, WINDOW = "reference", "this window"
_BINS = 30
_MOST_POINTS = 250


def draw_histograms(axes: "Axes", reference: Array, current: Array) -> None:
    """Draw two samples of numbers [n] as histograms of equal area.

    The axis ends where a thousandth of all numbers lies beyond, on either side.
    """
    both = np.concatenate([reference, current])
    low, high = np.quantile(both, (0.001, 0.999))
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    for rows, colour, label in (
        (reference, REFERENCE_COLOUR, REFERENCE),
        (current, WINDOW_COLOUR, WINDOW),
    ):
        counts = np.histogram(np.clip(rows, edges[0], edges[-1]), edges)[0]
        axes.stairs(counts / max(len(rows), 1), edges, color=colour, linewidth=1.4, label=label)
    axes.set_ylabel("share of rows")


def draw_shares(
    axes: "Axes", reference: Mapping[str, float], current: Mapping[str, float], most: int = 6
) -> None:
    """Draw the shares of the ``most`` values that changed most, as pairs of horizontal bars."""
    values = sorted(
        reference.keys() | current.keys(),
        key=lambda v: (-abs(current.get(v, 0.0) - reference.get(v, 0.0)), v),
    )[:most]
    positions = np.arange(len(values))
    for shares, colour, label, offset in (
        (reference, REFERENCE_COLOUR, REFERENCE, -0.2),
        (current, WINDOW_COLOUR, WINDOW, 0.2),
    ):
        widths = [shares.get(value, 0.0) for value in values]
        axes.barh(positions + offset, widths, height=0.38, color=colour, label=label)
    axes.set_yticks(positions, [v if len(v) < 20 else f"{v[:18]}…" for v in values])
    axes.invert_yaxis()
    axes.set_xlabel("share")


def draw_points(axes: "Axes", reference: Array, current: Array) -> None:
    """Draw samples of vectors [n, d] in a plane.

    From left to right is the direction in which the mean moved, from bottom to top the direction
    in which the vectors vary most besides.
    """
    random = np.random.default_rng(0)
    there, here = (
        rows[random.permutation(len(rows))[:_MOST_POINTS]] for rows in (reference, current)
    )
    moved = current.mean(axis=0) - reference.mean(axis=0)
    moved /= max(float(np.linalg.norm(moved)), 1e-12)
    centre = reference.mean(axis=0)
    both = np.concatenate([there, here]) - centre
    rest = both - np.outer(both @ moved, moved)
    plane = np.stack([moved, np.linalg.svd(rest, full_matrices=False)[2][0]], axis=1)
    for rows, colour, marker, label in (
        (there, REFERENCE_COLOUR, "o", REFERENCE),
        (here, WINDOW_COLOUR, "^", WINDOW),
    ):
        x, y = ((rows - centre) @ plane).T
        axes.scatter(x, y, s=6, color=colour, marker=marker, alpha=0.6, linewidth=0, label=label)
    axes.set_xticks([])
    axes.set_yticks([])
