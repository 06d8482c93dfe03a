"""Vectors of another length: by one factor, of some rows only, or all of one length."""

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
    list_vector_columns,
    read_window,
)
from monitoring.frame import Frame

UNIT = "logarithm of the factor by which vectors became longer, or the share of far other lengths"
RUNBOOK = Advice(
    "The vectors of all new listings are longer or shorter by one factor, or all have one length, "
    "or those of some are far longer or shorter than any before.",
    "Ask the owner of the encoder whether a normalisation was added or left out. Towers that were "
    "trained on the old lengths read these vectors wrongly.",
)
TABLES = ("items",)
_LEAST = 0.15
_AGREE = 0.1
_KNOWN_AGREE = 0.3
_PAIRED = 0.02
_FAR = 0.4
"""Logarithm of the factor (1.5) beyond all lengths that there were."""
_SOME = 0.02
_NORMALISED = 0.8
_VARIED = 0.02
"""Lengths that differed by less had been normalised before."""


def find(feed: Feed) -> Iterator[Sign]:
    """For each column of vectors, the common factor of known listings, or of all quantiles."""
    for column, length in list_vector_columns(feed):
        signs = []
        for pairs in compare_pairs(feed, column, length):
            logs = np.abs(np.log(np.maximum(pairs.ratio, 1e-9)))
            scaled = (pairs.cosine >= SAME) & (logs > _PAIRED)
            value = float(np.median(logs[scaled])) if scaled.mean() > pairs.limit else 0.0
            factor = float(np.median(pairs.ratio[scaled])) if scaled.any() else 1.0
            detail = (
                f"{scaled.mean():.0%} of {len(pairs)} known listings have a {column} by "
                f"{pairs.source} that is {factor:.3g} times as long, with the same direction"
            )
            n = len(pairs)
            signs.append(Sign(column, value, _PAIRED, detail, None, n, n))
        if (unpaired := _compare_lengths(feed, column, length)) is not None:
            signs.append(unpaired)
        if (spread := compare_spread(feed, column, length)) is not None:
            signs += [_find_far(feed, column, spread), _find_normalised(column, spread)]
        if not signs:
            yield Sign(column, why="too few listings have a vector", n_current=len(feed))
            continue
        yield choose_clearest(signs)


def _measure_lengths(rows: Frame, column: str) -> np.ndarray:
    vectors = rows.column(column).drop_null().to_numpy(zero_copy_only=False)
    return np.linalg.norm(np.stack(vectors), axis=1)


def _compare_lengths(feed: Feed, column: str, length: int) -> Sign | None:
    """All quantiles of the lengths moved by one factor, and the categories' means by it too."""
    groups = compare_groups(feed, column, length)
    if groups is None:
        return None
    now = np.linalg.norm(read_window(feed, column, length), axis=1)
    before = feed.listings.once(_measure_lengths, column)
    steps = np.log(np.quantile(now, (0.1, 0.5, 0.9)) / np.quantile(before, (0.1, 0.5, 0.9)))
    common = float(np.median(steps))
    lengths = float(groups.n @ (groups.before**2).sum(axis=1))
    lengths -= groups.variance0 * float((groups.n / groups.n0).sum())
    of_means = float(groups.n @ (groups.now * groups.before).sum(axis=1)) / max(lengths, 1e-12)
    deviation = float(np.sqrt(groups.per_dimension / max(lengths, 1e-12)))
    agree = np.ptp(steps) < _AGREE * max(1.0, abs(common)) and of_means > 0
    if agree:
        apart = abs(np.log(max(of_means, 1e-9)) - common)
        agree = apart < _KNOWN_AGREE * abs(common) + 3 * deviation / of_means
    detail = (
        f"{column} of new listings is {np.exp(common):.3g} times as long as before in all "
        "categories, with the same direction"
    )
    value = abs(common) if agree else 0.0
    return Sign(column, value, _LEAST, detail, None, len(before), len(now))


def _find_far(feed: Feed, column: str, spread: VectorSpread) -> Sign:
    """Vectors of known supply that are longer or shorter than any before by a factor of 1.5."""
    low, high = np.quantile(spread.before, [0.001, 0.999])
    far, far0 = ((x < low - _FAR) | (x > high + _FAR) for x in (spread.now, spread.before))
    k, n, k0, n0 = int(far.sum()), len(far), int(far0.sum()), len(far0)
    share, chance, p = compare_shares(k, n, k0, n0, feed.settings.rate)
    middle = np.exp(np.median(spread.now[far])) if k else 0.0
    detail = (
        f"{k / n:.0%} of the new vectors in {column} by known sellers are far longer or shorter "
        f"than any before: {middle:.3g}, before {np.exp(low):.3g} to {np.exp(high):.3g}"
    )
    return Sign(column, max(share, 0.0), max(_SOME, chance), detail, p, n0, n)


def _find_normalised(column: str, spread: VectorSpread) -> Sign:
    """Vectors of many lengths before, and of one now."""
    apart, apart0 = float(np.std(spread.now)), float(np.std(spread.before))
    lost = max(1.0 - apart / apart0, 0.0) if apart0 > _VARIED else 0.0
    detail = f"all new vectors in {column} are {np.exp(np.median(spread.now)):.3g} long: normalised"
    return Sign(column, lost, _NORMALISED, detail, None, len(spread.before), len(spread.now))
