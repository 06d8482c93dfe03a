"""The most popular live items of each context value: the fallback of serving."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.indexing.settings import IndexSettings
from refit.errors import UsageError
from refit.features import FeaturesManifest

POPULARITY_SCHEMA = pa.schema(
    [
        pa.field("column", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("item_row", pa.list_(pa.int32()), nullable=False),
        pa.field("score", pa.list_(pa.float32()), nullable=False),
    ]
)


def rank_popular_items(
    settings: IndexSettings,
    manifest: FeaturesManifest,
    popularity: NDArray[np.float32],
    age_days: NDArray[np.float32],
) -> pa.Table:
    """Rank the live items for each counted context value, and overall as column "" value "".

    Args:
        settings: Half-life, smoothing, and number of items.
        manifest: Of the features; names the columns of ``popularity``.
        popularity: [N, P] decayed counts of the live items.
        age_days: [N] ages; of equally popular items the newest comes first.

    Returns:
        ``POPULARITY_SCHEMA``. A score is an item's share of the value's decayed events, smoothed
        towards its overall share.

    Raises:
        UsageError: The features do not count with the half-life of the settings.
    """
    spec = manifest.spec
    half_lives = spec.popularity_half_lives_days
    wanted = settings.popularity_half_life_days or max(half_lives)
    if wanted not in half_lives:
        raise UsageError(f"popularity_half_life_days is {wanted}; the features have {half_lives}")
    by_half_life = popularity.reshape(len(popularity), len(half_lives), -1)
    counts = by_half_life[:, half_lives.index(wanted)].astype(np.float64)
    overall = counts[:, 0] / max(counts[:, 0].sum(), 1e-12)
    keys = [(c, v) for c in spec.popularity_by for v in manifest.popularity_values[c]]
    shares = [overall]
    for count in counts[:, 1:].T:
        smoothing = settings.popularity_smoothing
        shares.append((count + smoothing * overall) / max(count.sum() + smoothing, 1e-12))
    tie_break = np.where(np.isnan(age_days), np.inf, age_days)
    rows = []
    for (column, value), share in zip([("", ""), *keys], shares, strict=True):
        best = np.lexsort((tie_break, -share))[: settings.popular_items]
        rows.append({"column": column, "value": value, "item_row": best, "score": share[best]})
    return pa.Table.from_pylist(rows, POPULARITY_SCHEMA)
