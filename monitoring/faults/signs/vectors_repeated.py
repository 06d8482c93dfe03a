"""Vectors of zeros, of no finite numbers, of another length, or one vector for many listings."""

from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, choose_clearest
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed
from monitoring.faults.vectors import compare_pairs, list_vector_columns
from monitoring.frame import Frame, read_vectors

UNIT = "difference of the shares of vectors that say nothing"
RUNBOOK = Advice(
    "Vectors are zeros, hold NaN or infinity, are the same for many listings, or have another "
    "number of dimensions.",
    "Ask the owner of the encoder what it returns where it fails, such as for a picture that "
    "cannot be read, and encode these listings again.",
)
TABLES = ("items",)
_LEAST = 0.02
_PLACES = 8
REPEATED = "another listing's vector again"


def find(feed: Feed) -> Iterator[Sign]:
    """For each column of vectors, the share of rows whose vector says nothing."""
    for column, length in list_vector_columns(feed):
        signs = [
            Sign(
                column,
                share,
                pairs.limit,
                f"{share:.0%} of {len(pairs)} known listings have a {column} of zeros by "
                f"{pairs.source}",
                None,
                len(pairs),
                len(pairs),
            )
            for pairs in compare_pairs(feed, column, length)
            for share in [float((pairs.ratio < 1e-6).mean())]
        ]
        if len(feed.vectors) >= feed.settings.minimum_rows:
            signs.append(_compare(feed, column, length))
        if not signs:
            yield Sign(column, why="too few listings have a vector", n_current=len(feed))
            continue
        yield choose_clearest(signs)


def _compare(feed: Feed, column: str, length: int) -> Sign:
    counts, n = _count(feed.vectors, column, length)
    counts0, n0 = feed.listings.once(_count, column, length)
    if feed.is_timed:  # a row that comes twice brings its vector twice
        counts[REPEATED] = max(0, counts[REPEATED] - round(feed.doubled * n))
    kind = max(counts, key=lambda each: counts[each] - counts0[each] * n / max(n0, 1))
    share, chance, p = compare_shares(counts[kind], n, counts0[kind], n0, feed.settings.rate)
    detail = f"{counts[kind] / n:.0%} of the new values of {column} are {kind}"
    return Sign(column, max(share, 0.0), max(_LEAST, chance), detail, p, n0, n)


def _count(rows: Frame, column: str, length: int) -> tuple[dict[str, int], int]:
    cells = rows.column(column)
    vectors, readable = read_vectors(cells, length)
    zero = ~vectors.any(axis=1)
    sums = np.round(vectors[~zero][:, :_PLACES].astype(np.float64), 5)
    repeats = len(sums) - len(np.unique(sums, axis=0)) if len(sums) else 0
    there = int(pc.count(cells).as_py())
    lengths = pc.sum(pc.not_equal(pc.list_value_length(cells), length)).as_py() or 0
    broken = max(there - int(lengths) - len(readable), 0)
    found = {
        "zeros": int(zero.sum()),
        REPEATED: repeats,
        f"not {length} numbers": int(lengths),
        "not finite": broken,
    }
    return found, max(there, 1)
