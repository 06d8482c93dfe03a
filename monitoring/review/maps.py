"""A map of embeddings: reference and window in one plane, with the window's new cluster marked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from monitoring.frame import Array, Frame, is_list, read_vectors, require_vector_length
from monitoring.pictures import REFERENCE, REFERENCE_COLOUR, WINDOW
from monitoring.review.charts import draw_on_axes
from monitoring.review.evidence import EmbeddingMap

if TYPE_CHECKING:
    from monitoring.reference import Reference

NEIGHBOURS = 5
COMPANIONS = 2
"""A new vector belongs to a cluster when this many others are as near to it as those are."""
QUANTILE = 0.995
"""A vector is new where its neighbours in the reference are farther than for this share of the
reference's own vectors."""
LEAST_SHARE = 0.005
"""Fewer new vectors than this share are single odd ones and no cluster."""
_MOST_POINTS = 600
_MOST_ROWS = 12
_MOST_USUAL = 2000
_MOST_VECTORS = 8000
_WINDOW_COLOUR, _NEW_COLOUR = "#0072B2", "#D55E00"


def mark_new_cluster(reference: Array, current: Array) -> Array:
    """Which vectors of the window form a cluster where the reference has none.

    Args:
        reference: Vectors of the reference [n, d].
        current: Vectors of the window [m, d].

    Returns:
        A boolean for each vector of the window [m].
    """
    from scipy.spatial import cKDTree

    marked = np.zeros(len(current), dtype=bool)
    if len(reference) <= NEIGHBOURS or len(current) <= NEIGHBOURS:
        return marked
    there = cKDTree(reference)
    usual = there.query(_sample(reference, _MOST_USUAL), NEIGHBOURS + 1)[0][:, -1]
    limit = float(np.quantile(usual, QUANTILE))
    marked = there.query(current, NEIGHBOURS)[0][:, -1] > limit
    if marked.sum() <= NEIGHBOURS:
        return np.zeros(len(current), dtype=bool)
    # An odd vector has no others near it; a cluster has, as near as the reference's own are.
    near = cKDTree(current[marked]).query(current[marked], COMPANIONS + 1)[0][:, -1]
    marked[np.flatnonzero(marked)[near > limit]] = False
    return marked if marked.mean() >= LEAST_SHARE else np.zeros(len(current), dtype=bool)


def draw_map(
    title: str,
    reference: Array,
    current: Array,
    rows: Sequence[Mapping[str, str]] = (),
) -> EmbeddingMap:
    """Draw a map; the plane is that of the two main components of all vectors.

    Args:
        title: What the vectors are of.
        reference: Vectors of the reference [n, d].
        current: Vectors of the window [m, d].
        rows: Columns by name of each vector of the window; empty when there are none to show.
    """
    marked = mark_new_cluster(reference, current)
    plane = _find_plane(reference, current)
    share = float(marked.mean()) if len(marked) else 0.0
    caption = (
        f"{share:.1%} of this window's {title} ({marked.sum()} of {len(current)}) form a cluster "
        "where the reference has none."
        if marked.any()
        else f"No new cluster: this window's {title} lie where those of the reference do."
    )

    def draw(axes: Any) -> None:
        for vectors, colour, marker, label, most in (
            (reference, REFERENCE_COLOUR, "o", REFERENCE, _MOST_POINTS),
            (current[~marked], _WINDOW_COLOUR, "^", WINDOW, _MOST_POINTS),
            (current[marked], _NEW_COLOUR, "D", "new cluster", _MOST_POINTS // 2),
        ):
            if len(vectors):
                points = plane.place(_sample(vectors, most))
                axes.scatter(
                    *points.T,
                    s=9,
                    color=colour,
                    marker=marker,
                    alpha=0.65,
                    linewidth=0,
                    label=label,
                )
        axes.set_xticks([])
        axes.set_yticks([])

    return EmbeddingMap(
        title=title,
        picture=draw_on_axes(draw, f"map of {title}", caption, size=(4.6, 3.4)),
        caption=caption,
        marked=int(marked.sum()),
        rows=tuple(dict(rows[i]) for i in _find_middle(current, marked)) if rows else (),
    )


def collect_maps(reference: "Reference", frames: Mapping[str, Frame]) -> Iterator[EmbeddingMap]:
    """The maps of listings and of queries in a window, where there are vectors of both sides.

    Args:
        reference: The reference.
        frames: The window's rows by table.
    """
    for title, table, column in (
        ("listings", "listings", "embedding"),
        ("queries", "answers", "query_embedding"),
    ):
        there, here = reference.frames.get(table), frames.get(table)
        if there is None or here is None or not (len(there) and len(here)):
            continue
        length = require_vector_length(there, column)
        before = read_vectors(there.column(column), length)[0]
        now, positions = read_vectors(here.column(column), length)
        if len(before) and len(now):
            rows = _describe_rows(here, positions) if table == "listings" else ()
            yield draw_map(title, _sample(before, _MOST_VECTORS), now, rows)


def _describe_rows(frame: Frame, positions: Array) -> list[dict[str, str]]:
    """Columns by name of some rows, as text; what is missing is left out."""
    plain = [name for name in frame.names if not is_list(frame.column(name))]
    rows = frame.take(positions).table.select(plain).to_pylist()
    return [
        {name: format_cell(cell) for name, cell in row.items() if cell is not None and cell == cell}
        for row in rows
    ]


def format_cell(cell: Any) -> str:
    """A number, a text or a time for a reader."""
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)


@dataclass(frozen=True)
class _Plane:
    centre: Array
    axes: Array

    def place(self, vectors: Array) -> Array:
        """Where vectors [n, d] lie in the plane [n, 2]."""
        return (vectors - self.centre) @ self.axes


def _find_plane(reference: Array, current: Array) -> _Plane:
    both = np.concatenate(
        [_sample(reference, 4 * _MOST_POINTS), _sample(current, 4 * _MOST_POINTS)]
    )
    centre = both.mean(axis=0)
    axes = np.linalg.svd(both - centre, full_matrices=False)[2][:2].T
    if axes.shape[1] < 2:  # vectors of one number
        axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    return _Plane(centre, axes)


def _sample(vectors: Array, most: int) -> Array:
    if len(vectors) <= most:
        return vectors
    return vectors[np.random.default_rng(0).permutation(len(vectors))[:most]]


def _find_middle(current: Array, marked: Array) -> list[int]:
    """Positions of marked vectors, those nearest to their middle first."""
    positions = np.flatnonzero(marked)
    if not len(positions):
        return []
    cluster = current[positions]
    distance = np.linalg.norm(cluster - np.median(cluster, axis=0), axis=1)
    return [int(i) for i in positions[np.argsort(distance)[:_MOST_ROWS]]]
