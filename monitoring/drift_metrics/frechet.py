"""Fréchet distance of two samples of vectors, as a share of the reference's variance."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, read_vectors, require_vector_length
from monitoring.pictures import draw_points
from monitoring.settings import MeasureSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNIT = "share of the reference's variance"
FLOOR = 0.0
RUNBOOK = {
    "query-embedding": Advice(
        "Queries differ from those that the model was trained on.",
        "Look at the queries below. If users send them, start a refit unless one is running. If "
        "one client or a crawler sends them, block it and do not refit.",
    ),
    "listing-embedding": Advice(
        "The live stock differs from the stock that the model was trained on.",
        "Look at the listings below. If sellers did list them, run index_refresh now and let the "
        "next refit learn them. If a broken import created them, fix the import first.",
    ),
    "*": Advice(
        "The vectors of this column differ from the reference's.",
        "Ask the owner of the feed whether the encoder changed. If it did not, watch live "
        "quality and refit when it falls.",
    ),
}


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """The length of the vectors."""
    return (require_vector_length(frame, column),)


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m, length] the vectors that are not missing."""
    return read_vectors(frame.column(column), int(parameters[0]))


@dataclass(frozen=True)
class Moments:
    """Mean [d] and covariance [d, d] of a sample."""

    mean: Array
    covariance: Array

    @cached_property
    def root(self) -> Array:
        """[d, d] square root of the covariance."""
        values, basis = np.linalg.eigh(self.covariance)
        root: Array = (basis * np.sqrt(np.clip(values, 0, None))) @ basis.T
        return root


def summarise(rows: Array) -> Moments:
    """Moments of vectors [n, d]."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    return Moments(mean, centred.T @ centred / max(1, len(rows) - 1))


def compare(reference: Moments, current: Moments) -> float:
    """Fréchet distance of the Gaussians with these moments, over the reference's variance.

    |m1-m2|^2 + tr(S1 + S2 - 2 (S1^.5 S2 S1^.5)^.5), over tr(S1). Source: Dowson and Landau, 1982.
    """
    root, first, second = reference.root, reference.covariance, current.covariance
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    moved = np.square(reference.mean - current.mean).sum()
    spread = max(float(np.trace(first)), 1e-12)
    return max(0.0, float(moved + np.trace(first) + np.trace(second) - 2 * cross) / spread)


def draw(axes: "Axes", reference: Array, current: Array, parameters: Parameters) -> str:
    """Draw both samples in the plane of the move."""
    draw_points(axes, reference, current)
    return "A sample of the vectors; the mean moved from left to right."
