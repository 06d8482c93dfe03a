"""Vectors from another encoder, in all rows or in some."""

from collections.abc import Iterator

import numpy as np

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, choose_clearest
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed
from monitoring.faults.vectors import (
    SAME,
    VectorSpread,
    compare_groups,
    compare_pairs,
    compare_spread,
    find_outliers,
    list_vector_columns,
)

UNIT = "share of vectors that moved, or of the categories' mean vectors that turned, or more noise"
RUNBOOK = Advice(
    "Another encoder, or another version of it, writes the vectors of all new rows or of some.",
    "Roll the encoder back, or encode the whole stock with the new one and refit on that. Vectors "
    "of two encoders cannot be compared: until then keep these days out of training.",
)
TABLES = ("items",)
_TURNED = 0.12
_DEVIATIONS = 5.0
_UNLIKE = 0.1
_NOISE = 0.3
"""More, or less, of the squared distance to the category's mean than sellers' pictures change."""


def find(feed: Feed) -> Iterator[Sign]:
    """For each column of vectors, known listings one by one, then the categories' means."""
    for column, length in list_vector_columns(feed):
        signs = [
            _to_sign(column, pairs.limit, pairs.source, share, len(pairs))
            for pairs in compare_pairs(feed, column, length)
            for share in [
                float(((pairs.cosine < SAME) & (pairs.ratio > 1e-6) & ~pairs.exchanged).mean())
            ]
        ]
        groups = compare_groups(feed, column, length)
        outliers = find_outliers(feed, column, length)
        if groups is not None:
            turned, deviation = groups.turned
            slope, _, size = groups.kept
            like = outliers is not None and outliers[0] < _UNLIKE
            if slope < 0.3 and (size < 0.3 or like):
                turned = 0.0  # the same vectors on other rows: shuffled
            detail = (
                f"the mean vectors of all categories turned in {column} by {turned:.0%}: another "
                "encoder writes all new listings, or a part of them"
            )
            threshold = max(_TURNED, _DEVIATIONS * deviation)
            rows = (int(groups.n0.sum()), int(groups.n.sum()))
            signs.append(Sign(column, turned, threshold, detail, None, *rows))
        if outliers is not None:
            signs.append(_judge_outliers(feed, column, *outliers))
        if (spread := compare_spread(feed, column, length)) is not None:
            signs.append(_judge_noise(column, spread))
        if not signs:
            why = "too few known listings were encoded again, and too few new ones are of known "
            yield Sign(column, why=why + "categories", n_current=len(feed))
            continue
        yield choose_clearest(signs)


def _judge_outliers(feed: Feed, column: str, share: float, n: int) -> Sign:
    n0 = len(feed.listings)
    more, chance, p = compare_shares(share * n, n, 0.01 * n0, n0, feed.settings.rate)
    kind = "all" if share > 0.9 else f"{share:.0%}"
    detail = (
        f"{kind} of the new vectors in {column} by known sellers, in all categories, are unlike "
        f"those before: another encoder writes them"
    )
    return Sign(column, max(more, 0.0), max(_UNLIKE, chance), detail, p, n0, n)


def _judge_noise(column: str, spread: VectorSpread) -> Sign:
    """Whether vectors scatter otherwise within all categories, their lengths taken out."""
    n0, n = len(spread.before), len(spread.now)
    longer = 2.0 * float(np.median(spread.now) - np.median(spread.before))
    changed = abs(float(np.log(max(spread.noise, 1e-9))) - longer)
    kind = "more" if np.log(max(spread.noise, 1e-9)) > longer else "less"
    detail = (
        f"new vectors in {column} by known sellers scatter {np.exp(changed):.3g} times {kind} "
        "about the mean of their category: another encoder, or noise in what it is given"
    )
    return Sign(column, changed, max(_NOISE, _DEVIATIONS * spread.deviation), detail, None, n0, n)


def _to_sign(column: str, limit: float, source: str, share: float, n: int) -> Sign:
    kind = "replaced" if share > 0.9 else "half rolled out"
    detail = (
        f"{share:.0%} of {n} known listings have another {column} by {source} than they had: "
        f"the encoder was {kind}"
    )
    return Sign(column, share, limit, detail, None, n, n)
