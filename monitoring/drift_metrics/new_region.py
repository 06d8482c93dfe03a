"""Share of vectors that lie where the reference has hardly any."""

import numpy as np

from monitoring.drift_metrics import Advice, Parameters
from monitoring.frame import Array, Encoded, Frame, read_vectors, require_vector_length
from monitoring.settings import MeasureSettings
from refit.errors import DataValidationError

UNIT = "difference of the shares of vectors far from all regions of the reference"
RUNBOOK = {
    "query-embedding": Advice(
        "A group of queries is unlike any that the model was trained on.",
        "Look at the queries below, and at the column of their context that names them. If users "
        "send them, start a refit unless one is running.",
    ),
    "listing-embedding": Advice(
        "A group of new listings is unlike any that the model was trained on.",
        "Look at the listings below. If sellers did list them, run index_refresh now and let the "
        "next refit learn them. If a broken import created them, fix the import first.",
    ),
    "*": Advice(
        "Some vectors of this column lie where the reference has hardly any.",
        "Look at the listings below. Ask the owner of the feed whether the encoder changed.",
    ),
}
REGIONS = 64
_RARE = 0.02
"""The share of the reference's vectors that counts as far."""
_MOST_ROWS = 20_000


def fit(frame: Frame, column: str, settings: MeasureSettings) -> Parameters:
    """Centres [REGIONS, length] of the reference's regions, and how far from them is rare.

    The distance is calibrated on rows that the centres were not fitted to. Source of the regions:
    k-means, MacQueen, 1967.
    """
    from sklearn.cluster import MiniBatchKMeans

    length = require_vector_length(frame, column)
    rows, _ = read_vectors(frame.column(column), length)
    if len(rows) < 2 * settings.minimum_rows:
        raise DataValidationError(
            f"{len(rows)} usable rows, {2 * settings.minimum_rows} are needed"
        )
    random = np.random.default_rng(settings.seed)
    rows = rows[random.permutation(len(rows))[:_MOST_ROWS]]
    half = len(rows) // 2
    regions = min(REGIONS, max(1, half // 10))
    found = MiniBatchKMeans(regions, random_state=settings.seed, n_init=1).fit(rows[:half])
    centres = np.asarray(found.cluster_centers_, dtype=np.float32)
    distance = _find_distance(rows[half:], centres)
    return {"centres": centres, "radius": np.quantile(distance, 1 - _RARE)}


def encode(frame: Frame, column: str, parameters: Parameters) -> Encoded:
    """[m] 1 for a vector that is far from all centres, 0 for any other."""
    centres = parameters["centres"]
    rows, positions = read_vectors(frame.column(column), centres.shape[1])
    return _find_distance(rows, centres) > parameters["radius"], positions


def _find_distance(rows: Array, centres: Array) -> Array:
    """[n] squared distance of each row to its nearest centre."""
    product = rows @ (-2 * centres.T)
    product += np.square(centres).sum(axis=1)
    nearest: Array = product.min(axis=1) + np.square(rows).sum(axis=1)
    return nearest
